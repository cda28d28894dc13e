"""An alien cache: its layout, its neighbours, its limit."""

import errno
import itertools
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cvmfsexec import log
from cvmfsexec.cache import alien_layout, lease, tidying
from cvmfsexec.cache.alien import AlienStore
from cvmfsexec.cache.contents import PREFIXES
from cvmfsexec.cache.pending import PendingFile
from cvmfsexec.cache.verification import is_confirmed
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from tests.support.file_systems import Lack, file_system, is_pending
from tests.support.store_contract import content_of, put
from tests.support.system_calls import fail_calls, run_and_die_at

CONTENT = b"right\n" * 100
NAME = ContentHash.of(zlib.compress(CONTENT, 6))
LONG_AGO_S = 1_000_000_000
ORIGINALS = {"quarantaine", "txn", ".cvmfscache"}


class Users:
    """Users of one alien cache, each with a workspace."""

    def __init__(self, top: Path) -> None:
        self.alien = top / "alien"
        self._top = top
        self._stores: list[AlienStore] = []

    def user(self, name: str = "one", limit_bytes: int = 0) -> AlienStore:
        store = AlienStore.open(str(self.alien), str(self._top / name), limit_bytes)
        self._stores.append(store)
        return store

    def close(self) -> None:
        while self._stores:
            self._stores.pop().close()


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    made = Users(tmp_path)
    yield made
    made.close()


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *rest: said.append(text % rest))
    return said


def names_beside_objects(users: Users) -> set[str]:
    return {path.name for path in users.alien.iterdir()} - set(PREFIXES)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_modes_are_the_originals_whatever_the_umask(users: Users, umask: int) -> None:
    before = os.umask(umask)
    try:
        os.close(put(users.user(), NAME, CONTENT))
    finally:
        os.umask(before)
    path = users.alien / NAME.cache_path()
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o7777 == 0o660
    assert path.parent.stat().st_mode & 0o7777 == 0o770
    assert users.alien.stat().st_mode & 0o7777 == 0o770
    for name in ("quarantaine", "txn", *PREFIXES):
        assert (users.alien / name).stat().st_mode & 0o7777 == 0o770
    assert (users.alien / ".cvmfscache").stat().st_mode & 0o7777 == 0o600
    assert os.umask(before) == before


def test_files_under_way_that_have_names_are_of_these_modes_too(users: Users) -> None:
    with file_system(Lack.UNNAMED_FILES):
        store = users.user()
        os.close(put(store, NAME, CONTENT))
    path = users.alien / NAME.cache_path()
    assert path.stat().st_mode & 0o7777 == 0o660
    assert (users.alien / "txn").stat().st_mode & 0o7777 == 0o770
    assert list((users.alien / "txn").iterdir()) == []


def test_a_setgid_bit_is_passed_on(users: Users) -> None:
    users.alien.mkdir()
    users.alien.chmod(0o2770)
    os.close(put(users.user(), NAME, CONTENT))
    parent = (users.alien / NAME.cache_path()).parent
    assert parent.stat().st_mode & 0o7777 == 0o2770


def test_only_objects_lie_in_it(users: Users) -> None:
    store = users.user(limit_bytes=1 << 20)
    with store.claim(NAME, patience_s=0):
        os.close(put(store, NAME, CONTENT))
    assert content_of(store.open_object(NAME)) == CONTENT
    store.pin(NAME).release()
    assert names_beside_objects(users) == ORIGINALS


def test_an_object_of_the_original_client_is_used(users: Users) -> None:
    store = users.user()
    path = users.alien / NAME.cache_path()
    path.write_bytes(CONTENT)
    assert store.has(NAME)
    assert content_of(store.open_object(NAME)) == CONTENT


def test_a_wrong_object_is_absent_and_then_replaced(
    users: Users, warnings: list[str]
) -> None:
    one, two = users.user("one"), users.user("two")
    os.close(put(one, NAME, CONTENT))
    path = users.alien / NAME.cache_path()
    path.write_bytes(b"wrong")
    for store in (one, two):
        assert store.open_object(NAME) is None
    os.close(put(two, NAME, CONTENT))
    assert path.read_bytes() == CONTENT
    assert content_of(one.open_object(NAME)) == CONTENT
    assert len(warnings) == 1
    assert "is damaged; replaced" in warnings[0]


def test_an_unconfirmed_but_right_object_stays(
    users: Users, warnings: list[str]
) -> None:
    name = ContentHash.of(zlib.compress(CONTENT, 9))
    assert name != NAME
    path = users.alien / name.cache_path()
    one = users.user("one")
    path.write_bytes(CONTENT)
    inode = path.stat().st_ino
    assert one.open_object(name) is None
    os.close(put(one, name, CONTENT))
    assert path.stat().st_ino == inode
    assert content_of(one.open_object(name)) == CONTENT
    assert warnings == []


def test_what_is_put_in_the_way_of_an_object_is_replaced(
    users: Users, warnings: list[str], tmp_path: Path
) -> None:
    store = users.user()
    precious = tmp_path / "precious"
    precious.write_bytes(b"of the user")
    path = users.alien / NAME.cache_path()
    path.symlink_to(precious)
    assert store.open_object(NAME) is None
    os.close(put(store, NAME, CONTENT))
    assert path.read_bytes() == CONTENT
    assert precious.read_bytes() == b"of the user"
    assert warnings


def test_descriptors_are_of_copies(users: Users) -> None:
    store = users.user()
    path = users.alien / NAME.cache_path()
    for descriptor in (put(store, NAME, CONTENT), store.open_object(NAME)):
        assert descriptor is not None
        assert os.fstat(descriptor).st_ino != path.stat().st_ino
        path.write_bytes(b"x" * len(CONTENT))
        assert content_of(descriptor) == CONTENT
        path.write_bytes(CONTENT)


def test_a_catalog_has_a_name_in_the_workspace(users: Users, tmp_path: Path) -> None:
    content = b"SQLite format 3\0" + bytes(5000)
    name = ContentHash.of(zlib.compress(content, 6))
    store = users.user()
    own = str(tmp_path / "one" / name.cache_path())
    descriptor = put(store, name, content)
    assert os.readlink(f"/proc/self/fd/{descriptor}") == own
    assert content_of(descriptor) == content
    again = users.user()
    descriptor_again = again.open_object(name)
    assert os.readlink(f"/proc/self/fd/{descriptor_again}") == own
    assert content_of(descriptor_again) == content
    again.remove(name)
    assert not os.path.exists(own)
    assert again.open_object(name) is None


def test_a_workspace_that_others_can_write_is_refused(
    users: Users, tmp_path: Path
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one").chmod(0o770)
    with pytest.raises(CacheError, match="other users can write"):
        users.user("one")


def test_beyond_its_limit_the_oldest_objects_go(users: Users) -> None:
    filler = users.user()
    contents = [os.urandom(10_000) for _ in range(50)]
    names = [ContentHash.of(zlib.compress(content, 6)) for content in contents]
    for number, (name, content) in enumerate(zip(names, contents, strict=True)):
        os.close(put(filler, name, content))
        path = users.alien / name.cache_path()
        os.utime(path, (LONG_AGO_S + number, LONG_AGO_S + number))
    # An old one that is used again is among the last to go.
    limited = AlienStore.open(str(users.alien), str(users.alien) + ".own", 300_000)
    assert content_of(limited.open_object(names[0])) == contents[0]
    os.close(put(limited, NAME, CONTENT))
    limited.close()
    kept = [number for number, name in enumerate(names) if filler.has(name)]
    assert len(kept) * 10_000 <= 300_000 * 3 // 4
    assert kept[0] == 0
    assert kept[1:] == list(range(50 - len(kept) + 1, 50))
    assert not list(users.alien.glob("cvmfsexec.lease*"))


def test_links_do_not_lead_who_tidies_up_elsewhere(
    users: Users, tmp_path: Path
) -> None:
    git = tmp_path / "git" / "ab"
    git.mkdir(parents=True)
    for number in range(10):
        (git / f"{number:038x}").write_bytes(bytes(100_000))
        os.utime(git / f"{number:038x}", (LONG_AGO_S, LONG_AGO_S))
    limited = users.user(limit_bytes=100_000)
    for directory in ("ab", "txn"):
        (users.alien / directory).rmdir()
        (users.alien / directory).symlink_to(git)
    for _ in range(20):
        content = os.urandom(10_000)
        name = ContentHash.of(zlib.compress(content, 6))
        if not str(name).startswith("ab"):
            os.close(put(limited, name, content))
    limited._tidying.close()
    assert len(list(git.iterdir())) == 10


def test_without_a_limit_nothing_goes(users: Users) -> None:
    store = users.user()
    os.close(put(store, NAME, CONTENT))
    os.utime(users.alien / NAME.cache_path(), (LONG_AGO_S, LONG_AGO_S))
    assert content_of(store.open_object(NAME)) == CONTENT
    status = (users.alien / NAME.cache_path()).stat()
    assert status.st_mtime == LONG_AGO_S


def test_large_objects_are_no_burden_for_memory(users: Users) -> None:
    content = CONTENT * 10_000
    name = ContentHash.of(zlib.compress(content, 6))
    store = users.user()
    descriptor = put(store, name, content)
    assert not os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")
    assert is_confirmed(descriptor, name)
    os.close(descriptor)


# -- the original's layout ------------------------------------------------------------


def test_the_original_never_takes_a_part_for_the_whole(users: Users) -> None:
    """It looks for ``ff`` alone, and makes nothing if that is there."""
    for call_number in (*range(1, 9), *range(9, 250, 60), *range(255, 300)):
        shutil.rmtree(users.alien, ignore_errors=True)
        has_died = run_and_die_at(call_number, partial(make_layout, users.alien))
        if (users.alien / "ff").exists():
            made = {path.name for path in users.alien.iterdir()}
            assert made >= {"quarantaine", "txn", *PREFIXES}
        modes = {path.stat().st_mode & 0o777 for path in users.alien.glob("*")}
        assert modes <= {0o770, 0o600}
        if not has_died:
            break
        os.close(alien_layout.open_layout(str(users.alien)))
        assert {path.name for path in users.alien.iterdir()} == ORIGINALS | set(
            PREFIXES
        )
    assert call_number > 256


def make_layout(path: Path) -> None:
    os.close(alien_layout.open_layout(str(path)))


def test_what_the_original_has_made_is_left_as_it_is(users: Users) -> None:
    """As by an administrator with other ideas of modes."""
    for name in ("quarantaine", "txn", *PREFIXES):
        (users.alien / name).mkdir(parents=True)
        (users.alien / name).chmod(0o2775)
    os.close(put(users.user(), NAME, CONTENT))
    modes = {path.stat().st_mode & 0o7777 for path in users.alien.glob("??")}
    assert modes == {0o2775}
    assert not (users.alien / ".cvmfscache").exists()


# -- faults ---------------------------------------------------------------------------


def test_a_file_under_way_that_others_removed_is_no_reason_to_rest(
    users: Users, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where locks are seen on one node only, others take it for a dead one's."""
    store = users.user()
    keep = store._pending.keep

    def remove_and_keep(file: PendingFile, path: str) -> bool:
        monkeypatch.setattr(store._pending, "keep", keep)
        for pending in (users.alien / "txn").iterdir():
            pending.unlink()
        return keep(file, path)

    with file_system(Lack.UNNAMED_FILES):
        monkeypatch.setattr(store._pending, "keep", remove_and_keep)
        assert content_of(put(store, NAME, CONTENT)) == CONTENT
        assert content_of(put(store, NAME, CONTENT)) == CONTENT
    assert (users.alien / NAME.cache_path()).read_bytes() == CONTENT
    assert warnings == []


def test_what_cannot_be_read_is_absent(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = users.user("one"), users.user("two")
    os.close(put(one, NAME, CONTENT))
    held = os.open(users.alien / NAME.cache_path(), os.O_RDONLY)
    inode = os.fstat(held).st_ino
    fail_calls(
        monkeypatch, "pread", errno.EIO, lambda fd, *_: os.fstat(fd).st_ino == inode
    )
    assert two.open_object(NAME) is None
    assert not two.has(NAME)
    assert content_of(put(two, NAME, CONTENT)) == CONTENT
    monkeypatch.undo()
    assert (users.alien / NAME.cache_path()).stat().st_ino != inode
    os.close(held)
    assert content_of(two.open_object(NAME)) == CONTENT


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_without_room_objects_are_read_and_one_warning_says_so(
    users: Users, warnings: list[str], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    store = users.user()
    large = CONTENT * 5000
    fail_calls(monkeypatch, "open", error, is_pending)
    for number, content in enumerate((CONTENT, large, CONTENT)):
        name = ContentHash.of(b"%d" % number)
        assert content_of(put(store, name, content)) == content
        assert store.open_object(name) is None
        with store.claim(name, patience_s=60) as is_ours:
            assert not is_ours
    assert len(warnings) == 1
    assert os.strerror(error) in warnings[0]


def test_a_workspace_that_is_full_is_no_reason_not_to_read(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a full ``/tmp``: what is verified goes to memory in the end."""
    content = os.urandom(3_000_000)
    name = ContentHash.of(zlib.compress(content, 6))
    one, two = users.user("one"), users.user("two")
    os.close(put(one, name, content))

    def is_on_disk(descriptor: int, *_: object) -> bool:
        return not os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")

    fail_calls(monkeypatch, "write", errno.ENOSPC, is_on_disk)
    assert content_of(two.open_object(name)) == content
    with two.transaction() as transaction:
        for start in range(0, len(content), 100_000):
            transaction.write(content[start : start + 100_000])
        assert content_of(transaction.commit(name)) == content


# -- tidying up -----------------------------------------------------------------------


def fill(users: Users, count: int, size_bytes: int) -> list[Path]:
    store = users.user("filler")
    paths = []
    for number in range(count):
        content = os.urandom(size_bytes)
        name = ContentHash.of(zlib.compress(content, 6))
        os.close(put(store, name, content))
        paths.append(users.alien / name.cache_path())
        os.utime(paths[-1], (LONG_AGO_S + number, LONG_AGO_S + number))
    return paths


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_what_cannot_be_removed_does_not_save_the_rest(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the directory of one user does not let others in, or is sticky."""
    paths = fill(users, 20, 10_000)
    stubborn = {path.name for path in paths[:3]}
    fail_calls(monkeypatch, "unlink", errno.EPERM, lambda path, **_: path in stubborn)
    directory = opened(users.alien)
    assert tidying.tidy_directory(directory, 100_000)
    os.close(directory)
    left = [path for path in paths if path.exists()]
    assert left[:3] == paths[:3]
    assert len(left) * 10_000 <= 75_000


@pytest.mark.parametrize("ahead_s", [3600, 10 * 86_400])
def test_a_time_in_the_future_keeps_nothing_for_ever(
    users: Users, ahead_s: float
) -> None:
    paths = fill(users, 20, 10_000)
    ahead = time.time() + ahead_s
    for path in paths[:15]:
        os.utime(path, (ahead, ahead))
    directory = opened(users.alien)
    assert tidying.tidy_directory(directory, 100_000)
    os.close(directory)
    is_plausible = ahead_s < 86_400
    assert all(path.exists() for path in paths[15:]) is not is_plausible
    assert sum(path.exists() for path in paths) * 10_000 <= 75_000


def test_who_dies_while_tidying_up_leaves_it_to_the_next(users: Users) -> None:
    for call_number in itertools.count(1, 40):
        shutil.rmtree(users.alien, ignore_errors=True)
        users.close()
        paths = fill(users, 12, 1000)
        directory = opened(users.alien)
        has_died = run_and_die_at(
            call_number, partial(tidying.tidy_directory, directory, 8000)
        )
        for left in users.alien.glob(f"{lease.FILE_NAME}*"):
            os.utime(left, (0, 0))
        if sum(path.exists() for path in paths) > 8:
            assert tidying.tidy_directory(directory, 8000)
            assert not list(users.alien.glob(f"{lease.FILE_NAME}*"))
        assert sum(path.exists() for path in paths) <= 8
        assert paths[-1].exists()
        os.close(directory)
        if not has_died:
            break
    assert call_number > 7


@pytest.mark.parametrize("lack", [Lack.NOTHING, Lack.UNNAMED_FILES])
def test_who_dies_while_storing_leaves_nothing_to_trip_over(
    users: Users, lack: Lack
) -> None:
    catalog = b"SQLite format 3\0" + bytes(5000)
    objects = {NAME: CONTENT, ContentHash.of(zlib.compress(catalog, 6)): catalog}

    def work() -> None:
        store = users.user("one")
        for name, content in objects.items():
            with store.claim(name, patience_s=60):
                assert content_of(put(store, name, content)) == content
        store.close()

    def check() -> None:
        store = users.user("two")
        for name, content in objects.items():
            descriptor = store.open_object(name)
            assert descriptor is None or content_of(descriptor) == content
        store.close()
        own = users.user("one")
        for name, content in objects.items():
            with own.claim(name, patience_s=0) as is_ours:
                assert is_ours
            assert content_of(put(own, name, content)) == content
            assert content_of(own.open_object(name)) == content
        own.close()

    with file_system(lack):
        for call_number in itertools.count(250, 3):  # the layout has tests of its own
            shutil.rmtree(users.alien, ignore_errors=True)
            has_died = run_and_die_at(call_number, work)
            assert not run_and_die_at(0, check)
            assert not list(users.alien.glob("txn/*"))
            if not has_died:
                break
        assert call_number > 280
