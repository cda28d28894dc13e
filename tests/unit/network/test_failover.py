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
    RESTART_WAIT_MIN_S,
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
PROXY_TRANSFER = Failure(Blame.PROXY, "cut short", is_transfer=True)
PROXY_STALL = Failure(Blame.PROXY, "too slow", is_transfer=True, is_stall=True)
HOST_STALL = Failure(Blame.HOST, "too slow", is_transfer=True, is_stall=True)
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


# ---- parallel requests spare each other ---------------------------------------------

ONE_RETRY = FailoverPolicy(backoff_init_s=2)


def shown_routes(*attempts: Attempt | None) -> list[str]:
    return [shown(attempt) for attempt in attempts]


def test_second_request_that_stalls_leaves_the_proxy_for_all() -> None:
    routes = table("h0", "p1;p2", ONE_RETRY)
    first, second = RequestFailover(routes, 0), RequestFailover(routes, 0)
    third = RequestFailover(routes, 0)
    assert shown(first.after(PROXY_STALL, 5)) == "h0 p1"  # after a wait
    assert shown(second.after(PROXY_STALL, 5)) == "h0 p2"
    assert shown(third.after(PROXY_STALL, 5)) == "h0 p2"
    assert shown(first.awake()) == "h0 p2"
    assert RequestFailover(routes, 5).attempt.route.proxy == "http://p2"


def test_cut_connections_are_one_event_and_each_request_repeats() -> None:
    routes = table("h0", "p1;DIRECT", ONE_RETRY)
    requests = [RequestFailover(routes, 0) for _ in range(16)]
    following = [request.after(PROXY_TRANSFER, 0) for request in requests]
    assert shown_routes(*following) == ["h0 p1"] * 16
    assert shown(requests[0].after(PROXY_TRANSFER, 1)) == "h0 DIRECT"
    assert shown_routes(*(r.awake() for r in requests[1:])) == ["h0 DIRECT"] * 15


def test_repetition_is_made_when_there_is_nowhere_else() -> None:
    routes = table("h0", "p1", ONE_RETRY)
    first, second = RequestFailover(routes, 0), RequestFailover(routes, 0)
    for request in (first, second):
        assert shown(request.after(PROXY_STALL, 5)) == "h0 p1"
        assert shown(request.awake()) == "h0 p1"
        assert shown(request.after(PROXY_STALL, 10)) == "gives up"


def test_success_between_two_stalls_makes_the_second_a_first() -> None:
    routes = table("h0", "p1;p2", ONE_RETRY)
    assert shown(RequestFailover(routes, 0).after(PROXY_STALL, 5)) == "h0 p1"
    RequestFailover(routes, 5).succeeded(5)
    assert shown(RequestFailover(routes, 5).after(PROXY_STALL, 10)) == "h0 p1"


def test_own_stalls_use_up_the_repetitions() -> None:
    policy = FailoverPolicy(max_retries=2)
    asked = routes_after(table(policy=policy), *[HOST_STALL] * 3)
    assert asked == ["h0 DIRECT"] * 3 + ["h1 DIRECT"]


def test_one_scout_sees_whether_a_burned_proxy_is_back() -> None:
    routes = table("h0", "p1|p2", RESETS)
    routes_after(routes, PROXY_ERROR)
    scout, other = RequestFailover(routes, 300), RequestFailover(routes, 300)
    assert shown_routes(scout.attempt, other.attempt) == ["h0 p1", "h0 p2"]
    assert shown(scout.after(PROXY_STALL, 305)) == "h0 p2"
    assert shown(RequestFailover(routes, 604).attempt) == "h0 p2"
    scout = RequestFailover(routes, 605)
    assert shown(scout.attempt) == "h0 p1"
    scout.succeeded(606)
    assert shown(RequestFailover(routes, 606).attempt) == "h0 p1"


def test_one_scout_sees_whether_the_first_group_is_back() -> None:
    routes = table("h0", "p1;DIRECT", RESETS)
    routes_after(routes, PROXY_ERROR)
    scout, other = RequestFailover(routes, 300), RequestFailover(routes, 300)
    assert shown_routes(scout.attempt, other.attempt) == ["h0 p1", "h0 DIRECT"]
    scout.succeeded(301)
    assert shown(RequestFailover(routes, 301).attempt) == "h0 p1"


def test_one_scout_sees_whether_the_first_server_is_back() -> None:
    routes = table("h0 h1", policy=RESETS)
    routes_after(routes, HOST_ERROR)
    scout, other = RequestFailover(routes, 1800), RequestFailover(routes, 1800)
    assert shown_routes(scout.attempt, other.attempt) == ["h0 DIRECT", "h1 DIRECT"]
    assert shown(scout.after(HOST_STALL, 1810)) == "h1 DIRECT"
    assert shown(RequestFailover(routes, 3609).attempt) == "h1 DIRECT"
    assert shown(RequestFailover(routes, 3610).attempt) == "h0 DIRECT"


def test_scout_that_ends_without_a_word_is_followed_by_another() -> None:
    routes = table("h0 h1", policy=RESETS)
    routes_after(routes, HOST_ERROR)
    RequestFailover(routes, 1800).end(1800)
    assert shown(RequestFailover(routes, 1800).attempt) == "h0 DIRECT"


# ---- sharding -----------------------------------------------------------------------

SHARDED = FailoverPolicy(0, is_sharded=True)
PATHS = [f"data/{n:02x}/{n:038x}" for n in range(256)]


def proxies_of_paths(routes: RouteTable) -> dict[str, str]:
    return {path: RequestFailover(routes, 0, path).attempt.route.proxy
            for path in PATHS}  # fmt: skip


def test_sharding_spreads_objects_over_the_group_the_same_way_each_time() -> None:
    shards = proxies_of_paths(table("h0", "p1|p2|p3;p4", SHARDED))
    for proxy in ("http://p1", "http://p2", "http://p3"):
        assert 50 < list(shards.values()).count(proxy) < 120
    again = table("h0", "p3|p2|p1", SHARDED, randomness=lambda: 0.9)
    assert proxies_of_paths(again) == shards


def test_only_the_objects_of_a_dead_member_move() -> None:
    routes = table("h0", "p1|p2|p3", SHARDED)
    before = proxies_of_paths(routes)
    routes.burn("http://p2", 0)
    after = proxies_of_paths(routes)
    assert "http://p2" not in after.values()
    moved = {path for path in PATHS if before[path] != after[path]}
    assert moved == {path for path in PATHS if before[path] == "http://p2"}
    assert {after[path] for path in moved} == {"http://p1", "http://p3"}


def test_sharded_request_burns_its_own_proxy() -> None:
    routes = table("h0", "p1|p2;DIRECT", SHARDED)
    first = RequestFailover(routes, 0, PATHS[0])
    proxy = first.attempt.route.proxy
    following = first.after(PROXY_ERROR, 0)
    assert following is not None
    assert {proxy, following.route.proxy} == {"http://p1", "http://p2"}
    assert set(proxies_of_paths(routes).values()) == {following.route.proxy}


# ---- other routes while requests run ------------------------------------------------


def test_new_order_is_used_at_once() -> None:
    routes = table("h0 h1 h2", "p1;p2")
    routes.replace(("h2", "h0"), parse_proxy_list("p1;p2"))
    assert routes.active == Route("h2", "http://p1")
    assert list(routes.hosts()) == ["h2", "h0"]


def test_new_order_does_not_bring_back_what_was_left() -> None:
    routes = table("h0 h1 h2", "p1|p2;p3")
    routes_after(routes, HOST_ERROR)
    routes.burn("http://p1", 0)
    routes.replace(("h0", "h2", "h1"), parse_proxy_list("p1|p2|p5;p3"))
    assert routes.active == Route("h1", "http://p2")
    assert not routes.is_alive("http://p1")


def test_routes_that_are_gone_are_not_used() -> None:
    routes = table("h0 h1", "p1;p2")
    routes_after(routes, PROXY_ERROR, HOST_ERROR)
    routes.replace(("h0",), parse_proxy_list("p7;p8"))
    assert routes.active == Route("h0", "http://p7")


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
    is_sharded=st.booleans(),
)
_failures = st.sampled_from(
    [HOST_ERROR, ABSENT, HOST_TRANSFER, HOST_STALL, PROXY_ERROR, PROXY_TRANSFER,
     PROXY_STALL, BAD_DATA]
)  # fmt: skip


class Observer:
    """One request, followed step by step, with what must be true of each step."""

    def __init__(
        self, routes: RouteTable, invited: set[Route], now_s: float, path: str = ""
    ) -> None:
        self.failover = RequestFailover(routes, now_s, path)
        self.policy = routes.policy
        self.invited = invited
        self.asked = [self.failover.attempt]
        self.failures: list[Failure] = []
        assert self.failover.attempt.wait_s == 0
        assert not self.failover.attempt.no_cache
        assert self.failover.attempt.route in invited

    def fail(self, failure: Failure, now_s: float) -> bool:
        """Let the last attempt fail; return whether there is a next one."""
        self.wake()
        attempt = self.failover.after(failure, now_s)
        self.failures.append(failure)
        if attempt is None:
            self._check_that_nothing_is_left()
            return False
        assert not self.failover.is_scout
        self._check_step(attempt, failure)
        self.asked.append(attempt)
        assert len(self.asked) <= len(self.invited) + self.policy.max_retries + 1
        return True

    def wake(self) -> None:
        """End the wait before the last attempt, during which others went on."""
        if not self.asked[-1].wait_s:
            return
        attempt = self.failover.awake()
        if attempt.route != self.asked[-1].route:
            assert attempt.route in self.invited - {a.route for a in self.asked}
            assert not attempt.wait_s
            # The repetition was not made; what led to it counts as an answer.
            self.asked[-1] = attempt

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


@given(_hosts, _groups, _policies, st.lists(_failures, max_size=200))
def test_endless_failover_never_goes_round_without_waiting(
    hosts: tuple[str, ...],
    groups: list[ProxyGroup],
    policy: FailoverPolicy,
    failures: list[Failure],
) -> None:
    policy = policy._replace(is_indefinite=True)
    invited = _all_routes(hosts, groups)
    request = RequestFailover(RouteTable(hosts, groups, policy, lambda: 0.0), 0)
    without_a_wait = 0
    for failure in failures:
        attempt = request.after(failure, 0)
        assert attempt is not None
        assert attempt.route in invited
        without_a_wait = 0 if attempt.wait_s >= 1 else without_a_wait + 1
        assert without_a_wait <= len(invited) + policy.max_retries + 1


@given(
    _hosts,
    _groups,
    _policies,
    st.lists(st.tuples(st.integers(0, 3), _failures, st.integers(0, 20)), max_size=100),
)
def test_endless_requests_side_by_side_wait_and_stay_on_configured_routes(
    hosts: tuple[str, ...],
    groups: list[ProxyGroup],
    policy: FailoverPolicy,
    steps: list[tuple[int, Failure, int]],
) -> None:
    policy = policy._replace(is_indefinite=True)
    invited = _all_routes(hosts, groups)
    routes = RouteTable(hosts, groups, policy, lambda: 0.0)
    requests = [RequestFailover(routes, 0, path) for path in "abcd"]
    without_a_wait = [0] * len(requests)
    now_s = 0
    for number, failure, seconds in steps:
        now_s += seconds
        attempt = requests[number].after(failure, now_s)
        assert attempt is not None, "given up"
        waits = attempt.wait_s >= RESTART_WAIT_MIN_S
        without_a_wait[number] = 0 if waits else without_a_wait[number] + 1
        assert without_a_wait[number] <= len(invited) + policy.max_retries + 1
        if attempt.wait_s:
            attempt = requests[number].awake()
        assert attempt.route in invited


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
        self.hosts = hosts
        self.groups = groups
        self.observers: list[Observer] = []
        self.routes = RouteTable(hosts, groups, policy, numbers.random)

    @rule(target=running, path=st.sampled_from(["", "a", "b"]))
    def begin(self, path: str) -> Observer:
        return self._begin(path)

    def _begin(self, path: str = "") -> Observer:
        observer = Observer(self.routes, self.invited, self.now_s, path)
        self.observers.append(observer)
        return observer

    @rule(target=running, request=consumes(running), failure=_failures)
    def fail(self, request: Observer, failure: Failure) -> Observer:
        if request.fail(failure, self.now_s):
            return request
        return self._begin()

    @rule(request=consumes(running))
    def succeed(self, request: Observer) -> None:
        request.wake()
        request.failover.succeeded(self.now_s)
        assert not request.failover.is_scout

    @rule(request=consumes(running))
    def break_off(self, request: Observer) -> None:
        request.failover.end(self.now_s)

    @rule(numbers=st.randoms(use_true_random=False))
    def change_the_order_of_servers(self, numbers: random.Random) -> None:
        self.hosts = tuple(numbers.sample(self.hosts, len(self.hosts)))
        self.routes.replace(self.hosts, self.groups)

    @rule(seconds=st.integers(0, 60))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def come_back_much_later(self) -> None:
        self.now_s += 1000
        policy = self.routes.policy
        if any(observer.failover.is_scout for observer in self.observers):
            return  # which all others wait for
        for _ in range(7):  # a scout for each member, the group, and the server
            RequestFailover(self.routes, self.now_s).succeeded(self.now_s)
        route = RequestFailover(self.routes, self.now_s).attempt.route
        if policy.host_reset_after_s:
            assert route.host == self.hosts[0]
        if policy.proxy_reset_after_s:
            members = self.groups[0].members
            assert route.proxy in members
            assert all(self.routes.is_alive(member) for member in members)

    @invariant()
    def there_is_one_scout_at_most(self) -> None:
        assert sum(observer.failover.is_scout for observer in self.observers) <= 1

    @invariant()
    def active_route_is_invited(self) -> None:
        assert self.routes.active in self.invited
        assert set(self.routes.hosts()) == {route.host for route in self.invited}
        assert set(self.routes.proxies()) == {route.proxy for route in self.invited}


TestParallelRequests = ParallelRequests.TestCase
