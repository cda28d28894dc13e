"""Two real squids and two real nginx replicas, of which each fails in each way while a
payload reads: no read fails as long as one route works."""

import contextlib
import functools
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import client_dist, run_exec
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.relay import Relay
from tests.support.server_process import ServerProcess
from tests.support.sessions import wait_until
from tests.support.squid import Squid
from tests.support.tree_reader import TreeReader, large_tree, started_reader

pytestmark = pytest.mark.kernel

QUICK = {
    "CVMFS_TIMEOUT": 1,
    "CVMFS_TIMEOUT_DIRECT": 1,
    "CVMFS_BACKOFF_INIT": 1,
    "CVMFS_BACKOFF_MAX": 1,
    "CVMFS_LOW_SPEED_LIMIT": 20_000,
    "CVMFS_PROXY_RESET_AFTER": 4,
    "CVMFS_HOST_RESET_AFTER": 4,
    "CVMFS_READ_AHEAD": 0,  # each read is a request
}
PATIENT = {
    "CVMFS_TIMEOUT": 30,
    "CVMFS_TIMEOUT_DIRECT": 30,
    "CVMFS_LOW_SPEED_LIMIT": 1,
    "CVMFS_READ_AHEAD": 1,
}
"""For tests that count requests: a busy machine must not look like a stalled one."""

OK, EIO = {"ok"}, {"EIO"}
SLOW_BYTES_PER_S = 500

Fault = Callable[[ServerProcess], None]


class Site:
    """Two replicas and two squids, all of them in good health between tests."""

    def __init__(
        self,
        repository: PublishedRepository,
        replicas: tuple[Nginx, Nginx],
        squids: tuple[Squid, Squid],
    ) -> None:
        self.repository = repository
        self.replicas = replicas
        self.squids = squids

    @property
    def servers(self) -> tuple[ServerProcess, ...]:
        return (*self.squids, *self.replicas)

    def heal(self) -> None:
        """Bring everybody back; squids forget what they cached."""
        for squid in self.squids:
            squid.begin_anew()
        for replica in self.replicas:
            replica.heal()
            replica.forget_requests()

    def proxies(self, arrangement: str) -> str:
        """Return a proxy list: ``"{0}|{1}"`` with both squids put in."""
        return arrangement.format(*(squid.url for squid in self.squids))

    def origin_objects(self) -> list[str]:
        """Return the paths of immutable objects that replicas delivered."""
        return [path for replica in self.replicas for path in replica.objects()]

    @contextlib.contextmanager
    def client(self, proxies: str, *servers: str, **settings: int) -> Iterator[Path]:
        """Make a client with an empty cache: a node of its own."""
        urls = servers or tuple(replica.url for replica in self.replicas)
        values = {
            "CVMFS_SERVER_URL": ";".join(f"{url}/@fqrn@" for url in urls),
            "CVMFS_HTTP_PROXY": self.proxies(proxies),
            **QUICK,
            **settings,
        }
        text = "".join(f"{name}='{value}'\n" for name, value in values.items())
        key = self.repository.master_key_pem
        with client_dist(self.replicas[0].url, key, settings=text) as dist:
            yield dist

    @contextlib.contextmanager
    def reader(
        self, proxies: str, *servers: str, **settings: int
    ) -> Iterator[TreeReader]:
        """Start a session on a node of its own."""
        with (
            self.client(proxies, *servers, **settings) as dist,
            started_reader(dist) as reader,
        ):
            yield reader


@pytest.fixture(scope="module")
def one_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    repository = publish_tree(tmp_path_factory.mktemp("published"), large_tree())
    nginx = functools.partial(Nginx, repository.output)
    with nginx() as first, nginx() as second, Squid() as near, Squid() as far:
        yield Site(repository, (first, second), (near, far))


@pytest.fixture
def site(one_site: Site) -> Site:
    one_site.heal()
    return one_site


def ask(url: str, squid: Squid) -> None:
    """Let a squid get something, with a client that is not ours."""
    handler = urllib.request.ProxyHandler({"http": squid.url})
    with urllib.request.build_opener(handler).open(url, timeout=60) as answer:
        answer.read()


arrangements = pytest.mark.parametrize(
    "proxies",
    ["{0}|{1}", "{0};{1}", "DIRECT"],
    ids=["balanced", "two groups", "direct"],
)


# One after the other


@arrangements
@pytest.mark.parametrize(
    "fault",
    [ServerProcess.kill, ServerProcess.stall, ServerProcess.restart],
    ids=["killed", "stalled", "restarted"],
)
def test_no_read_fails_whoever_fails(site: Site, proxies: str, fault: Fault) -> None:
    with site.reader(proxies) as reader:
        assert reader.read(20) == OK
        for victim in site.replicas if proxies == "DIRECT" else site.servers:
            reader.begin(60)
            reader.wait_for_reads(5)
            fault(victim)
            assert reader.finish() == OK
            assert reader.read(20) == OK
            victim.heal()
        assert reader.read(20) == OK


def test_no_read_fails_while_files_are_fetched_ahead(site: Site) -> None:
    with site.reader("{0}|{1}", CVMFS_READ_AHEAD=1) as reader:
        reader.begin_all()
        for victim in site.servers:
            reader.wait_for_reads(100)
            victim.restart()
        assert reader.finish() == OK


@pytest.mark.parametrize("dead_squid", [0, 1])
@pytest.mark.parametrize("dead_replica", [0, 1])
def test_no_read_fails_while_one_route_of_four_works(
    site: Site, dead_squid: int, dead_replica: int
) -> None:
    with site.reader("{0}|{1}", CVMFS_MAX_RETRIES=1, CVMFS_TIMEOUT=2) as reader:
        reader.begin(60)
        reader.wait_for_reads(5)
        site.squids[dead_squid].kill()
        site.replicas[dead_replica].stall()
        assert reader.finish() == OK


@arrangements
def test_a_replica_with_wrong_bytes_is_passed_over(site: Site, proxies: str) -> None:
    with site.reader(proxies) as reader:
        for victim in site.replicas:
            reader.begin(60)
            reader.wait_for_reads(5)
            victim.corrupt()
            assert reader.finish() == OK
            victim.heal()
            assert reader.read(10) == OK


@pytest.mark.parametrize("slow", ["squid", "replica"])
def test_who_is_too_slow_is_passed_over(site: Site, slow: str) -> None:
    replica, other_replica = site.replicas
    target = site.squids[0] if slow == "squid" else replica
    with Relay(target.port) as relay:
        servers = (relay.url if slow == "replica" else replica.url, other_replica.url)
        proxies = f"{relay.url};{{1}}" if slow == "squid" else "{0};{1}"
        with site.reader(proxies, *servers) as reader:
            reader.begin(60)
            reader.wait_for_reads(5)
            relay.bytes_per_s = SLOW_BYTES_PER_S
            assert reader.finish() == OK


@pytest.mark.parametrize("fault", ["squid dies", "replica dies", "way gets slow"])
def test_a_transfer_that_breaks_off_is_taken_up_elsewhere(
    site: Site, fault: str
) -> None:
    squid, replica = site.squids[0], site.replicas[0]
    with Relay(squid.port) as relay, site.reader(f"{relay.url};{{1}}") as reader:
        relay.bytes_per_s = 500_000
        reader.begin_long()
        wait_until(lambda: relay.answered_bytes > 200_000, "a transfer is under way")
        if fault == "squid dies":
            squid.kill()
        elif fault == "replica dies":
            replica.kill()
        else:
            relay.bytes_per_s = SLOW_BYTES_PER_S
        assert reader.finish() == OK
        assert reader.read(10) == OK


# What squids keep


def test_a_second_node_asks_no_origin_for_objects(site: Site) -> None:
    def run_cold() -> None:
        with site.reader("{0};{1}", **PATIENT) as reader:
            reader.begin_all()
            assert reader.finish() == OK

    run_cold()
    from_origin = site.origin_objects()
    assert len(from_origin) == len(set(from_origin)) > 1000
    by_squid = len(site.squids[0].object_results())
    run_cold()
    assert site.origin_objects() == from_origin
    second = site.squids[0].object_results()[by_squid:]
    assert set(second) == {"TCP_MEM_HIT/200"}
    assert len(second) == len(from_origin)
    assert site.squids[1].object_results() == []


def test_wrong_bytes_in_a_squid_are_asked_for_past_it(site: Site) -> None:
    replica, squid = site.replicas[0], site.squids[0]
    replica.corrupt()
    paths = sorted(replica.object_paths())
    for path in paths:
        ask(f"{replica.url}{path}", squid)
    assert set(site.origin_objects()) == set(paths)
    replica.heal()
    replica.forget_requests()
    patient = {**PATIENT, "CVMFS_READ_AHEAD": 0}
    with site.reader("{0}", replica.url, **patient) as reader:
        assert reader.read(150) == OK
    assert 150 < len(site.origin_objects()) < len(paths)
    replica.forget_requests()
    with site.reader("{0}", replica.url, **patient) as reader:
        assert reader.read(150) == OK
    # Perhaps not those of a transfer that the end of the first session broke off.
    assert len(site.origin_objects()) < 10, "the squid has the right bytes now"


# No route


def test_reads_fail_when_no_route_is_left_and_recover(site: Site) -> None:
    with site.reader("{0}|{1}") as reader:
        assert reader.read(10) == OK
        for squid in site.squids:
            squid.kill()
        reader.enter_next_area()
        assert reader.read(4) == EIO
        site.squids[1].start()
        assert reader.read(20) == OK
        for replica in site.replicas:
            replica.stall()
        reader.enter_next_area()
        assert reader.read(1) == EIO
        site.replicas[1].resume()
        assert reader.read(20) == OK
    assert not any(
        request.is_direct for replica in site.replicas for request in replica.requests()
    )


def test_endless_failover_outlives_the_death_of_all_servers(site: Site) -> None:
    def asked_count() -> int:
        return sum(len(squid.object_results()) for squid in site.squids)

    with site.reader("{0}|{1}", CVMFS_FAILOVER_INDEFINITELY=1) as reader:
        assert reader.read(10) == OK
        for replica in site.replicas:
            replica.kill()
        before = asked_count()
        reader.enter_next_area()
        reader.begin(20)
        wait_until(lambda: asked_count() >= before + 10, "all routes were tried twice")
        site.replicas[1].start()
        assert reader.finish() == OK


def test_nobody_goes_direct_unless_it_is_listed(site: Site) -> None:
    with site.reader("{0}|{1};DIRECT", **PATIENT) as reader:
        assert reader.read(10) == OK
        assert not any(one.is_direct for one in site.replicas[0].requests())
        for squid in site.squids:
            squid.kill()
        reader.enter_next_area()
        assert reader.read(40) == OK
        assert any(one.is_direct for one in site.replicas[0].requests())


# Whom a squid lets through


def test_user_and_password_open_a_squid(site: Site) -> None:
    with Squid("job:secret") as squid:
        known = squid.url.replace("//", "//job:secret@")
        with site.reader(known, **PATIENT) as reader:
            assert reader.read(20) == OK
        assert not any(one.is_direct for one in site.replicas[0].requests())
        squid.restart()
        unknown = squid.url.replace("//", "//job:wrong@")
        with site.client(unknown) as dist:
            refused = run_exec(dist, FQRN, "--", "true")
        assert refused.returncode != 0
        assert "407" in refused.stderr
        assert "wrong" not in refused.stderr
