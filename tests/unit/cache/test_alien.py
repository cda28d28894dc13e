"""An alien cache: its layout, its neighbours, its limit."""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec import log
from cvmfsexec.cache.alien import AlienStore
from cvmfsexec.cache.verification import is_confirmed
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash
from tests.support.file_systems import Lack, file_system
from tests.support.store_contract import content_of, put

CONTENT = b"right\n" * 100
NAME = ContentHash.of(zlib.compress(CONTENT, 6))
LONG_AGO_S = 1_000_000_000


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
        for store in self._stores:
            store.close()


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
    assert {path.name for path in users.alien.iterdir()} == {str(NAME)[:2]}


def test_an_object_of_the_original_client_is_used(users: Users) -> None:
    store = users.user()
    path = users.alien / NAME.cache_path()
    path.parent.mkdir()
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
    path.parent.mkdir()
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
    path.parent.mkdir()
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
    (users.alien / "ab").symlink_to(git)
    (users.alien / "txn").symlink_to(git)
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
