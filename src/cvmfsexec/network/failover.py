"""Which route to ask next: failover as a state machine without network or clock.

A *route* is a server and the way to it, a proxy or ``DIRECT``. ``RouteTable`` is
what all requests of a client share: the active server, the active proxy, who was
found dead, and when. ``RequestFailover`` is one request on its way through the
table: told of a failure, it answers with the next attempt, or that there is none.

Rules that hold whatever fails in whatever order (tests/unit/network):

* Only configured routes are asked, so never ``DIRECT`` uninvited.
* Each attempt repeats the last route, of which there are at most ``max_retries``
  (after a wait) and one (without caches) in a request, or goes to a route that this
  request has not tried. So it ends.
* A request gives up only when it has tried every route to every server that did not
  say itself that the object is absent.

The last rule goes further than the original, which counts switches and can give up
early: when parallel requests switch under it, or when one proxy spoils the answers
of all servers.

Parallel requests spare each other what one of them has found out:

* Who was to repeat a route that another request has left meanwhile goes elsewhere.
* Who stalls where another one stalled before, without any success in between, goes
  elsewhere at once; it is the repetition that the other would have made.
* A server or proxy whose time to come back has come is tried by one request, the
  *scout*. The others follow when it has succeeded. The original lets all of them
  run into what may still be dead.

Not thread-safe: ``shared_routes`` holds a lock around each call. Times are seconds of
any clock that does not jump.

Source: docs/reference/client-behaviour.md, "Requests, timeouts, failover".
"""

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.format.proxy_groups import DIRECT, without_credentials
from cvmfsexec.network.failure import Blame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cvmfsexec.format.proxy_groups import ProxyGroup
    from cvmfsexec.network.failure import Failure

    _Return = Callable[["Route", float, bool], None]

RESTART_WAIT_MIN_S = 1.0


class Route(NamedTuple):
    """A server and the way to it."""

    host: str
    proxy: str

    @property
    def shown(self) -> str:
        """The route as people see it, without passwords."""
        host = without_credentials(self.host)
        if self.proxy == DIRECT:
            return host
        return f"{host} via {without_credentials(self.proxy)}"


class Attempt(NamedTuple):
    """What to do next.

    Attributes:
        route: Whom to ask.
        no_cache: Ask past caches.
        wait_s: Wait for so long before.
        is_new_round: All routes have failed; endless failover starts over.
    """

    route: Route
    no_cache: bool = False
    wait_s: float = 0.0
    is_new_round: bool = False


class FailoverPolicy(NamedTuple):
    """How patient to be; the numbers of the configuration.

    Attributes:
        max_retries: Repetitions of the same route in one request.
        backoff_init_s: Upper bound of the first, random wait; each next one is
            twice as long.
        backoff_max_s: Upper bound of every wait.
        proxy_reset_after_s: Return to the first proxies after so long; 0 never.
        host_reset_after_s: Return to the first server after so long; 0 never.
        is_indefinite: Start over instead of giving up.
        is_sharded: Each object has its proxy in a group, chosen by a hash of its path.
    """

    max_retries: int = 1
    backoff_init_s: float = 2.0
    backoff_max_s: float = 10.0
    proxy_reset_after_s: float = 300.0
    host_reset_after_s: float = 1800.0
    is_indefinite: bool = False
    is_sharded: bool = False


class RouteTable:
    """The routes of a client, and which of them to use now.

    Args:
        hosts: Base URLs in order of preference; at least one.
        groups: Proxy groups in order of preference; at least one.
        policy: See there.
        randomness: Returns numbers from 0 up to, but not including, 1.

    Attributes:
        stalled: Servers and proxies that stalled and were not seen to work since, and
            who said so.
    """

    def __init__(
        self,
        hosts: "Sequence[str]",
        groups: "Sequence[ProxyGroup]",
        policy: FailoverPolicy,
        randomness: "Callable[[], float]",
    ) -> None:
        self.policy = policy
        self.randomness = randomness
        self._hosts = tuple(hosts)
        self._groups = tuple(group.members for group in groups)
        self._host_index = 0
        self._group_index = 0
        self._burned: dict[str, float] = {}  # of the active group, since when
        self._host_left_at_s: float | None = None
        self._group_left_at_s: float | None = None
        self._scout_returns: _Return | None = None
        self.stalled: dict[str, object] = {}
        self._proxy = self._choose(self._groups[0])

    @property
    def active(self) -> Route:
        """The route that a new request asks first, unless it is sharded or a scout."""
        return Route(self._hosts[self._host_index], self._proxy)

    def hosts(self) -> "Iterator[str]":
        """Yield all servers, the active one first, then those after it in the ring."""
        for offset in range(len(self._hosts)):
            yield self._hosts[(self._host_index + offset) % len(self._hosts)]

    def proxies(self, path: str = "") -> "Iterator[str]":
        """Yield all proxies once, in the order in which they are worth trying."""
        groups = self._groups[self._group_index :] + self._groups[: self._group_index]
        alive = self._alive()
        if self.policy.is_sharded:
            alive.sort(key=lambda member: _score(member, path), reverse=True)
        else:
            alive.insert(0, self._proxy)
        others = (member for group in groups[1:] for member in group)
        yield from dict.fromkeys((*alive, *others, *self._burned))

    def route(self, path: str) -> Route:
        """Return the route that a new request for this path asks first."""
        proxy = self.proxy(path) if self.policy.is_sharded else self._proxy
        return Route(self._hosts[self._host_index], proxy)

    def proxy(self, path: str) -> str:
        """Return the active proxy for a path.

        With sharding that is the live member with the highest hash of member and path
        (rendezvous hashing): when a member dies, only its own objects move.
        """
        if not self.policy.is_sharded:
            return self._proxy
        return max(self._alive(), key=lambda member: _score(member, path))

    def is_in_use(self, route: Route) -> bool:
        """Whether neither the server nor the proxy has been left."""
        return self._is_active(route.host) and self.is_alive(route.proxy)

    def is_alive(self, proxy: str) -> bool:
        """Whether a proxy is in the active group and was not burned."""
        return proxy not in self._burned and proxy in self._groups[self._group_index]

    def scout(self, now_s: float, path: str) -> Route | None:
        """Return a route to what was left, if it is time to see how it does.

        Whoever gets a route tells by ``end_scouting`` how it went, and nobody else
        gets one before.
        """
        if (
            self._host_left_at_s is None
            and self._group_left_at_s is None
            and not self._burned
        ) or self._scout_returns is not None:
            return None
        return self._send_scout(now_s, path)

    def end_scouting(self, route: Route, now_s: float, *, is_back: bool | None) -> None:
        """Let all follow a scout, or none for as long again; None if it cannot tell."""
        returns, self._scout_returns = self._scout_returns, None
        if returns is not None and is_back is not None:
            returns(route, now_s, is_back)

    def leave_host(self, host: str, now_s: float) -> None:
        """Make the next server active; nothing if another request already did."""
        if self._is_active(host):
            self._enter_host((self._host_index + 1) % len(self._hosts), now_s)

    def burn(self, proxy: str, now_s: float) -> None:
        """Take a proxy out of its group; nothing if another request already did."""
        if not self.is_alive(proxy):
            return
        self._burned[proxy] = now_s
        alive = self._alive()
        if not alive:
            self._enter_group((self._group_index + 1) % len(self._groups), now_s)
        elif proxy == self._proxy:
            self._proxy = self._choose(alive)

    @property
    def group_index(self) -> int:
        """Number of the active group."""
        return self._group_index

    def leave_group(self, now_s: float) -> None:
        """Make the next group active, with all its members."""
        self._enter_group((self._group_index + 1) % len(self._groups), now_s)

    def rebalance(self) -> None:
        """Draw a member of the active group anew."""
        self._proxy = self._choose(self._alive())

    def revive_proxies(self) -> None:
        """Return to the first group with all its members."""
        if self._group_index or self._burned:
            self._enter_group(0, 0.0)

    def replace(self, hosts: "Sequence[str]", groups: "Sequence[ProxyGroup]") -> None:
        """Take other routes, or the same in another order.

        A server or proxy that had to be left for another stays left.
        """
        host, was_left = self._hosts[self._host_index], self._host_index > 0
        self._hosts = tuple(hosts)
        self._host_index = 0
        if was_left and host in self._hosts:
            self._host_index = self._hosts.index(host)
        if not self._host_index:
            self._host_left_at_s = None
        members = tuple(group.members for group in groups)
        if members != self._groups:
            self._replace_groups(members)

    def stalled_before(self, name: str, by: object) -> bool:
        """Note that a server or proxy stalled, and who says so.

        Returns:
            Whether somebody else said so before, and nobody saw it work since.
        """
        return self.stalled.setdefault(name, by) is not by

    def works(self, route: Route) -> None:
        """Note that a route brought what was asked for; no news if nothing stalled."""
        self.stalled.pop(route.host, None)
        self.stalled.pop(route.proxy, None)

    def _replace_groups(self, groups: "Sequence[tuple[str, ...]]") -> None:
        proxy, burned = self._proxy, self._burned
        left_at_s = self._group_left_at_s
        self._groups = tuple(groups)
        self._enter_group(0, 0.0)
        for index, group in enumerate(self._groups):
            if proxy in group:
                self._group_index = index
                self._proxy = proxy
                self._group_left_at_s = left_at_s if index else None
                self._burned = {m: at_s for m, at_s in burned.items() if m in group}
                return

    def _is_active(self, host: str) -> bool:
        return host == self._hosts[self._host_index]

    def _send_scout(self, now_s: float, path: str) -> Route | None:
        """Return the route to one server or proxy that may have come back."""
        policy = self.policy
        host, proxy = self.route(path)
        if _is_over(self._group_left_at_s, policy.proxy_reset_after_s, now_s):
            self._scout_returns = self._return_to_first_group
            return Route(host, self._choose(self._groups[0]))
        for member, burned_at_s in self._burned.items():
            if _is_over(burned_at_s, policy.proxy_reset_after_s, now_s):
                self._scout_returns = self._return_to_member
                return Route(host, member)
        if _is_over(self._host_left_at_s, policy.host_reset_after_s, now_s):
            self._scout_returns = self._return_to_first_host
            return Route(self._hosts[0], proxy)
        return None

    def _return_to_first_host(self, _: Route, now_s: float, is_back: bool) -> None:  # noqa: FBT001
        if self._host_index and is_back:
            self._enter_host(0, now_s)
        elif self._host_index:
            self._host_left_at_s = now_s

    def _return_to_first_group(self, by: Route, now_s: float, is_back: bool) -> None:  # noqa: FBT001
        if self._group_index and is_back:
            self._enter_group(0, now_s)
            if self.is_alive(by.proxy):
                self._proxy = by.proxy
        elif self._group_index:
            self._group_left_at_s = now_s

    def _return_to_member(self, by: Route, now_s: float, is_back: bool) -> None:  # noqa: FBT001
        if by.proxy in self._burned and is_back:
            del self._burned[by.proxy]
            self._proxy = self._choose(self._alive())
        elif by.proxy in self._burned:
            self._burned[by.proxy] = now_s

    def _enter_host(self, index: int, now_s: float) -> None:
        self._host_left_at_s = _left_at(self._host_left_at_s, index, now_s)
        self._host_index = index

    def _enter_group(self, index: int, now_s: float) -> None:
        self._group_left_at_s = _left_at(self._group_left_at_s, index, now_s)
        self._group_index = index
        self._burned = {}
        self._proxy = self._choose(self._groups[index])

    def _alive(self) -> list[str]:
        group = self._groups[self._group_index]
        return [member for member in group if member not in self._burned]

    def _choose(self, members: "Sequence[str]") -> str:
        return members[int(self.randomness() * len(members))]


class RequestFailover:
    """One request's way through the routes.

    Args:
        routes: Shared by all requests.
        now_s: When the request starts.
        path: What is asked for.
        no_cache: Ask past caches from the beginning.

    Attributes:
        attempt: What to do now.
        is_scout: Whether others wait to hear how this attempt goes: tell by
            ``succeeded``, ``after`` or ``end``.
    """

    def __init__(
        self,
        routes: RouteTable,
        now_s: float,
        path: str = "",
        *,
        no_cache: bool = False,
    ) -> None:
        self._routes = routes
        self._path = path
        self._always_past_caches = no_cache
        self._asked_past_caches = no_cache
        self._retries = 0
        self._backoff_s = 0.0
        self._tried: set[Route] = set()
        self._without_object: set[str] = set()
        scout = routes.scout(now_s, path)
        self.is_scout = scout is not None
        self.attempt = self._start(scout or routes.route(path))

    def after(self, failure: "Failure", now_s: float) -> Attempt | None:
        """Return what to do after the last attempt failed; None to give up."""
        has_left = self._has_left(failure, now_s)
        if not has_left or failure.blame is Blame.DATA:
            repetition = self._repetition(failure)
            if repetition is not None:
                self.attempt = repetition
                return repetition
        if failure.blame is Blame.NOBODY:
            return None
        attempt = self._elsewhere(failure, now_s)
        if attempt is None and has_left:
            attempt = self._repetition(failure)
        if attempt is None and self._routes.policy.is_indefinite:
            attempt = self._start_over()
        self.attempt = attempt or self.attempt
        return attempt

    def awake(self) -> Attempt:
        """Return the attempt to make after its wait: elsewhere if others have left."""
        if not self._routes.is_in_use(self.attempt.route):
            route = self._first_untried(
                self._routes.hosts(), self._routes.proxies(self._path)
            )
            if route is not None:
                self.attempt = self._start(route)
        return self.attempt

    def succeeded(self, now_s: float) -> None:
        """Take note that the last attempt brought what was asked for."""
        if self._routes.stalled:
            self._routes.works(self.attempt.route)
        if self.is_scout:
            self._end_scouting(now_s, is_back=True)

    def end(self, now_s: float) -> None:
        """Take note that there is nothing more to be learnt from this request."""
        self._end_scouting(now_s, is_back=None)

    def _end_scouting(self, now_s: float, *, is_back: bool | None) -> None:
        if self.is_scout:
            self.is_scout = False
            self._routes.end_scouting(self.attempt.route, now_s, is_back=is_back)

    def _has_left(self, failure: "Failure", now_s: float) -> bool:
        """Return whether nobody should ask the failed route again for now."""
        if self.is_scout:
            self._end_scouting(now_s, is_back=False)
            return True
        routes, route = self._routes, self.attempt.route
        if failure.blame is Blame.PROXY and not routes.is_alive(route.proxy):
            return True
        if failure.blame is Blame.HOST and route.host != routes.active.host:
            return True
        blamed = route.host if failure.blame is Blame.HOST else route.proxy
        return failure.is_stall and routes.stalled_before(blamed, by=self)

    def _repetition(self, failure: "Failure") -> Attempt | None:
        """Return the attempt that asks the same route again, if that is sensible."""
        if failure.blame is Blame.DATA:
            if self._asked_past_caches:
                return None
            self._asked_past_caches = True
            return Attempt(self.attempt.route, no_cache=True)
        if not failure.is_transfer or self._retries >= self._routes.policy.max_retries:
            return None
        self._retries += 1
        return self.attempt._replace(wait_s=self._next_wait(), is_new_round=False)

    def _next_wait(self) -> float:
        policy = self._routes.policy
        if self._backoff_s:
            self._backoff_s *= 2
        else:
            self._backoff_s = policy.backoff_init_s * self._routes.randomness()
        self._backoff_s = min(self._backoff_s, policy.backoff_max_s)
        return self._backoff_s

    def _elsewhere(self, failure: "Failure", now_s: float) -> Attempt | None:
        route = self._next_route(failure, now_s)
        return None if route is None else self._start(route)

    def _next_route(self, failure: "Failure", now_s: float) -> Route | None:
        """Switch as the failure demands; return an untried route, if one is left."""
        routes, path = self._routes, self._path
        host, proxy = self.attempt.route
        if failure.is_absence:
            self._without_object.add(host)
        if failure.blame is Blame.PROXY:
            routes.burn(proxy, now_s)
            route = self._first_untried((host,), routes.proxies(path))
            if route is not None:
                return route
            routes.revive_proxies()
        routes.leave_host(host, now_s)
        route = self._first_untried(routes.hosts(), (routes.proxy(path),))
        if route is not None:
            return route
        if not failure.is_absence:
            routes.burn(proxy, now_s)
        return self._first_untried(routes.hosts(), routes.proxies(path))

    def _first_untried(
        self, hosts: "Iterator[str] | tuple[str]", proxies: "Iterator[str] | tuple[str]"
    ) -> Route | None:
        """Return the first untried route, all servers by one proxy before the next."""
        candidates = [host for host in hosts if host not in self._without_object]
        for proxy in proxies:
            for host in candidates:
                if Route(host, proxy) not in self._tried:
                    return Route(host, proxy)
        return None

    def _start(self, route: Route) -> Attempt:
        """Ask a route for the first time; a new server need not be asked past caches.

        Its URL is another one, so that caches cannot hold the same wrong bytes.
        """
        self._tried.add(route)
        return Attempt(route, no_cache=self._always_past_caches)

    def _start_over(self) -> Attempt:
        self._tried.clear()
        self._without_object.clear()
        self._retries = 0
        self._backoff_s = 0.0
        self._asked_past_caches = self._always_past_caches
        wait_s = max(self._routes.policy.backoff_max_s, RESTART_WAIT_MIN_S)
        first = self._start(self._routes.route(self._path))
        return first._replace(wait_s=wait_s, is_new_round=True)


def _score(member: str, path: str) -> bytes:
    """Return where a proxy stands among others for a path; any client's answer."""
    text = f"{member} {path}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=8).digest()


def _left_at(left_at_s: float | None, entered_index: int, now_s: float) -> float | None:
    """Return since when the first choice has been left; None while it is in use."""
    if entered_index == 0:
        return None
    return now_s if left_at_s is None else left_at_s


def _is_over(since_s: float | None, duration_s: float, now_s: float) -> bool:
    return since_s is not None and duration_s > 0 and now_s - since_s >= duration_s
