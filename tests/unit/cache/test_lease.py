"""Leases: one at a time, taken over from the dead, by the clock of the files."""

import errno
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache import lease
from cvmfsexec.cache.lease import DURATION_S, FILE_NAME, Lease, Renewal
from tests.support.system_calls import fail_calls, run_and_die_at


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def age(path: Path, age_s: float) -> None:
    at_s = path.stat().st_mtime - age_s
    os.utime(path, (at_s, at_s))


def test_one_has_it_at_a_time(directory: int, tmp_path: Path) -> None:
    one, two = Lease(directory), Lease(directory)
    assert one.acquire()
    assert not two.acquire()
    assert one.renew()
    assert not two.renew()
    two.release()
    assert not two.acquire()
    one.release()
    assert two.acquire()
    two.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("age_s", [DURATION_S + 60, -DURATION_S - 60])
def test_what_was_not_renewed_is_taken_over(
    directory: int, tmp_path: Path, age_s: float
) -> None:
    one, two = Lease(directory), Lease(directory)
    assert one.acquire()
    age(tmp_path / FILE_NAME, age_s)
    assert two.acquire()
    assert not one.renew()
    one.release()
    assert two.renew()
    two.release()
    assert list(tmp_path.iterdir()) == []


def test_renewing_keeps_it(directory: int, tmp_path: Path) -> None:
    one, two = Lease(directory), Lease(directory)
    assert one.acquire()
    age(tmp_path / FILE_NAME, DURATION_S + 60)
    assert one.renew()
    assert not two.acquire()
    one.release()


def test_only_one_of_many_takes_over(directory: int, tmp_path: Path) -> None:
    for _ in range(20):
        dead = Lease(directory)
        assert dead.acquire()
        age(tmp_path / FILE_NAME, DURATION_S + 60)
        leases = [Lease(directory) for _ in range(6)]
        gate = threading.Barrier(len(leases))
        got: list[Lease] = []

        def take(one: Lease, gate: threading.Barrier, got: list[Lease]) -> None:
            gate.wait()
            if one.acquire():
                got.append(one)

        threads = [
            threading.Thread(target=take, args=(one, gate, got)) for one in leases
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(one.renew() for one in got) <= 1
        for one in got:
            one.release()
        (tmp_path / FILE_NAME).unlink(missing_ok=True)
        assert list(tmp_path.iterdir()) == []


def test_the_lease_of_somebody_else_is_put_back(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the rename another one has taken the stale lease over."""
    dead, first, late = (Lease(directory) for _ in range(3))
    assert dead.acquire()
    age(tmp_path / FILE_NAME, DURATION_S + 60)
    rename_in = lease.rename_in

    def rename_late(where: int, old: str, new: str) -> None:
        monkeypatch.setattr(lease, "rename_in", rename_in)
        assert first.acquire()
        rename_in(where, old, new)

    monkeypatch.setattr(lease, "rename_in", rename_late)
    assert not late.acquire()
    assert first.renew()
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_cannot_be_leased(
    directory: int, tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).mkdir()
    assert not Lease(directory).acquire()
    (tmp_path / FILE_NAME).rmdir()
    os.rmdir(tmp_path)
    assert not Lease(directory).acquire()
    tmp_path.mkdir()


def test_long_work_renews_it(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("cvmfsexec.cache.lease.time.monotonic", lambda: now_s[0])
    one = Lease(directory)
    assert one.acquire()
    renewal = Renewal(one)
    age(tmp_path / FILE_NAME, 100)
    before_s = (tmp_path / FILE_NAME).stat().st_mtime
    assert renewal.is_held()
    assert (tmp_path / FILE_NAME).stat().st_mtime == before_s
    now_s[0] += DURATION_S / 10
    assert renewal.is_held()
    assert (tmp_path / FILE_NAME).stat().st_mtime > before_s
    (tmp_path / FILE_NAME).unlink()
    now_s[0] += DURATION_S / 10
    assert not renewal.is_held()


def test_a_holder_that_was_stopped_does_not_renew_the_lease_of_another(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped between the look and the renewal, for so long."""
    stopped, other, third = (Lease(directory) for _ in range(3))
    assert stopped.acquire()
    utime = os.utime

    def stop(descriptor: int) -> None:
        monkeypatch.setattr(os, "utime", utime)
        age(tmp_path / FILE_NAME, DURATION_S + 60)
        assert other.acquire()
        age(tmp_path / FILE_NAME, DURATION_S - 60)
        utime(descriptor)

    monkeypatch.setattr(os, "utime", stop)
    stopped.renew()
    age_s = time.time() - (tmp_path / FILE_NAME).stat().st_mtime
    assert age_s > DURATION_S - 120
    assert not stopped.renew()
    stopped.release()
    assert not third.acquire()
    assert other.renew()
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_was_stopped_does_not_release_the_lease_of_another(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, other, third = (Lease(directory) for _ in range(3))
    assert stopped.acquire()
    rename_in = lease.rename_in

    def stop(where: int, old: str, new: str) -> None:
        monkeypatch.setattr(lease, "rename_in", rename_in)
        age(tmp_path / FILE_NAME, DURATION_S + 60)
        assert other.acquire()
        rename_in(where, old, new)

    monkeypatch.setattr(lease, "rename_in", stop)
    stopped.release()
    assert not third.acquire()
    assert other.renew()
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_lease_that_nobody_has(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail_calls(patch, "write", errno.ENOSPC)
        assert not Lease(directory).acquire()
    assert list(tmp_path.iterdir()) == []
    assert Lease(directory).acquire()


def test_who_is_killed_with_a_lease_leaves_nothing_for_long(
    directory: int, tmp_path: Path
) -> None:
    for call_number in itertools.count(1):
        one = Lease(directory)

        def work(one: Lease = one) -> None:
            assert one.acquire()
            one.now_s()
            one.renew()
            one.release()

        has_died = run_and_die_at(call_number, work)
        for left in tmp_path.iterdir():
            age(left, DURATION_S + 60)
        later = Lease(directory)
        assert later.acquire()
        later.clear_abandoned(later.now_s())
        later.release()
        assert list(tmp_path.iterdir()) == []
        if not has_died:
            break
    assert call_number > 5


def test_a_stale_lease_that_cannot_be_read_is_taken_over(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of another user of the group, whose umask lets nobody read."""
    dead = Lease(directory)
    assert dead.acquire()
    fail_calls(
        monkeypatch, "open", errno.EACCES, lambda _, flags, *__, **___: flags & 3 == 0
    )
    assert not Lease(directory).acquire()
    age(tmp_path / FILE_NAME, DURATION_S + 60)
    assert Lease(directory).acquire()


def test_the_clock_of_the_node_does_not_matter(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Lease(directory), Lease(directory)
    assert one.acquire()
    for offset_s in (-(10**6), 10**6):
        real = time.time()
        monkeypatch.setattr(
            "cvmfsexec.cache.lease.time.time", lambda real=real, o=offset_s: real + o
        )
        assert not two.acquire()
        assert one.renew()
    monkeypatch.undo()
    age(tmp_path / FILE_NAME, DURATION_S + 60)
    assert two.acquire()
