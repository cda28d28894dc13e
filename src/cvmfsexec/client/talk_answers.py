"""What a mount answers on its talk socket, in the words of the original.

Scripts read these answers, so they are the original's to the letter where a command has
a meaning here. What has none says so in one sentence.

Threads: several may ask at once; each command is as safe as what it calls.

Source: docs/reference/talk.md.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

from cvmfsexec import __version__, log
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.cached_paths import CachedPaths
from cvmfsexec.client.gauges import GaugeBoard
from cvmfsexec.client.route_commands import RouteCommands
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.parameters import Parameters, format_parameter
from cvmfsexec.format.talk_message import (
    OK,
    TalkCommand,
    parse_talk_message,
    whole_number,
)

_INDENT = "    "
_MINUTE_S = 60

_NOT_HERE = {
    "pid cachemgr": "there is no cache manager process",
    "pid watchdog": "there is no watchdog process",
    "hotpatch history": "a file server is never replaced while it runs",
    "latency": "latencies are among the 'gauges', if CVMFS_INSTRUMENT_FUSE is on",
    "nameserver set": "names are resolved by the system",
    "send mount fd": "a mount stays with its file server",
    "chroot": "a revision is chosen when a session is started, REPOSITORY@HASH",
    "detach nested catalogs": "catalogs make room for each other",
    "vfs inodes": "inodes need no table",
    "vfs entries": "entries need no table",
    "tear down to read-only": "the mount is read-only",
}
"""Commands without a meaning here, and why."""


class TalkSubject(NamedTuple):
    """What is talked about.

    Attributes:
        client: Of the repository.
        parameters: As it was configured.
        mountpoint: Where it is mounted.
        board: All that is counted.
        forget_errors: Sets its count of errors to nothing.
    """

    client: Client
    parameters: Parameters
    mountpoint: str
    board: GaugeBoard
    forget_errors: Callable[[], object]


class TalkAnswers:
    """Answers commands about one mount."""

    def __init__(self, subject: TalkSubject) -> None:
        """Nothing is asked yet."""
        self._subject = subject
        client = subject.client
        cached = CachedPaths(client)
        workspace = client.settings.cache.workspace
        routes = RouteCommands(
            client.http, client.external_http, client.fqrn, workspace
        )
        self._answers: dict[str, Callable[[str], str]] = {
            "attribute": self._attribute,
            "tracebuffer flush": _ok,
            "mountpoint": lambda _: f"{subject.mountpoint}\n",
            "device id": self._device_id,
            "remount": self._remount,
            "remount sync": self._remount,
            "revision": lambda _: f"{client.revision.number}\n",
            "max ttl info": self._max_ttl,
            "max ttl set": self._set_max_ttl,
            "nameserver get": lambda _: "DNS server not set.\n",
            "open catalogs": self._open_catalogs,
            "parameters": self._parameters,
            "pid": lambda _: f"{os.getpid()}\n",
            "reset error counters": self._reset_errors,
            "version": lambda _: (
                f"{__version__} (CernVM-FS Fuse Module)\n{__version__} (Loader)\n"
            ),
            "version patchlevel": lambda _: "0\n",
            "internal affairs": self._internal_affairs,
            "gauges": lambda _: f"{subject.board.look().serialize().decode()}\n",
            **cached.answers(),
            **routes.answers(),
        }

    def answer(self, message: bytes) -> bytes:
        """Return the answer to a message, whatever it is."""
        try:
            text = self._answer(parse_talk_message(message))
        except CvmfsError as error:
            text = f"Failed ({error})\n"
        except Exception as error:  # noqa: BLE001 -- the border of a conversation
            log.error("this is a mistake in cvmfsexec: talk: %r", error)
            text = "internal error\n"
        return text.encode("utf-8", "surrogateescape")

    def _answer(self, command: TalkCommand) -> str:
        if not command.name:
            return "unknown command\n"
        if command.name in _NOT_HERE:
            return f"{command.name} does not apply: {_NOT_HERE[command.name]}\n"
        if command.lacks_argument:
            return f"Usage: {command.name} <arg>\n"
        return self._answers[command.name](command.argument)

    def _attribute(self, argument: str) -> str:
        if argument == "statfs":
            numbers = self._subject.client.statfs()
            return ",".join(map(str, numbers)) + "\n"
        value = self._subject.client.attribute(argument)
        return "No such attribute\n" if value is None else f"{value}\n"

    # -- the mount -------------------------------------------------------------------

    def _device_id(self, _argument: str) -> str:
        try:
            device = os.stat(self._subject.mountpoint).st_dev
        except OSError as error:
            return f"Failed ({error.strerror})\n"
        return f"{os.major(device)}:{os.minor(device)}\n"

    def _remount(self, _argument: str) -> str:
        return f"{self._subject.client.updates.check_now().value}\n"

    def _max_ttl(self, _argument: str) -> str:
        max_ttl_s = self._subject.client.updates.max_ttl_s
        return "unset\n" if not max_ttl_s else f"{max_ttl_s // _MINUTE_S} minutes\n"

    def _set_max_ttl(self, argument: str) -> str:
        minutes = whole_number(argument)
        if minutes is None:
            return "Usage: max ttl set <minutes>\n"
        self._subject.client.updates.set_max_ttl(minutes * _MINUTE_S or None)
        return OK

    def _open_catalogs(self, _argument: str) -> str:
        tree = self._subject.client.tree
        paths = sorted({os.fsdecode(one.root_prefix) for one in tree.opened()})
        lines = []
        for path in paths:
            above = [p for p in paths if p != path and path.startswith(f"{p}/")]
            lines.append(f"{_INDENT * len(above)}-> {path or '/'}\n")
        return "".join(lines)

    def _parameters(self, _argument: str) -> str:
        return "".join(
            f"{format_parameter(name, parameter)}\n"
            for name, parameter in self._subject.parameters.items()
        )

    def _reset_errors(self, _argument: str) -> str:
        self._subject.forget_errors()
        return OK

    def _internal_affairs(self, _argument: str) -> str:
        client = self._subject.client
        statistics = client.http.statistics
        values = {
            "cvmfs.n_catalogs_open": client.tree.open_count,
            "fetch.n_opened": client.fetcher.opened_count,
            "fetch.n_missed": client.fetcher.missed_count,
            "download.n_requests": statistics.downloads,
            "download.sz_received": statistics.received_bytes,
            "download.n_failed": statistics.failed_attempts,
        }
        lines = [f"{name}|{value}|ours\n" for name, value in values.items()]
        for kind, count in sorted(self._subject.board.look().requests.items()):
            lines.append(f"fuse.n_{kind.lower()}|{count}|requests of the kernel\n")
        return "Name|Value|Description\n" + "Raw Counters:\n" + "".join(lines)


def _ok(_argument: str) -> str:
    return OK
