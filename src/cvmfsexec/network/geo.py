"""Servers in the order in which they are near: the geo API of the servers themselves.

A server is asked ``/api/v1.0/geo/WHO/NAMES`` and answers with a permutation of the
names' numbers, the nearest first. It guesses from the address of the proxy that asks,
or that WHO names; a client without a proxy calls itself by a random identifier, which
only makes the question its own for caches. The answer is a hint and nothing more: it
changes an order, never what is in it.

A question takes up to several timeouts, so it never holds up a start: the answer that
was remembered counts, and a thread asks if there is none or it is older than
``VALID_S``. Its answer is used at once and remembered in the workspace.

Source: docs/reference/client-behaviour.md, "Order by geography".
"""

import os
import re
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import DIRECT, without_credentials
from cvmfsexec.format.url_path import escape_path
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.private_files import read_private_file, replace_private_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvmfsexec.format.proxy_groups import ProxyGroup
    from cvmfsexec.network.settings import NetworkSettings

VALID_S = 86400
"""Machines seldom move; one that does has other proxies, and so another question."""

SEPARATOR = "+PXYSEP+"
ANSWER_BYTES_MAX = 4096
_SERVERS_ASKED_MAX = 3
_NAMES_MAX = 500

_HOST = re.compile(r"https?://(?:[^/@]*@)?(\[[^\]/]+\]|[^/:]+)")
_ANSWER = re.compile(r"[0-9]{1,4}(?:,[0-9]{1,4})*")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class GeoOrder(NamedTuple):
    """The order in which to ask.

    Attributes:
        servers: Base URLs, the nearest first.
        fallback_groups: Fallback proxy groups by their place in the configuration,
            the nearest first.
    """

    servers: tuple[str, ...]
    fallback_groups: tuple[int, ...]


class GeoQuestion(NamedTuple):
    """What servers are asked.

    Attributes:
        servers: In the order in which they are numbered.
        fallback_names: Of the first member of each fallback group.
        has_separator: Whether there is an element between the two.
    """

    servers: tuple[str, ...]
    fallback_names: tuple[str, ...] = ()
    has_separator: bool = False

    @classmethod
    def about(
        cls,
        servers: "Sequence[str]",
        groups: "Sequence[ProxyGroup]",
        fallback_groups: "Sequence[ProxyGroup]",
    ) -> "GeoQuestion | None":
        """Return the question to ask; None if there is nothing to order.

        A local directory among the servers, or an unreasonable number of names, is
        not put into an order.
        """
        if len(servers) < 2 and len(fallback_groups) < 2:
            return None
        fallback_names = [host_name(group.members[0]) for group in fallback_groups]
        names = [host_name(server) for server in servers]
        if not all(names + fallback_names) or len(names + fallback_names) > _NAMES_MAX:
            return None
        has_separator = bool(fallback_groups) and not groups
        in_order = sorted(servers, key=lambda server: (host_name(server), server))
        return cls(tuple(in_order), tuple(fallback_names), has_separator)

    @property
    def names(self) -> str:
        """The names as they stand in the question."""
        separator = (SEPARATOR,) if self.has_separator else ()
        servers = (host_name(server) for server in self.servers)
        return ",".join((*servers, *separator, *self.fallback_names))

    def path(self, who: str) -> str:
        """Return the question as a path below a server's base URL."""
        return f"api/v1.0/geo/{who}/{self.names}"

    def order(self, answer: bytes) -> GeoOrder:
        """Read an answer.

        Raises:
            FormatError: It is no permutation of as many numbers as there are names.
        """
        text = answer.strip().decode("ascii", "replace")
        if len(answer) > ANSWER_BYTES_MAX or not _ANSWER.fullmatch(text):
            raise FormatError(f"no order of servers: {answer[:80]!r}")
        numbers = [int(number) for number in text.split(",")]
        server_count = len(self.servers)
        before_count = server_count + self.has_separator
        if sorted(numbers) != list(
            range(1, before_count + len(self.fallback_names) + 1)
        ):
            raise FormatError(f"no permutation of the servers asked for: {text[:80]!r}")
        return GeoOrder(
            tuple(self.servers[n - 1] for n in numbers if n <= server_count),
            tuple(n - 1 - before_count for n in numbers if n > before_count),
        )


class GeoOrdering:
    """Keeps the routes of one client in order.

    Args:
        client: Whose routes, and by which the question goes.
        settings: Its settings.
        directory: Where answers and the identifier are remembered.
        name: Of the file for answers.
        clock: Present time in seconds since 1970.
    """

    def __init__(
        self,
        client: HttpClient,
        settings: "NetworkSettings",
        directory: str,
        name: str,
        clock: "Callable[[], float]" = time.time,
    ) -> None:
        self._client = client
        self._settings = settings
        self._directory = directory
        self._path = f"{directory}/{name}"
        self._clock = clock
        self._question = GeoQuestion.about(
            settings.servers, settings.proxy_groups, settings.fallback_proxy_groups
        )

    def start(self) -> threading.Thread | None:
        """Use the remembered order; ask in the background if it is not good enough.

        Returns:
            The thread that asks, if one does.
        """
        if self._question is None or self._recall(self._question):
            return None
        thread = threading.Thread(target=self.ask, name="geo", daemon=True)
        thread.start()
        return thread

    def ask(self) -> bool:
        """Ask servers until one answers; use and remember what it says."""
        question = self._question
        if question is None:
            return False
        path = "/" + escape_path(question.path(self._who()))
        for server in _some(question.servers):
            answer = self._client.ask_aside(server + path, ANSWER_BYTES_MAX)
            try:
                order = None if answer is None else question.order(answer)
            except FormatError as error:
                log.info("%s: %s", without_credentials(server), error)
                continue
            if answer is not None and order is not None:
                self._use(order)
                self._remember(question, answer)
                return True
        log.info("no server tells which servers are near")
        return False

    def _recall(self, question: GeoQuestion) -> bool:
        """Use what is remembered; return whether it is young enough."""
        lines = (read_private_file(self._path) or "").split("\n")
        if len(lines) < 3 or lines[0] != self._key(question):
            return False
        try:
            self._use(question.order(lines[1].encode("ascii")))
            age_s = self._clock() - int(lines[2])
        except (FormatError, ValueError) as error:
            log.debug("%s: %s", self._path, error)
            return False
        return 0 <= age_s < VALID_S

    def _remember(self, question: GeoQuestion, answer: bytes) -> None:
        text = answer.strip().decode("ascii")
        lines = (self._key(question), text, str(int(self._clock())), "")
        replace_private_file(self._path, "\n".join(lines))

    def _key(self, question: GeoQuestion) -> str:
        """Return what the answer depends on, in one line without passwords."""
        proxies = ",".join(
            host_name(member)
            for group in self._settings.proxy_groups
            for member in group.members
        )
        template = self._settings.proxy_template
        return ascii(f"{question.names} {proxies} {template}")

    def _use(self, order: GeoOrder) -> None:
        self._client.routes.order(order.servers, order.fallback_groups)

    def _who(self) -> str:
        """Return the name of the proxy that asks, or of this client if none does."""
        if self._settings.proxy_template:
            return self._settings.proxy_template
        proxy = self._client.routes.configured_proxy
        fallback = self._settings.fallback_proxy_groups
        if any(proxy in group.members for group in fallback):
            return client_identifier(self._directory)
        return host_name(proxy) or client_identifier(self._directory)


def host_name(url: str) -> str:
    """Return the bare name in a URL; an empty text for ``DIRECT`` and local files."""
    match = None if url == DIRECT else _HOST.match(url)
    return match[1] if match else ""


def client_identifier(directory: str) -> str:
    """Return the random identifier of the clients that work in a directory."""
    path = f"{directory}/uuid"
    known = (read_private_file(path) or "").strip()
    if _UUID.fullmatch(known):
        return known
    digits = os.urandom(16).hex()
    made = "-".join((digits[:8], digits[8:12], f"4{digits[13:16]}",
                     f"a{digits[17:20]}", digits[20:]))  # fmt: skip
    replace_private_file(path, made + "\n")
    return made


def _some(servers: "Sequence[str]") -> "list[str]":
    """Return a few servers at random, so that not all clients ask the same one."""
    drawn = sorted(servers, key=lambda _: os.urandom(8))
    return drawn[:_SERVERS_ASKED_MAX]
