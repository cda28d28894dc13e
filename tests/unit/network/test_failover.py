"""Failover by example, then by property: whatever fails, in whatever order."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from cvmfsexec.format.proxy_groups import DIRECT, ProxyGroup, parse_proxy_list
from cvmfsexec.network.failover import (
    Attempt,
    FailoverPolicy,
    RequestFailover,
    Route,
    RouteTable,
)
from cvmfsexec.network.failure import Blame, Failure

HOST_ERROR = Failure(Blame.HOST, "HTTP status 500")
ABSENT = Failure(Blame.HOST, "HTTP status 404", is_absence=True)
HOST_TRANSFER = Failure(Blame.HOST, "cannot connect", is_transfer=True)
PROXY_ERROR = Failure(Blame.PROXY, "HTTP status 403")
PROXY_TRANSFER = Failure(Blame.PROXY, "too slow", is_transfer=True)
BAD_DATA = Failure(Blame.DATA, "hash")
FATAL = Failure(Blame.NOBODY, "out of memory")

NEVER_RETRY = FailoverPolicy(max_retries=0)


def table(
    hosts: str = "h0 h1",
    proxies: str = DIRECT,
    policy: FailoverPolicy = NEVER_RETRY,
    randomness: Callable[[], float] = lambda: 0.0,
) -> RouteTable:
    return RouteTable(hosts.split(), parse_proxy_list(proxies), policy, randomness)


def routes_after(
    routes: RouteTable, *failures: Failure, now_s: float = 0.0
) -> list[str]:
    """Return the routes that a request asks while it fails so, then "gives up"."""
    request = RequestFailover(routes, now_s)
    first = request.attempt.route
    following = [shown(request.after(failure, now_s)) for failure in failures]
    return [shown(Attempt(first)), *following]


def shown(attempt: Attempt | None) -> str:
    if attempt is None:
        return "gives up"
    host, proxy = attempt.route
    mark = "!" if attempt.no_cache else ""
    return f"{host}{mark} {proxy.removeprefix('http://')}"


H, A, P = HOST_ERROR, ABSENT, PROXY_ERROR


@pytest.mark.parametrize(
    ("hosts", "proxies", "failures", "asked"),
    [
        pytest.param("h0", "DIRECT", [H], ["h0 DIRECT", "gives up"], id="one-route"),
        pytest.param("h0 h1", "DIRECT", [H, H], ["h0 DIRECT", "h1 DIRECT", "gives up"],
                     id="host-ring"),
        pytest.param("h0 h1", "p1|p2", [P, H], ["h0 p1", "h0 p2", "h1 p2"],
                     id="proxy-then-host"),
        pytest.param("h0", "p1;p2;DIRECT", [P, P], ["h0 p1", "h0 p2", "h0 DIRECT"],
                     id="groups-in-order"),
        pytest.param("h0 h1", "p1|p2", [P, P, P, P],
                     ["h0 p1", "h0 p2", "h1 p1", "h1 p2", "gives up"],
                     id="all-proxies-failed-so-next-host"),
        pytest.param("h0 h1", "p1|p2", [H, H, H, H],
                     ["h0 p1", "h1 p1", "h0 p2", "h1 p2", "gives up"],
                     id="all-hosts-failed-through-a-proxy"),
        pytest.param("h0 h1", "p1", [P, P], ["h0 p1", "h1 p1", "gives up"],
                     id="one-proxy-for-several-hosts"),
        pytest.param("h0 h1 h2", "p1|p2", [A, A, A],
                     ["h0 p1", "h1 p1", "h2 p1", "gives up"],
                     id="absence-is-not-asked-for-by-another-proxy"),
        pytest.param("h0 h1", "p1|p2", [A, P, H],
                     ["h0 p1", "h1 p1", "h1 p2", "gives up"],
                     id="absence-then-proxy"),
        pytest.param("h0 h1", "DIRECT;p1", [H, H, P, P],
                     ["h0 DIRECT", "h1 DIRECT", "h0 p1", "h1 p1", "gives up"],
                     id="proxy-after-direct"),
        pytest.param("h0 h1", "DIRECT", [FATAL], ["h0 DIRECT", "gives up"], id="fatal"),
    ],
)  # fmt: skip
def test_order_of_routes(
    hosts: str, proxies: str, failures: list[Failure], asked: list[str]
) -> None:
    assert routes_after(table(hosts, proxies), *failures) == asked


def test_bad_data_is_asked_for_past_caches_once_then_elsewhere() -> None:
    asked = routes_after(table("h0 h1"), BAD_DATA, BAD_DATA, BAD_DATA)
    assert asked == ["h0 DIRECT", "h0! DIRECT", "h1 DIRECT", "gives up"]


def test_request_past_caches_stays_so() -> None:
    request = RequestFailover(table("h0 h1"), 0, no_cache=True)
    assert shown(request.attempt) == "h0! DIRECT"
    assert shown(request.after(BAD_DATA, 0)) == "h1! DIRECT"


def test_transfer_error_is_repeated_before_switching() -> None:
    policy = FailoverPolicy(max_retries=2)
    asked = routes_after(table(policy=policy), *[HOST_TRANSFER] * 4)
    assert asked == ["h0 DIRECT"] * 3 + ["h1 DIRECT", "gives up"]


def test_repetition_past_caches_is_repeated_past_caches() -> None:
    asked = routes_after(table(policy=FailoverPolicy()), BAD_DATA, HOST_TRANSFER)
    assert asked == ["h0 DIRECT", "h0! DIRECT", "h0! DIRECT"]


def test_waits_double_from_a_random_start_up_to_the_maximum() -> None:
    policy = FailoverPolicy(max_retries=5, backoff_init_s=2, backoff_max_s=5)
    request = RequestFailover(table(policy=policy, randomness=lambda: 0.75), 0)
    waits = [request.after(HOST_TRANSFER, 0) for _ in range(5)]
    assert [wait and wait.wait_s for wait in waits] == [1.5, 3.0, 5.0, 5.0, 5.0]


def test_switching_does_not_wait() -> None:
    request = RequestFailover(table("h0 h1", "p1|p2"), 0)
    for failure in (PROXY_ERROR, HOST_ERROR, PROXY_ERROR):
        attempt = request.after(failure, 0)
        assert attempt is not None
        assert attempt.wait_s == 0


def test_what_failed_stays_left_for_later_requests() -> None:
    routes = table("h0 h1", "p1;p2")
    routes_after(routes, PROXY_ERROR, HOST_ERROR)
    assert routes.active == Route("h1", "http://p2")


def test_parallel_requests_do_not_burn_two_proxies() -> None:
    routes = table("h0", "p1|p2|p3")
    first, second = RequestFailover(routes, 0), RequestFailover(routes, 0)
    assert shown(first.after(PROXY_ERROR, 0)) == "h0 p2"
    assert shown(second.after(PROXY_ERROR, 0)) == "h0 p2"


def test_parallel_requests_do_not_skip_a_host() -> None:
    routes = table("h0 h1 h2")
    first, second = RequestFailover(routes, 0), RequestFailover(routes, 0)
    assert shown(first.after(HOST_ERROR, 0)) == "h1 DIRECT"
    assert shown(second.after(HOST_ERROR, 0)) == "h1 DIRECT"


def test_request_that_was_overtaken_still_asks_every_host() -> None:
    routes = table("h0 h1 h2")
    slow = RequestFailover(routes, 0)
    routes_after(routes, HOST_ERROR, HOST_ERROR)  # the active one is h2 now
    asked = [shown(slow.after(HOST_ERROR, 0)) for _ in range(3)]
    assert asked == ["h2 DIRECT", "h1 DIRECT", "gives up"]


def test_member_of_a_group_is_chosen_at_random() -> None:
    numbers = random.Random(1)  # noqa: S311 -- the same every time
    chosen = {
        table(proxies="p1|p2|p3", randomness=numbers.random).active.proxy
        for _ in range(100)
    }
    assert chosen == {"http://p1", "http://p2", "http://p3"}


RESETS = FailoverPolicy(0, proxy_reset_after_s=300, host_reset_after_s=1800)


@pytest.mark.parametrize(("now_s", "active"), [(1799, "h1"), (1800, "h0")])
def test_first_host_is_tried_again_after_its_time(now_s: float, active: str) -> None:
    routes = table("h0 h1 h2", policy=RESETS)
    routes_after(routes, HOST_ERROR, now_s=0)
    assert RequestFailover(routes, now_s).attempt.route.host == active


@pytest.mark.parametrize(("now_s", "active"), [(299, "p3"), (300, "p1")])
def test_first_group_is_tried_again_after_its_time(now_s: float, active: str) -> None:
    routes = table("h0", "p1|p2;p3", RESETS)
    routes_after(routes, PROXY_ERROR, PROXY_ERROR, now_s=0)
    assert RequestFailover(routes, now_s).attempt.route.proxy == f"http://{active}"


@pytest.mark.parametrize(("now_s", "active"), [(299, "p2"), (300, "p1")])
def test_burned_member_is_alive_again_after_its_time(now_s: float, active: str) -> None:
    routes = table("h0", "p1|p2", RESETS)
    routes_after(routes, PROXY_ERROR, now_s=0)
    assert RequestFailover(routes, now_s).attempt.route.proxy == f"http://{active}"


def test_time_counts_from_leaving_the_first_choice() -> None:
    routes = table("h0 h1 h2", policy=RESETS)
    routes_after(routes, HOST_ERROR, now_s=0)
    routes_after(routes, HOST_ERROR, now_s=1000)
    assert routes.active.host == "h2"
    assert RequestFailover(routes, 1800).attempt.route.host == "h0"


def test_zero_means_never() -> None:
    routes = table("h0 h1", "p1;p2", FailoverPolicy(0, 0, 0, 0, 0))
    routes_after(routes, PROXY_ERROR, HOST_ERROR)
    assert RequestFailover(routes, 1e9).attempt.route == Route("h1", "http://p2")


def test_coming_round_to_the_first_choice_ends_its_time() -> None:
    routes = table("h0 h1", "p1;p2", RESETS)
    routes_after(routes, PROXY_ERROR, PROXY_ERROR, HOST_ERROR, HOST_ERROR)
    routes_after(routes, HOST_ERROR, now_s=1799)
    assert RequestFailover(routes, 1801).attempt.route.host == "h1"


def test_indefinite_failover_starts_over_after_a_wait() -> None:
    policy = FailoverPolicy(0, backoff_max_s=0, is_indefinite=True)
    request = RequestFailover(table("h0 h1", policy=policy), 0)
    asked = []
    for _ in range(4):
        attempt = request.after(ABSENT, 0)
        assert attempt is not None
        asked.append((attempt.route.host, attempt.wait_s))
    assert asked == [("h1", 0), ("h0", 1.0), ("h1", 0), ("h0", 1.0)]


def test_indefinite_failover_ends_at_what_nobody_can_help() -> None:
    request = RequestFailover(table(policy=FailoverPolicy(is_indefinite=True)), 0)
    assert request.after(FATAL, 0) is None


def test_servers_and_proxies_are_listed_with_the_active_one_first() -> None:
    routes = table("h0 h1 h2", "p1|p2;p3|p1")
    routes_after(routes, HOST_ERROR)
    routes_after(routes, PROXY_ERROR)
    assert list(routes.hosts()) == ["h1", "h2", "h0"]
    assert list(routes.proxies()) == ["http://p2", "http://p3", "http://p1"]


# ---- properties ---------------------------------------------------------------------

_members = st.lists(
    st.sampled_from([DIRECT, "http://p1", "http://p2", "http://p3", "http://p4"]),
    min_size=1,
    max_size=4,
    unique=True,
)
_groups = st.lists(_members.map(lambda m: ProxyGroup(tuple(m))), min_size=1, max_size=3)
_hosts = st.integers(1, 4).map(lambda n: tuple(f"http://h{i}" for i in range(n)))
_policies = st.builds(
    FailoverPolicy,
    max_retries=st.integers(0, 3),
    backoff_init_s=st.integers(0, 5),
    backoff_max_s=st.integers(0, 8),
    proxy_reset_after_s=st.sampled_from([0, 10, 100]),
    host_reset_after_s=st.sampled_from([0, 10, 100]),
    is_indefinite=st.sampled_from([False]),
)
_failures = st.sampled_from(
    [HOST_ERROR, ABSENT, HOST_TRANSFER, PROXY_ERROR, PROXY_TRANSFER, BAD_DATA]
)


class Observer:
    """One request, followed step by step, with what must be true of each step."""

    def __init__(self, routes: RouteTable, invited: set[Route], now_s: float) -> None:
        self.failover = RequestFailover(routes, now_s)
        self.policy = routes.policy
        self.invited = invited
        self.asked = [self.failover.attempt]
        self.failures: list[Failure] = []
        assert self.failover.attempt.wait_s == 0
        assert not self.failover.attempt.no_cache
        assert self.failover.attempt.route in invited

    def fail(self, failure: Failure, now_s: float) -> bool:
        """Let the last attempt fail; return whether there is a next one."""
        attempt = self.failover.after(failure, now_s)
        self.failures.append(failure)
        if attempt is None:
            self._check_that_nothing_is_left()
            return False
        self._check_step(attempt, failure)
        self.asked.append(attempt)
        assert len(self.asked) <= len(self.invited) + self.policy.max_retries + 1
        return True

    def _check_step(self, attempt: Attempt, failure: Failure) -> None:
        assert attempt.route in self.invited
        assert 0 <= attempt.wait_s <= self.policy.backoff_max_s
        is_new = attempt.route not in {asked.route for asked in self.asked}
        if not is_new:
            assert attempt.route == self.asked[-1].route
            assert failure.is_transfer or failure.blame is Blame.DATA
        if attempt.no_cache:
            assert not is_new
            assert BAD_DATA in self.failures
            freshly = [a for a, f in zip(self.asked, self.failures, strict=True)
                       if a.no_cache and not f.is_transfer]  # fmt: skip
            assert not freshly, "asked past caches again after an answer"
        if attempt.wait_s:
            assert failure.is_transfer
            assert not is_new

    def _check_that_nothing_is_left(self) -> None:
        asked = {attempt.route for attempt in self.asked}
        without = {
            attempt.route.host
            for attempt, failure in zip(self.asked, self.failures, strict=True)
            if failure.is_absence
        }
        assert {r for r in self.invited - asked if r.host not in without} == set()


def _all_routes(hosts: tuple[str, ...], groups: list[ProxyGroup]) -> set[Route]:
    return {Route(h, p) for h in hosts for group in groups for p in group.members}


@given(_hosts, _groups, _policies, st.randoms(use_true_random=False), st.data())
def test_one_request_ends_and_leaves_nothing_untried(
    hosts: tuple[str, ...],
    groups: list[ProxyGroup],
    policy: FailoverPolicy,
    numbers: random.Random,
    data: st.DataObject,
) -> None:
    routes = RouteTable(hosts, groups, policy, numbers.random)
    request = Observer(routes, _all_routes(hosts, groups), 0)
    while request.fail(data.draw(_failures), 0):
        pass


class ParallelRequests(RuleBasedStateMachine):
    """Requests that share one table, fail and succeed in any order, as time goes by."""

    running = Bundle("running")

    @initialize(
        hosts=_hosts,
        groups=_groups,
        policy=_policies,
        numbers=st.randoms(use_true_random=False),
    )
    def configure(
        self,
        hosts: tuple[str, ...],
        groups: list[ProxyGroup],
        policy: FailoverPolicy,
        numbers: random.Random,
    ) -> None:
        self.now_s = 0.0
        self.invited = _all_routes(hosts, groups)
        self.first_choice = (hosts[0], groups[0].members)
        self.routes = RouteTable(hosts, groups, policy, numbers.random)

    @rule(target=running)
    def begin(self) -> Observer:
        return Observer(self.routes, self.invited, self.now_s)

    @rule(target=running, request=consumes(running), failure=_failures)
    def fail(self, request: Observer, failure: Failure) -> Observer:
        if request.fail(failure, self.now_s):
            return request
        return Observer(self.routes, self.invited, self.now_s)

    @rule(request=consumes(running))
    def succeed(self, request: Observer) -> None:
        assert request.asked

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def come_back_much_later(self) -> None:
        self.now_s += 1000
        policy = self.routes.policy
        attempt = RequestFailover(self.routes, self.now_s).attempt
        if policy.host_reset_after_s:
            assert attempt.route.host == self.first_choice[0]
        if policy.proxy_reset_after_s:
            assert attempt.route.proxy in self.first_choice[1]

    @invariant()
    def active_route_is_invited(self) -> None:
        assert self.routes.active in self.invited
        assert set(self.routes.hosts()) == {route.host for route in self.invited}
        assert set(self.routes.proxies()) == {route.proxy for route in self.invited}


TestParallelRequests = ParallelRequests.TestCase
