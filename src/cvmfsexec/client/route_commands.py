"""What a mount says and does about servers and proxies, when it is talked to.

Source: docs/reference/talk.md.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import (
    ProxyGroup,
    parse_proxy_list,
    parse_server_list,
    without_credentials,
)
from cvmfsexec.format.talk_message import OK, whole_number
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.round_trip import RoundTrip, measure_all
from cvmfsexec.network.route_map import RouteMap, ShownProxy
from cvmfsexec.network.settings import NetworkSettings

_NO_HOSTS = "No hosts defined\n"
_NO_PROXIES = "No proxies defined\n"
_NO_VALID_PROXIES = "Failed, no valid proxies\n"
_UNITS = (("h", 3600), ("m", 60), ("s", 1))


class _Measured(NamedTuple):
    """What is known of the servers of one client.

    Attributes:
        round_trips: By URL, without passwords.
        is_geographic: Whether the servers themselves said in which order they are.
    """

    round_trips: dict[str, RoundTrip]
    is_geographic: bool = False


class RouteCommands:
    """The routes of one mount."""

    def __init__(
        self,
        http: HttpClient,
        external: HttpClient | None,
        fqrn: str,
        workspace: str,
    ) -> None:
        """Talk about these clients.

        Args:
            http: Downloads objects.
            external: Downloads external files, if there are any servers for them.
            fqrn: The repository.
            workspace: Where an order of servers is remembered.
        """
        self._http = http
        self._external = external
        self._fqrn = fqrn
        self._workspace = workspace
        self._lock = threading.Lock()  # of changes: each is made of the one before
        self._measured = _Measured({})

    def answers(self) -> dict[str, Callable[[str], str]]:
        """Return the function for each command."""
        return {
            "host info": lambda _: self._hosts(self._http),
            "external host info": lambda _: self._hosts(self._external),
            "host probe": self._probe,
            "host probe geo": self._ask_where,
            "host switch": lambda _: self._switch_host(self._http),
            "external host switch": lambda _: self._switch_host(self._external),
            "host set": lambda text: self._set_hosts(self._http, text),
            "external host set": lambda text: self._set_hosts(self._external, text),
            "proxy info": lambda _: self._proxies(self._http),
            "external proxy info": lambda _: self._proxies(self._external),
            "proxy rebalance": self._rebalance,
            "proxy group switch": self._switch_group,
            "proxy set": lambda text: self._set_proxies(self._http, text),
            "external proxy set": lambda text: self._set_proxies(self._external, text),
            "proxy fallback": self._set_fallback,
            "timeout info": self._timeouts,
            "timeout set": self._set_timeouts,
        }

    # -- servers ---------------------------------------------------------------------

    def _hosts(self, http: HttpClient | None) -> str:
        if http is None:
            return _NO_HOSTS
        routes = http.routes.map()
        lines = [
            f"  [{number}] {server} ({self._opinion_of(server, http)})\n"
            for number, server in enumerate(routes.servers)
        ]
        active = routes.servers.index(routes.active_server)
        return "".join(lines) + f"Active host {active}: {routes.active_server}\n"

    def _opinion_of(self, server: str, http: HttpClient) -> str:
        measured = self._measured
        if http is not self._http:
            return "unprobed"
        known = measured.round_trips.get(server)
        if known is not None and known.milliseconds is None:
            return "host down"
        if measured.is_geographic:
            return "geographically ordered"
        if known is None or known.milliseconds is None:
            return "unprobed"
        return f"{round(known.milliseconds)} ms"

    def _probe(self, _argument: str) -> str:
        """Measure all servers, and prefer those that answer sooner."""
        settings = self._http.routes.settings
        found = measure_all([settings._replace(servers=(s,)) for s in settings.servers])
        by_server = dict(zip(settings.servers, found, strict=True))
        nearest_first = sorted(
            settings.servers,
            key=lambda server: (
                by_server[server].milliseconds is None,
                by_server[server].milliseconds,
            ),
        )
        self._change(self._http, lambda one: one._replace(servers=tuple(nearest_first)))
        self._measured = _Measured(
            {without_credentials(server): trip for server, trip in by_server.items()}
        )
        return OK

    def _ask_where(self, _argument: str) -> str:
        from cvmfsexec.network.geo import GeoOrdering

        name = f"geo.{self._fqrn}"
        ordering = GeoOrdering(
            self._http, self._http.routes.settings, self._workspace, name
        )
        if not ordering.ask():
            return "Failed\n"
        self._measured = _Measured(self._measured.round_trips, is_geographic=True)
        return OK

    def _switch_host(self, http: HttpClient | None) -> str:
        if http is not None:
            http.next_host()
        return OK

    def _set_hosts(self, http: HttpClient | None, text: str) -> str:
        if http is None:
            return _NO_HOSTS
        servers = parse_server_list(text, self._fqrn)
        if not servers:
            return _NO_HOSTS
        self._change(http, lambda one: one._replace(servers=servers))
        if http is self._http:
            self._measured = _Measured({})
        return OK

    # -- proxies ---------------------------------------------------------------------

    def _proxies(self, http: HttpClient | None) -> str:
        if http is None:
            return _NO_PROXIES
        routes = http.routes.map()
        lines = ["Load-balance groups:\n"]
        for number, group in enumerate(routes.groups):
            members = ", ".join(_shown(member, routes) for member in group)
            lines.append(f"[{number}] {members}\n")
        lines.append(f"Active proxy: [{routes.active_group}] {routes.active_proxy}\n")
        if http.routes.settings.fallback_proxy_groups:
            first = len(http.routes.settings.proxy_groups)
            lines.append(f"First fallback group: [{first}]\n")
        return "".join(lines)

    def _rebalance(self, _argument: str) -> str:
        self._http.routes.rebalance()
        return OK

    def _switch_group(self, _argument: str) -> str:
        self._http.routes.leave_group()
        return OK

    def _set_proxies(self, http: HttpClient | None, text: str) -> str:
        groups = _groups_in(text)
        if http is None or not groups:
            return _NO_VALID_PROXIES
        self._change(http, lambda one: one._replace(proxy_groups=groups))
        return OK

    def _set_fallback(self, text: str) -> str:
        groups = _groups_in(text)
        if not groups:
            return _NO_VALID_PROXIES
        self._change(self._http, lambda one: one._replace(fallback_proxy_groups=groups))
        return OK

    # -- patience --------------------------------------------------------------------

    def _timeouts(self, _argument: str) -> str:
        settings = self._http.routes.settings
        return (
            f"Timeout with proxy: {_seconds(settings.timeout_s)}\n"
            f"Timeout without proxy: {_seconds(settings.timeout_direct_s)}\n"
        )

    def _set_timeouts(self, text: str) -> str:
        numbers = [whole_number(word) for word in text.split()]
        if len(numbers) != 2 or None in numbers:
            return "Usage: timeout set <proxy> <direct>\n"
        proxied, direct = (number or 0 for number in numbers)
        for http in (self._http, self._external):
            if http is not None:
                self._change(
                    http,
                    lambda one: one._replace(
                        timeout_s=proxied, timeout_direct_s=direct
                    ),
                )
        return OK

    def _change(
        self, http: HttpClient, change: Callable[[NetworkSettings], NetworkSettings]
    ) -> None:
        with self._lock:
            http.change(change(http.routes.settings))


def _groups_in(text: str) -> tuple[ProxyGroup, ...]:
    """Return the groups of a list; none if a member of it is no proxy."""
    try:
        groups = parse_proxy_list(text)
    except FormatError:
        return ()
    return () if any(group.is_auto for group in groups) else groups


def _shown(member: ShownProxy, routes: RouteMap) -> str:
    if member.is_unresolved:
        return f"{member.url} (:unresolved:, +0s)"
    if member.named == member.url:
        return member.url
    name = member.named.partition("://")[2].rpartition(":")[0] or member.named
    return f"{member.url} ({name}, +{_duration(routes.addresses_valid_s)})"


def _duration(seconds: float) -> str:
    for unit, length_s in _UNITS:
        if seconds >= length_s:
            return f"{int(seconds // length_s)}{unit}"
    return "0s"


def _seconds(seconds: int) -> str:
    return f"{seconds}s" if seconds else "no timeout"
