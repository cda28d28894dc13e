"""What is wrong in a cache directory is found, told, and mended on request."""

import os
import socket
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.faults import Fault, Problem, Remedy, Tally
from cvmfsexec.cache.inspection import PARTS, TOP, Inspector
from cvmfsexec.cache.inspectors import inspect_all
from cvmfsexec.cache.pending import PendingFiles
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from tests.support.store_contract import put
from tests.support.system_calls import fail_calls

CONTENT = b"".join(b"line %d\n" % number for number in range(2_000))
NAME = ContentHash.of(zlib.compress(CONTENT, 6))
PATH = NAME.cache_path()

REPAIR = Remedy(repairs=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(root: Path) -> Iterator[DirectoryStore]:
    with closing(DirectoryStore.open(str(root))) as store:
        yield store


@pytest.fixture
def cached(root: Path, store: DirectoryStore) -> Path:
    """Return the path of a sound object."""
    os.close(put(store, NAME, CONTENT))
    return root / PATH


LOOK = Remedy()


def inspect(
    root: Path, remedy: Remedy = LOOK, in_use: frozenset[ContentHash] = frozenset()
) -> Tally:
    """Inspect everything in this process; return the sum."""
    with closing(Inspector(str(root), remedy, in_use)) as inspector:
        tallies = [inspector.inspect(part) for part in PARTS]
    return total(tallies)


def total(tallies: list[Tally]) -> Tally:
    counts, sizes, faults, foreign = zip(*tallies, strict=True)
    return Tally(
        sum(counts),
        sum(sizes),
        tuple(fault for part in faults for fault in part),
        tuple(path for part in foreign for path in part),
    )


def only_fault(tally: Tally) -> Fault:
    assert len(tally.faults) == 1, tally.faults
    return tally.faults[0]


# What is sound


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("pack", [bytes, zlib.compress], ids=["plain", "zlib"])
def test_sound_objects_are_no_faults(
    root: Path,
    store: DirectoryStore,
    algorithm: HashAlgorithm,
    pack: Callable[[bytes], bytes],
) -> None:
    os.close(put(store, ContentHash.of(pack(CONTENT), algorithm), CONTENT))
    assert inspect(root) == Tally(1, len(CONTENT), (), ())


def test_empty_object_is_sound_if_its_name_says_so(
    root: Path, store: DirectoryStore
) -> None:
    os.close(put(store, ContentHash.of(zlib.compress(b"")), b""))
    assert inspect(root).faults == ()


def test_empty_directory_is_sound(root: Path) -> None:
    root.mkdir(0o700)
    assert inspect(root, REPAIR) == Tally(0, 0, (), ())
    assert list(root.iterdir()) == []


def test_files_of_other_clients_are_known(root: Path) -> None:
    root.mkdir(0o700)
    for name in ("cachedb", "lock_cachedb", "running.a.b", "uuid", ".cvmfscache"):
        (root / name).touch()
    assert inspect(root).foreign == ()


@given(content=st.binary(max_size=3000), is_packed=st.booleans())
def test_whatever_was_published_is_sound(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, *, is_packed: bool
) -> None:
    root = tmp_path_factory.mktemp("cache")
    root.chmod(0o700)
    stored = zlib.compress(content, 6) if is_packed else b"as it is: " + content
    name = ContentHash.of(stored)
    path = root / name.cache_path()
    path.parent.mkdir(0o700)
    path.write_bytes(content if is_packed else stored)
    path.chmod(0o600)
    assert inspect(root).faults == ()


# What is corrupt

CORRUPT = pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(CONTENT[:-1], id="short"),
        pytest.param(CONTENT + b"\0", id="long"),
        pytest.param(CONTENT[:100] + b"\x01" + CONTENT[101:], id="flipped"),
        pytest.param(zlib.compress(CONTENT, 6), id="compressed"),
    ],
)


@CORRUPT
def test_corrupt_object_is_told_and_stays(cached: Path, content: bytes) -> None:
    cached.write_bytes(content)
    fault = only_fault(inspect(cached.parents[1]))
    assert fault[:2] == (PATH, Problem.CORRUPT)
    assert not fault.is_fixed
    assert cached.read_bytes() == content


@CORRUPT
def test_corrupt_object_is_removed_on_request(cached: Path, content: bytes) -> None:
    cached.write_bytes(content)
    tally = inspect(cached.parents[1], REPAIR)
    assert only_fault(tally).is_fixed
    assert not cached.exists()
    assert inspect(cached.parents[1]).faults == ()


def test_corrupt_object_is_kept_aside_on_request(root: Path, cached: Path) -> None:
    cached.write_bytes(b"spoilt")
    keep = Remedy(repairs=True, keeps_corrupt=True)
    for _ in range(2):
        inspect(root, keep)
        kept = root / "quarantaine" / str(NAME)
        assert kept.read_bytes() == b"spoilt"
        tally = inspect(root, keep)
        assert (tally.faults, tally.foreign) == ((), (f"quarantaine/{NAME}",))
        cached.write_bytes(b"spoilt")


def test_corrupt_object_in_use_is_told_to_be(root: Path, cached: Path) -> None:
    cached.write_bytes(b"spoilt")
    fault = only_fault(inspect(root, REPAIR, frozenset({NAME})))
    assert (fault.is_in_use, fault.is_fixed) == (True, True)


def test_object_that_was_replaced_meanwhile_stays(
    root: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.write_bytes(b"spoilt")
    stat_path = os.stat

    def replace_and_stat(path: str, **arguments: object) -> os.stat_result:
        if path == PATH:
            sound = root / "sound"
            sound.write_bytes(CONTENT)
            sound.rename(cached)
        return stat_path(path, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", replace_and_stat)
    inspect(root, REPAIR)
    assert cached.read_bytes() == CONTENT


def test_unreadable_object_is_a_fault(
    root: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_calls(patch, "pread", 5)
        fault = only_fault(inspect(root, REPAIR))
    assert (fault.problem, fault.is_fixed) == (Problem.UNREADABLE, True)
    assert not cached.exists()


def test_what_cannot_be_removed_is_not_fixed(
    root: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.write_bytes(b"spoilt")
    fail_calls(monkeypatch, "unlink", 30)
    fault = only_fault(inspect(root, REPAIR))
    assert not fault.is_fixed
    assert "Read-only file system" in fault.detail


# What is no object


def test_names_that_are_none_are_foreign_and_stay(root: Path) -> None:
    root.mkdir(0o700)
    names = ["ab/notes", "notes", f"ab/{'f' * 39}", f"ab/{'0' * 38}-md5"]
    for name in names:
        (root / name).parent.mkdir(exist_ok=True, mode=0o700)
        (root / name).write_text("mine")
    tally = inspect(root, REPAIR)
    assert sorted(tally.foreign) == sorted(names)
    assert tally.faults == ()
    assert all((root / name).read_text() == "mine" for name in names)


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(path.parent)
        one.bind(path.name)


@pytest.mark.parametrize("make", [make_link, os.mkfifo, make_socket])
def test_what_is_called_like_an_object_and_is_no_file_is_removed(
    root: Path,
    cached: Path,
    make: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root)
    cached.unlink()
    make(cached)
    fault = only_fault(inspect(root))
    assert (fault.path, fault.problem) == (PATH, Problem.WRONG_TYPE)
    assert only_fault(inspect(root, REPAIR)).is_fixed
    assert not os.path.lexists(cached)


def test_directory_called_like_an_object_stays(root: Path, cached: Path) -> None:
    cached.unlink()
    cached.mkdir()
    (cached / "mine").touch()
    fault = only_fault(inspect(root, REPAIR))
    assert (fault.problem, fault.is_fixed) == (Problem.WRONG_TYPE, False)
    assert (cached / "mine").exists()


def test_links_to_other_places_are_not_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    (elsewhere / ("0" * 38)).write_bytes(b"mine")
    root.mkdir(0o700)
    (root / "00").symlink_to(elsewhere)
    inspect(root, REPAIR)
    assert (elsewhere / ("0" * 38)).read_bytes() == b"mine"


# Who can write


def test_modes_that_let_others_write_are_mended(root: Path, cached: Path) -> None:
    for path in (root, cached.parent, cached):
        path.chmod(path.stat().st_mode | stat.S_IWGRP | stat.S_IWOTH)
    found = inspect(root)
    assert {fault.problem for fault in found.faults} == {Problem.WRITABLE}
    assert {fault.path for fault in found.faults} == {".", PATH[:2], PATH}
    assert all(fault.is_fixed for fault in inspect(root, REPAIR).faults)
    assert inspect(root).faults == ()
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_object_of_somebody_else_is_removed(root: Path, cached: Path) -> None:
    os.chown(cached, 65534, 65534)
    assert only_fault(inspect(root)).problem is Problem.FOREIGN_OWNER
    assert only_fault(inspect(root, REPAIR)).is_fixed
    assert not cached.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_repairs_the_cache_of_a_user(root: Path, cached: Path) -> None:
    for path in (root, cached.parent, cached):
        os.chown(path, 65534, 65534)
    assert inspect(root, REPAIR).faults == ()
    assert cached.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_alien_cache_may_be_shared(root: Path, cached: Path) -> None:
    os.chown(cached, 65534, 65534)
    for path in (root, cached.parent, cached):
        path.chmod(0o770)
    assert inspect(root, Remedy(repairs=True, is_shared=True)).faults == ()
    cached.write_bytes(b"spoilt")
    fault = only_fault(inspect(root, Remedy(repairs=True, is_shared=True)))
    assert (fault.problem, fault.is_fixed) == (Problem.CORRUPT, True)


# What lies beside objects


def test_files_of_dead_processes_are_removed(root: Path) -> None:
    root.mkdir(0o700)
    os.mkdir(root / "txn", 0o700)
    (root / "txn/cvmfsexec.0123.1").write_bytes(b"half an obj")
    (root / "txn/fetchXYZ").write_bytes(b"of the original client")
    assert only_fault(inspect(root)).problem is Problem.LEFTOVER
    assert only_fault(inspect(root, REPAIR)).is_fixed
    assert [path.name for path in (root / "txn").iterdir()] == ["fetchXYZ"]


def test_files_under_way_stay(root: Path) -> None:
    root.mkdir(0o700)
    pending = PendingFiles(os.open(root, os.O_RDONLY))
    descriptor, name = pending._create_named()
    assert inspect(root, REPAIR).faults == ()
    assert (root / name).exists()
    os.close(descriptor)


@pytest.mark.parametrize("content", [b"", b"\0\0\0\0", b"0" * 40, b"x" * 500])
def test_damaged_breadcrumb_is_removed(root: Path, content: bytes) -> None:
    root.mkdir(0o700)
    crumb = root / "cvmfschecksum.test.example.org"
    crumb.write_bytes(content)
    assert only_fault(inspect(root)).problem is Problem.DAMAGED_RECORD
    assert only_fault(inspect(root, REPAIR)).is_fixed
    assert not crumb.exists()


def test_sound_breadcrumb_stays(root: Path) -> None:
    root.mkdir(0o700)
    crumb = root / "cvmfschecksum.test.example.org"
    crumb.write_bytes(f"{NAME}T1700000000R3".encode())
    assert inspect(root, REPAIR).faults == ()
    assert crumb.exists()


def test_what_is_no_directory_cannot_be_inspected(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(CacheError, match="cannot open"):
            Inspector(str(path), Remedy())


# Several processes


@pytest.mark.parametrize("count", [1, 2, 5])
def test_processes_find_what_one_finds(
    root: Path, store: DirectoryStore, count: int
) -> None:
    contents = [b"content %d" % number * 50 for number in range(100)]
    for number, content in enumerate(contents):
        name = ContentHash.of(zlib.compress(content, 6))
        os.close(put(store, name, b"spoilt" if number % 10 == 0 else content))
    (root / os.fsdecode(b"\xff")).touch()
    before = children()
    tally = total(list(inspect_all(str(root), Remedy(), frozenset(), count)))
    assert children() == before
    assert sorted(tally.faults) == sorted(inspect(root).faults)
    assert len(tally.faults) == 10
    assert tally[:2] == inspect(root)[:2]
    assert tally.foreign == (os.fsdecode(b"\xff"),)


def test_processes_end_when_nobody_listens(root: Path, store: DirectoryStore) -> None:
    for number in range(300):
        content = b"content %d" % number * 5000
        os.close(put(store, ContentHash.of(b"%d" % number), content))
    before = children()
    tallies = inspect_all(str(root), Remedy(), frozenset(), 3)
    for _ in range(3):
        next(tallies)
    assert len(children()) == len(before) + 3
    tallies.close()  # type: ignore[attr-defined]
    assert children() == before


def test_processes_end_when_the_first_is_killed(
    root: Path, store: DirectoryStore
) -> None:
    for number in range(300):
        content = b"content %d" % number * 5000
        os.close(put(store, ContentHash.of(b"%d" % number), content))
    outlet, inlet = os.pipe()
    pid = os.fork()
    if pid == 0:
        tallies = inspect_all(str(root), Remedy(), frozenset(), 3)
        next(tallies)
        os.write(inlet, " ".join(children()).encode())
        os.kill(os.getpid(), 9)
    os.close(inlet)
    os.waitpid(pid, 0)
    pids = os.read(outlet, 100).split()
    assert len(pids) == 3
    deadline_s = time.monotonic() + 30
    while any(is_alive(int(one)) for one in pids):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.close(outlet)


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_process_that_dies_is_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir(0o700)

    def die(_self: Inspector, part: str) -> Tally:
        if part != TOP:
            os.kill(os.getpid(), 9)
        return Tally(0, 0, (), ())

    monkeypatch.setattr(Inspector, "inspect", die)
    with pytest.raises(CacheError, match="ended early"):
        list(inspect_all(str(root), Remedy(), frozenset(), 2))


def test_error_of_a_process_is_raised(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir(0o700)

    def fail(_self: Inspector, part: str) -> Tally:
        if part != TOP:
            raise CacheError("no descriptor is left")
        return Tally(0, 0, (), ())

    monkeypatch.setattr(Inspector, "inspect", fail)
    with pytest.raises(CacheError, match="no descriptor is left"):
        list(inspect_all(str(root), Remedy(), frozenset(), 2))


def children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return set(file.read().split())
