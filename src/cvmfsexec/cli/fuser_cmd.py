"""List the processes that use a mount."""

import argparse
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.mounts import live_mounts, wanted_names
from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.cli.report import write_message
from cvmfsexec.client.talk_socket import talk
from cvmfsexec.errors import CvmfsError
from cvmfsexec.log import harmless

NOBODY = 1

_COMMAND_CHARACTERS_MAX = 60
_PATIENCE_S = 10.0
_LINKS = ("cwd", "root", "exe")
_DEVICE = re.compile(r"[0-9]+:[0-9]+")


class _User(NamedTuple):
    """A process that has something of a mount."""

    pid: int
    uses: list[str]
    command: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("fqrn", metavar="FQRN", help="repository, e.g. atlas.cern.ch")
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List all processes that can be looked at from here."""
    (fqrn,) = wanted_names((arguments.fqrn,), arguments.dist)
    alive, _ = live_mounts(fqrn, arguments.dist)
    if not alive:
        write_message("cvmfs", f"{fqrn} not mounted")
        return NOBODY
    rows: list[_User] = []
    for mount in alive:
        device = _device_of(mount.socket)
        rows += list(_users_of(mount.mountpoint, device, mount.pid))
    if arguments.json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
    elif rows:
        print(f"{'PID':<8}{'USES':<20}  COMMAND")
        for row in rows:
            uses = ",".join(row.uses)
            print(f"{row.pid:<8}{uses:<20}  {harmless(row.command)}")
    return exit_codes.OK if rows else NOBODY


def _device_of(socket: str) -> str:
    try:
        text = talk(socket, b"device id", _PATIENCE_S)[0].decode("ascii", "replace")
    except CvmfsError:
        return ""
    return text.strip() if _DEVICE.fullmatch(text.strip()) else ""


def _users_of(mountpoint: str, device: str, server: int) -> Iterator["_User"]:
    """Yield the processes that have something of a mount.

    Sessions have mounts of their own at equal places, and may see one mount at several:
    what counts is where the device is in a process's own mount table.
    """
    for name in sorted(filter(str.isdecimal, os.listdir("/proc")), key=int):
        pid = int(name)
        places = _places(pid, device) if device else (mountpoint,)
        uses = _uses(pid, places) if places else []
        if uses and pid not in (server, os.getpid()):
            yield _User(pid, uses, _command_of(pid))


def _places(pid: int, device: str) -> tuple[str, ...]:
    """Return where a process sees a device."""
    try:
        with open(
            f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace"
        ) as table:
            lines = [line.split(" ", 5) for line in table]
    except OSError:
        return ()
    return tuple(words[4] for words in lines if words[2:3] == [device])


def _uses(pid: int, places: tuple[str, ...]) -> list[str]:
    """Return what a process has of a mount: kinds of use, as fuser(1) has them."""
    found = [
        link for link in _LINKS if _is_below(_read_link(f"/proc/{pid}/{link}"), places)
    ]
    descriptors = []
    with suppress(OSError):
        descriptors = os.listdir(f"/proc/{pid}/fd")
    if any(
        _is_below(_read_link(f"/proc/{pid}/fd/{one}"), places) for one in descriptors
    ):
        found.append("open")
    if any(_is_below(path, places) for path in _mapped(pid)):
        found.append("mapped")
    return found


def _mapped(pid: int) -> Iterator[str]:
    with suppress(OSError), open(f"/proc/{pid}/maps", errors="replace") as maps:
        for line in maps:
            _, slash, path = line.rstrip("\n").partition("/")
            yield slash + path


def _is_below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _command_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        return "?"
    return os.fsdecode(words)[:_COMMAND_CHARACTERS_MAX]
