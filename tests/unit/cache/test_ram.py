"""The cache in memory: shared by a user's sessions, gone with the last one."""

import os
import signal
import threading
from pathlib import Path

import pytest

from cvmfsexec import session
from cvmfsexec.cache import ram
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.ram import RamStore, place_of, remove_unused
from cvmfsexec.diagnosis.leftovers import find_unused_memory, remove
from cvmfsexec.errors import CacheError
from tests.support.store_contract import CONTENT, NAME, content_of, put

UID = 1234
LIMIT_BYTES = 1 << 30


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "shm"
    path.mkdir()
    return path


def opened(memory: Path) -> RamStore:
    return RamStore.open_for(UID, LIMIT_BYTES, str(memory))


def test_sessions_share_it_and_the_last_one_removes_it(memory: Path) -> None:
    one, two = opened(memory), opened(memory)
    os.close(put(one, NAME, CONTENT))
    assert content_of(two.open_object(NAME)) == CONTENT
    one.close()
    assert content_of(two.open_object(NAME)) == CONTENT
    assert not remove_unused(place_of(UID, str(memory)))
    two.close()
    assert list(memory.iterdir()) == []


def test_an_open_object_outlives_it(memory: Path) -> None:
    store = opened(memory)
    descriptor = put(store, NAME, CONTENT)
    store.close()
    assert list(memory.iterdir()) == []
    assert content_of(descriptor) == CONTENT


def test_it_is_the_users_alone(memory: Path) -> None:
    before = os.umask(0)
    try:
        store = opened(memory)
    finally:
        os.umask(before)
    assert Path(place_of(UID, str(memory))).stat().st_mode & 0o7777 == 0o700
    store.close()


def test_what_the_killed_have_left_is_used_and_removed(memory: Path) -> None:
    child = os.fork()
    if child == 0:
        store = opened(memory)
        os.close(put(store, NAME, CONTENT))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    store = opened(memory)
    assert content_of(store.open_object(NAME)) == CONTENT
    store.close()
    assert list(memory.iterdir()) == []


def test_doctor_tells_of_what_nobody_uses(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(UID, str(memory))
    monkeypatch.setattr(ram, "place_of", lambda *_: place)
    assert list(find_unused_memory(UID)) == []
    store = opened(memory)
    assert list(find_unused_memory(UID)) == []
    DirectoryStore.close(store)  # as if it had been killed
    os.close(store._use)
    (leftover,) = find_unused_memory(UID)
    assert place in leftover.text
    assert remove(leftover) == ""
    assert list(memory.iterdir()) == []


def test_what_was_renamed_and_not_removed_goes_with_the_next(memory: Path) -> None:
    half = memory / f"cvmfsexec.{UID}.removed.0123"
    (half / "ab").mkdir(parents=True)
    (half / "ab/cd").write_bytes(b"x")
    stranger = memory / f"cvmfsexec.{UID + 1}.removed.0123"
    stranger.mkdir()
    opened(memory).close()
    assert list(memory.iterdir()) == [stranger]


@pytest.mark.parametrize("mode", [0o770, 0o777])
def test_a_place_that_others_can_write_is_refused_and_left(
    memory: Path, mode: int
) -> None:
    place = Path(place_of(UID, str(memory)))
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(CacheError, match="other users can write"):
        opened(memory)
    assert place.exists()


def test_a_link_in_its_place_is_not_followed(memory: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    (precious / "00").mkdir()
    place = Path(place_of(UID, str(memory)))
    place.symlink_to(precious)
    with pytest.raises(CacheError):
        opened(memory)
    assert not remove_unused(str(place))
    assert (precious / "00").exists()


def test_without_such_memory_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="No such file"):
        opened(tmp_path / "nothing")


def test_what_who_was_killed_had_renamed_is_removed_by_any_session(
    memory: Path,
) -> None:
    place = place_of(UID, str(memory))
    Path(f"{place}.removed.0123/ab").mkdir(parents=True)
    assert not remove_unused(place)
    assert list(memory.iterdir()) == []


def test_many_may_come_and_go_at_once(memory: Path) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(40):
                store = opened(memory)
                assert content_of(put(store, NAME, CONTENT)) == CONTENT
                assert content_of(store.open_object(NAME)) == CONTENT
                store.close()
        except Exception as error:  # noqa: BLE001 -- told below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(memory.iterdir()) == []


def test_sessions_look_for_it_where_it_is() -> None:
    assert session.CACHE_IN_MEMORY.format(UID) == place_of(UID)
    assert ram.MEMORY == "/dev/shm"
