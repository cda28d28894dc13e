"""The routes that all requests of a client share, as they are at the moment.

``failover.RouteTable`` says whom to ask next. It is kept up to date here: with the
addresses that names of proxies have now, with the order in which servers are near,
with what a mount is told to use from now on. What is shown has no passwords in it.

Threads: any may call. One lock guards the table; it is held for microseconds and
never while waiting for the network.
"""

import os
import threading
from typing import TYPE_CHECKING

from cvmfsexec.errors import NoRouteError
from cvmfsexec.format.proxy_groups import without_credentials
from cvmfsexec.network.failover import RequestFailover, RouteTable
from cvmfsexec.network.resolution import ProxyAddresses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cvmfsexec.format.proxy_groups import ProxyGroup
    from cvmfsexec.network.failover import Attempt, Route
    from cvmfsexec.network.failure import Failure
    from cvmfsexec.network.route_map import RouteMap
    from cvmfsexec.network.settings import NetworkSettings


class SharedRoutes:
    """The servers and proxies of one client.

    Args:
        settings: Names them.
        clock: Seconds that do not jump.
        randomness: Returns numbers from 0 up to, but not including, 1; those of the
            system if None.
        addresses: Knows which machines are behind the names of proxies; asks the
            system's resolver if None.

    Raises:
        NoRouteError: There is no server or no proxy.
    """

    def __init__(
        self,
        settings: "NetworkSettings",
        clock: "Callable[[], float]",
        randomness: "Callable[[], float] | None" = None,
        addresses: ProxyAddresses | None = None,
    ) -> None:
        groups = _groups_of(settings)
        self._settings = settings
        self._clock = clock
        self._addresses = addresses or ProxyAddresses(groups, settings.resolution)
        self._groups: Sequence[ProxyGroup] = groups
        self._servers = _servers_of(settings, settings.servers)
        self._fallback_order: tuple[int, ...] = ()
        self._table = RouteTable(
            self._servers, groups, settings.failover, randomness or _randomness
        )
        self._lock = threading.Lock()

    # -- a request on its way --------------------------------------------------------

    def start(self, path: str, *, no_cache: bool) -> RequestFailover:
        """Return the way of a request; to be told what becomes of it by the others."""
        self._follow_addresses()
        with self._lock:
            return RequestFailover(self._table, self._clock(), path, no_cache=no_cache)

    def succeeded(self, failover: RequestFailover) -> None:
        """Take note that a request's last attempt brought what was asked for."""
        with self._lock:
            failover.succeeded(self._clock())

    def after(self, failover: RequestFailover, failure: "Failure") -> "Attempt | None":
        """Return what to do after a request's last attempt failed; None to give up."""
        with self._lock:
            return failover.after(failure, self._clock())

    def awake(self, failover: RequestFailover) -> "Attempt":
        """Return the attempt to make after its wait."""
        with self._lock:
            return failover.awake()

    def end(self, failover: RequestFailover) -> None:
        """Take note that there is nothing more to be learnt from a request."""
        if failover.is_scout:
            with self._lock:
                failover.end(self._clock())

    def first(self, path: str) -> "Route":
        """Return the route that a new request for a path asks first."""
        self._follow_addresses()
        with self._lock:
            return self._table.route(path)

    def active(self) -> "Route":
        """Return the route that is asked first, whatever for."""
        self._follow_addresses()
        with self._lock:
            return self._table.active

    # -- changes ---------------------------------------------------------------------

    @property
    def settings(self) -> "NetworkSettings":
        """What names them; see ``change``."""
        return self._settings

    def change(self, settings: "NetworkSettings") -> None:
        """Take the routes of other settings; the same ones stay as they are.

        Raises:
            NoRouteError: There would be no server or no proxy.
        """
        groups = _groups_of(settings)
        addresses = self._addresses
        if groups != self._settings.all_proxy_groups:
            addresses = ProxyAddresses(groups, settings.resolution)
        resolved = addresses.groups(self._clock())
        with self._lock:
            former, self._settings = self._settings, settings
            if groups == former.all_proxy_groups and settings.servers == former.servers:
                return
            self._addresses, self._groups = addresses, resolved
            self._servers = _servers_of(settings, settings.servers)
            self._fallback_order = ()
            # From the beginning: what was left before is another's business now.
            self._table = RouteTable(
                self._servers, resolved, settings.failover, self._table.randomness
            )

    def order(self, servers: "Sequence[str]", fallback_order: "Sequence[int]") -> None:
        """Prefer servers and fallback proxies in this order from now on.

        Args:
            servers: All servers of the settings; cut to as many as are to be used.
            fallback_order: The fallback groups, by their place in the settings.
        """
        with self._lock:
            self._servers = _servers_of(self._settings, servers)
            self._fallback_order = tuple(fallback_order)
            self._replace()

    def leave_host(self) -> bool:
        """Make the next server active.

        Returns:
            Whether there is another one.
        """
        with self._lock:
            self._table.leave_host(self._table.active.host, self._clock())
        return len(self._servers) > 1

    def leave_group(self) -> None:
        """Make the next group of proxies active."""
        with self._lock:
            self._table.leave_group(self._clock())

    def rebalance(self) -> None:
        """Draw a proxy of the active group anew."""
        with self._lock:
            self._table.rebalance()

    def _follow_addresses(self) -> None:
        """Use the machines that the names of the proxies stand for now."""
        groups = self._addresses.groups(self._clock())
        if groups is not self._groups:
            with self._lock:
                self._groups = groups
                self._replace()

    def _replace(self) -> None:
        groups = self._groups
        if self._fallback_order:
            regular_count = len(self._settings.proxy_groups)
            regular, fallback = groups[:regular_count], groups[regular_count:]
            groups = (*regular, *(fallback[n] for n in self._fallback_order))
        self._table.replace(self._servers, groups)

    # -- for people ------------------------------------------------------------------

    @property
    def active_host(self) -> str:
        """Base URL of the server that is asked first."""
        return self.hosts()[0]

    @property
    def active_proxy(self) -> str:
        """URL of the proxy in use, or ``DIRECT``."""
        with self._lock:
            return without_credentials(self._table.active.proxy)

    @property
    def configured_proxy(self) -> str:
        """The proxy in use as it was configured, with user and password."""
        with self._lock:
            return self._addresses.named_member(self._table.active.proxy)

    def hosts(self) -> list[str]:
        """Return the base URLs of all servers, the active one first."""
        with self._lock:
            return [without_credentials(host) for host in self._table.hosts()]

    def proxies(self) -> list[str]:
        """Return all proxies, the active one first."""
        with self._lock:
            return [without_credentials(proxy) for proxy in self._table.proxies()]

    def map(self) -> "RouteMap":
        """Return all routes as they are at the moment, to be shown."""
        from cvmfsexec.network.route_map import RouteMap, ShownProxy

        def shown(member: str) -> ShownProxy:
            return ShownProxy(
                without_credentials(member),
                without_credentials(self._addresses.named_member(member)),
                self._addresses.is_unresolved(member),
            )

        self._follow_addresses()
        with self._lock:
            active = self._table.active
            return RouteMap(
                tuple(without_credentials(server) for server in self._servers),
                without_credentials(active.host),
                tuple(tuple(shown(m) for m in group.members) for group in self._groups),
                without_credentials(active.proxy),
                self._table.group_index,
                self._addresses.valid_for_s(self._clock()),
            )


def _groups_of(settings: "NetworkSettings") -> "tuple[ProxyGroup, ...]":
    groups = settings.all_proxy_groups
    if not settings.servers or not groups:
        raise NoRouteError("no server or no proxy is configured")
    return groups


def _servers_of(
    settings: "NetworkSettings", in_order: "Sequence[str]"
) -> tuple[str, ...]:
    """Return as many servers as are to be used."""
    return tuple(in_order[: settings.servers_max or None])


def _randomness() -> float:
    # The module random costs 3 ms of start-up; this is drawn once per failure.
    return int.from_bytes(os.urandom(4)) / (1 << 32)
