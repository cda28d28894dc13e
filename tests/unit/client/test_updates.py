"""A day in a minute: when revisions are looked for, and what becomes of it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.client.assembly import Client
from cvmfsexec.client.updates import (
    TTL_AFTER_FAILURE_S,
    TTL_DEFAULT_S,
    Outcome,
    Updates,
)
from cvmfsexec.errors import (
    CacheError,
    CvmfsError,
    RollbackError,
    TransferError,
)
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.repository.revision import Revision
from tests.support.clients import open_client
from tests.support.kernel_model import KernelModel
from tests.support.published import FQRN, PublishedRepository, publish_tree

TTL_S = 900
HOUR_S = 3600
DAY_S = 24 * HOUR_S


def revision(number: int) -> Revision:
    return Revision(ContentHash.parse(f"{number:040x}"), number=number)


class Day:
    """A clock, and a server that publishes, fails, and lags by it."""

    def __init__(self, ttl_s: int | None = TTL_S) -> None:
        self.now_s = 0.0
        self.ttl = ttl_s
        self.head = 1
        self.error: CvmfsError | None = None
        self.refusal: CvmfsError | None = None
        self.looked_s: list[float] = []
        self.shown: list[int] = []

    def clock(self) -> float:
        return self.now_s

    def newer(self, shown: Revision) -> Revision | None:
        self.looked_s.append(self.now_s)
        if self.error is not None:
            raise self.error
        return revision(self.head) if self.head > shown.number else None

    def show(self, newer: Revision) -> Revision:
        if self.refusal is not None:
            raise self.refusal
        self.shown.append(newer.number)
        return newer

    def ttl_s(self) -> int | None:
        return self.ttl

    def updates(self, **options: object) -> Updates:
        return Updates(revision(1), self, clock=self.clock, **options)  # type: ignore[arg-type]

    def pass_until(self, end_s: float, updates: Updates, step_s: float = 10.0) -> None:
        while self.now_s < end_s:
            self.now_s += step_s
            updates.check_if_due()


class Alert(Day):
    """A day that tells of each look."""

    def __init__(self, ttl_s: int | None = TTL_S) -> None:
        super().__init__(ttl_s)
        self.looked = threading.Semaphore(0)

    def newer(self, shown: Revision) -> Revision | None:
        found = super().newer(shown)
        self.looked.release()
        return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is logged, from level "info" on."""
    from cvmfsexec import log

    told: list[str] = []
    for name in ("info", "warning", "error"):
        monkeypatch.setattr(
            log,
            name,
            lambda text, *values, level=name: told.append(f"{level}: {text % values}"),
        )
    return told


def test_a_look_is_due_when_the_time_to_live_is_over() -> None:
    day = Day()
    updates = day.updates()
    day.pass_until(DAY_S, updates)
    assert day.looked_s == [TTL_S * n for n in range(1, DAY_S // TTL_S + 1)]


@pytest.mark.parametrize(
    ("ttl_s", "max_ttl_s", "expected_s"),
    [
        (900, None, 900),
        (900, 300, 300),
        (200, 300, 200),
        (None, None, TTL_DEFAULT_S),
        (0, None, TTL_DEFAULT_S),
        (None, 60, 60),
    ],
)
def test_the_shorter_time_counts(
    ttl_s: int | None, max_ttl_s: int | None, expected_s: int
) -> None:
    assert Day(ttl_s).updates(max_ttl_s=max_ttl_s).expires_in_s() == expected_s


def test_the_time_of_the_revision_shown_counts() -> None:
    day = Day()
    updates = day.updates()
    day.head, day.ttl = 2, 60
    day.pass_until(TTL_S + 120, updates)
    assert day.looked_s == [60, 120, *range(180, TTL_S + 121, 60)]
    assert day.shown == [2]


def test_a_failure_is_told_once_and_tried_again_soon(told: list[str]) -> None:
    day = Day()
    updates = day.updates()
    day.error = TransferError("nobody is there")
    day.pass_until(TTL_S + 2 * HOUR_S, updates)
    assert updates.is_offline
    assert day.looked_s == list(
        range(TTL_S, TTL_S + 2 * HOUR_S + 1, TTL_AFTER_FAILURE_S)
    )
    assert told == ["warning: staying with revision 1: nobody is there"]


def test_the_return_is_told_once(told: list[str]) -> None:
    day = Day()
    updates = day.updates()
    day.error = TransferError("nobody is there")
    day.pass_until(HOUR_S, updates)
    day.error, day.head = None, 7
    day.pass_until(2 * HOUR_S, updates)
    assert not updates.is_offline
    assert updates.revision.number == 7
    assert [line.partition(":")[0] for line in told] == ["warning", "info"]
    gaps = {b - a for a, b in zip(day.looked_s[-3:], day.looked_s[-2:], strict=False)}
    assert gaps == {TTL_S}


def test_a_mount_that_began_offline_looks_soon() -> None:
    day = Day()
    updates = Updates(revision(1)._replace(is_offline=True), day, clock=day.clock)
    assert updates.expires_in_s() == TTL_AFTER_FAILURE_S
    day.now_s = TTL_AFTER_FAILURE_S
    assert updates.check_if_due() is Outcome.UP_TO_DATE
    assert updates.expires_in_s() == TTL_S


def test_what_cannot_be_shown_leaves_what_is_shown() -> None:
    day = Day()
    updates = day.updates()
    day.head, day.refusal = 2, TransferError("a catalog is missing")
    assert updates.check_now() is Outcome.FAILED
    assert updates.revision.number == 1
    day.refusal = None
    day.pass_until(TTL_AFTER_FAILURE_S, updates)
    assert updates.revision.number == 2


def test_a_day_of_everything(told: list[str]) -> None:
    day = Day()
    updates = day.updates(max_ttl_s=600)
    for hour in range(24):
        day.head = hour + 1
        day.error = {
            5: TransferError("the site is cut off"),
            6: TransferError("the site is cut off"),
            12: RollbackError("the replica lags behind"),
        }.get(hour)
        day.pass_until((hour + 1) * HOUR_S, updates)
        expected = {5: 5, 6: 5, 12: 12}.get(hour, hour + 1)
        assert updates.revision.number == expected
        assert updates.is_offline == (day.error is not None)
    assert day.shown == [n for n in range(2, 25) if n not in (6, 7, 13)]
    assert len(told) == 4, "two failures, two returns"


def test_no_automatic_look_without_auto_update() -> None:
    day = Day()
    updates = day.updates(is_automatic=False)
    day.head = 2
    day.pass_until(DAY_S, updates, step_s=HOUR_S)
    assert day.looked_s == []
    assert updates.expires_in_s() is None
    assert updates.check_now() is Outcome.APPLIED


def test_without_its_root_catalog_a_mount_looks_soon() -> None:
    class Lost(Day):
        def ttl_s(self) -> int | None:
            raise TransferError("nobody has it")

    assert Lost().updates().expires_in_s() == TTL_AFTER_FAILURE_S


def test_a_catalog_that_is_missing_makes_it_urgent_but_not_all_the_time() -> None:
    day = Alert(ttl_s=DAY_S)
    updates = day.updates()
    updates.hurry()
    assert day.looked_s == []
    day.now_s = HOUR_S
    updates.hurry()
    assert day.looked.acquire(timeout=30)
    updates.close()
    assert day.looked_s == [HOUR_S]


def test_a_fixed_revision_is_never_left() -> None:
    day = Day()
    updates = Updates(revision(1)._replace(is_fixed=True), day, clock=day.clock)
    day.head = 2
    assert updates.check_now() is Outcome.UP_TO_DATE
    assert (updates.expires_in_s(), day.looked_s) == (None, [])


def test_a_full_disk_and_our_own_mistakes_have_their_own_words() -> None:
    day = Day()
    updates = day.updates()
    day.error = CacheError("no room")
    day.error.__cause__ = OSError(28, "No space left on device")
    assert updates.check_now().value == "Failed (no space)"
    day.error = ZeroDivisionError()  # type: ignore[assignment]
    assert updates.check_now().value == "internal error"
    assert updates.revision.number == 1


def test_a_thread_looks_when_it_is_due_and_when_the_time_is_changed() -> None:
    day = Alert()
    updates = day.updates()
    day.now_s = TTL_S
    updates.begin()
    updates.begin()
    assert day.looked.acquire(timeout=30)
    day.now_s += 100
    updates.set_max_ttl(50)
    assert day.looked.acquire(timeout=30)
    assert len(day.looked_s) == 2


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, {"file": b"1"}, ttl_s=77)


class Mounted:
    """A client that shows a repository to a kernel."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.kernel = KernelModel(client.file_system())
        client.follow(self.kernel.file_system, self.kernel)

    def check(self) -> Outcome:
        return self.client.updates.check_now()

    def content(self) -> bytes:
        inode = self.kernel.resolve(b"file")
        assert inode is not None
        return bytes(self.kernel.file_system.read(inode, 0, 99))


@pytest.fixture
def mounted(tmp_path: Path, repository: PublishedRepository) -> Iterator[Mounted]:
    url = f"file://{repository.output}"
    with open_client(
        tmp_path, repository, url, CVMFS_BLACKLIST=str(tmp_path / "blacklist")
    ) as client:
        yield Mounted(client)


def test_the_root_catalog_says_how_long(mounted: Mounted) -> None:
    expires_in_s = mounted.client.updates.expires_in_s()
    assert expires_in_s is not None
    assert 0 < expires_in_s <= 77


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("CVMFS_AUTO_UPDATE", "no"), ("CVMFS_REPOSITORY_TAG", "first")],
)
def test_some_mounts_never_look(tmp_path: Path, parameter: str, value: str) -> None:
    repository = publish_tree(tmp_path, {"file": b"1"}, tag="first")
    url = f"file://{repository.output}"
    with open_client(tmp_path, repository, url, **{parameter: value}) as client:  # type: ignore[arg-type]
        publish_tree(tmp_path, {"file": b"2"})
        assert client.updates.expires_in_s() is None
        assert client.updates.check_if_due() is None
        assert client.revision.number == 1


def test_a_new_revision_is_shown_and_told(
    tmp_path: Path, mounted: Mounted, told: list[str]
) -> None:
    assert mounted.content() == b"1"
    publish_tree(tmp_path, {"file": b"2"})
    assert mounted.check() is Outcome.APPLIED
    assert (mounted.content(), mounted.client.revision.number) == (b"2", 2)
    assert told == ["info: switched to catalog revision 2"]


def test_a_replica_that_goes_back_is_not_followed(
    tmp_path: Path, repository: PublishedRepository, mounted: Mounted
) -> None:
    manifest = repository.directory / ".cvmfspublished"
    old = manifest.read_bytes()
    publish_tree(tmp_path, {"file": b"2"})
    assert mounted.check() is Outcome.APPLIED
    manifest.write_bytes(old)
    assert mounted.check() is Outcome.FAILED
    assert mounted.content() == b"2"


def test_nothing_forged_is_shown(
    tmp_path: Path, repository: PublishedRepository, mounted: Mounted
) -> None:
    publish_tree(tmp_path, {"file": b"2"})
    manifest = repository.directory / ".cvmfspublished"
    good = manifest.read_bytes()
    manifest.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert mounted.check() is Outcome.FAILED
    assert mounted.content() == b"1"
    manifest.write_bytes(good)
    assert mounted.check() is Outcome.APPLIED
    assert mounted.content() == b"2"


def test_a_revision_with_a_missing_catalog_is_not_shown_half(
    tmp_path: Path, repository: PublishedRepository, mounted: Mounted
) -> None:
    publish_tree(tmp_path, {"file": b"2", "d": {".cvmfscatalog": b"", "f": b"1"}})
    mounted.check()
    assert mounted.kernel.resolve(b"d/f") is not None
    before = set((repository.directory / "data").glob("*/*C"))
    newest = publish_tree(
        tmp_path, {"file": b"3", "d": {".cvmfscatalog": b"", "f": b"2"}}
    )
    made = set((repository.directory / "data").glob("*/*C")) - before
    nested = {path: path.read_bytes() for path in made}
    root = str(newest.manifest.root_catalog)
    for path in nested:
        if not f"{path.parent.name}{path.name}".startswith(root):
            path.unlink()
    assert mounted.check() is Outcome.FAILED
    assert mounted.content() == b"2"
    for path, content in nested.items():
        path.write_bytes(content)
    assert mounted.check() is Outcome.APPLIED
    assert mounted.content() == b"3"


def test_a_blacklisted_revision_is_refused_until_there_is_another(
    tmp_path: Path, mounted: Mounted
) -> None:
    (tmp_path / "blacklist").write_text(f"<{FQRN} 2\n")
    assert mounted.check() is Outcome.FAILED
    assert mounted.kernel.refusal is not None
    publish_tree(tmp_path, {"file": b"2"})
    assert mounted.check() is Outcome.APPLIED
    assert mounted.kernel.refusal is None


def test_what_another_session_has_found_is_believed(
    tmp_path: Path, repository: PublishedRepository, mounted: Mounted
) -> None:
    publish_tree(tmp_path, {"file": b"2"})
    with open_client(tmp_path, repository, f"file://{repository.output}") as other:
        assert other.revision.number == 2
    assert mounted.check() is Outcome.APPLIED
    assert mounted.content() == b"2"
