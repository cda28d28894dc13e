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

Not thread-safe: ``client`` holds a lock around each call. Times are seconds of any
clock that does not jump.

Source: docs/reference/client-behaviour.md, "Requests, timeouts, failover".
"""

from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.network.failure import Blame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cvmfsexec.format.proxy_groups import ProxyGroup
    from cvmfsexec.network.failure import Failure

RESTART_WAIT_MIN_S = 1.0


class Route(NamedTuple):
    """A server and the way to it."""

    host: str
    proxy: str


class Attempt(NamedTuple):
    """What to do next.

    Attributes:
        route: Whom to ask.
        no_cache: Ask past caches.
        wait_s: Wait for so long before.
    """

    route: Route
    no_cache: bool = False
    wait_s: float = 0.0


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
    """

    max_retries: int = 1
    backoff_init_s: float = 2.0
    backoff_max_s: float = 10.0
    proxy_reset_after_s: float = 300.0
    host_reset_after_s: float = 1800.0
    is_indefinite: bool = False


class RouteTable:
    """The routes of a client, and which of them to use now.

    Args:
        hosts: Base URLs in order of preference; at least one.
        groups: Proxy groups in order of preference; at least one.
        policy: See there.
        randomness: Returns numbers from 0 up to, but not including, 1.
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
        self._burned: set[str] = set()
        self._host_left_at_s: float | None = None
        self._group_left_at_s: float | None = None
        self._first_burned_at_s: float | None = None
        self._proxy = self._choose(self._groups[0])

    @property
    def active(self) -> Route:
        """The route that a new request asks first."""
        return Route(self._hosts[self._host_index], self._proxy)

    def hosts(self) -> "Iterator[str]":
        """Yield all servers, the active one first, then those after it in the ring."""
        for offset in range(len(self._hosts)):
            yield self._hosts[(self._host_index + offset) % len(self._hosts)]

    def proxies(self) -> "Iterator[str]":
        """Yield all proxies once, in the order in which they are worth trying."""
        groups = self._groups[self._group_index :] + self._groups[: self._group_index]
        alive = (member for member in groups[0] if member not in self._burned)
        others = (member for group in groups[1:] for member in group)
        burned = (member for member in groups[0] if member in self._burned)
        yield from dict.fromkeys((self._proxy, *alive, *others, *burned))

    def refresh(self, now_s: float) -> None:
        """Return to preferred servers and proxies whose time has come."""
        policy = self.policy
        if _is_over(self._host_left_at_s, policy.host_reset_after_s, now_s):
            self._enter_host(0, now_s)
        if _is_over(self._group_left_at_s, policy.proxy_reset_after_s, now_s):
            self.revive_proxies()
        elif _is_over(self._first_burned_at_s, policy.proxy_reset_after_s, now_s):
            self._enter_group(self._group_index, now_s)

    def leave_host(self, host: str, now_s: float) -> None:
        """Make the next server active; nothing if another request already did."""
        if host == self._hosts[self._host_index]:
            self._enter_host((self._host_index + 1) % len(self._hosts), now_s)

    def burn(self, proxy: str, now_s: float) -> None:
        """Take a proxy out of its group; nothing if another request already did."""
        if proxy != self._proxy:
            return
        self._burned.add(proxy)
        group = self._groups[self._group_index]
        alive = [member for member in group if member not in self._burned]
        if not alive:
            self._enter_group((self._group_index + 1) % len(self._groups), now_s)
            return
        if self._first_burned_at_s is None:
            self._first_burned_at_s = now_s
        self._proxy = self._choose(alive)

    def revive_proxies(self) -> None:
        """Return to the first group with all its members."""
        if self._group_index or self._burned:
            self._enter_group(0, 0.0)

    def _enter_host(self, index: int, now_s: float) -> None:
        self._host_left_at_s = _left_at(self._host_left_at_s, index, now_s)
        self._host_index = index

    def _enter_group(self, index: int, now_s: float) -> None:
        self._group_left_at_s = _left_at(self._group_left_at_s, index, now_s)
        self._group_index = index
        self._burned.clear()
        self._first_burned_at_s = None
        self._proxy = self._choose(self._groups[index])

    def _choose(self, members: "Sequence[str]") -> str:
        return members[int(self.randomness() * len(members))]


class RequestFailover:
    """One request's way through the routes.

    Args:
        routes: Shared by all requests.
        now_s: When the request starts.
        no_cache: Ask past caches from the beginning.
    """

    def __init__(
        self, routes: RouteTable, now_s: float, *, no_cache: bool = False
    ) -> None:
        routes.refresh(now_s)
        self._routes = routes
        self._always_past_caches = no_cache
        self._asked_past_caches = no_cache
        self._retries = 0
        self._backoff_s = 0.0
        self._tried: set[Route] = set()
        self._without_object: set[str] = set()
        self.attempt = self._start(routes.active)

    def after(self, failure: "Failure", now_s: float) -> Attempt | None:
        """Return what to do after the last attempt failed; None to give up."""
        repetition = self._repetition(failure)
        if repetition is not None:
            self.attempt = repetition
            return repetition
        if failure.blame is Blame.NOBODY:
            return None
        route = self._next_route(failure, now_s)
        if route is not None:
            self.attempt = self._start(route)
            return self.attempt
        if not self._routes.policy.is_indefinite:
            return None
        return self._start_over()

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
        return self.attempt._replace(wait_s=self._next_wait())

    def _next_wait(self) -> float:
        policy = self._routes.policy
        if self._backoff_s:
            self._backoff_s *= 2
        else:
            self._backoff_s = policy.backoff_init_s * self._routes.randomness()
        self._backoff_s = min(self._backoff_s, policy.backoff_max_s)
        return self._backoff_s

    def _next_route(self, failure: "Failure", now_s: float) -> Route | None:
        """Switch as the failure demands; return an untried route, if one is left."""
        host, proxy = self.attempt.route
        if failure.is_absence:
            self._without_object.add(host)
        if failure.blame is Blame.PROXY:
            self._routes.burn(proxy, now_s)
            route = self._first_untried((host,), self._routes.proxies())
            if route is not None:
                return route
            self._routes.revive_proxies()
        self._routes.leave_host(host, now_s)
        active_proxy = self._routes.active.proxy
        route = self._first_untried(self._routes.hosts(), (active_proxy,))
        if route is not None:
            return route
        if not failure.is_absence:
            self._routes.burn(proxy, now_s)
        return self._first_untried(self._routes.hosts(), self._routes.proxies())

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
        self.attempt = self._start(self._routes.active)._replace(wait_s=wait_s)
        return self.attempt


def _left_at(left_at_s: float | None, entered_index: int, now_s: float) -> float | None:
    """Return since when the first choice has been left; None while it is in use."""
    if entered_index == 0:
        return None
    return now_s if left_at_s is None else left_at_s


def _is_over(since_s: float | None, duration_s: float, now_s: float) -> bool:
    return since_s is not None and duration_s > 0 and now_s - since_s >= duration_s
