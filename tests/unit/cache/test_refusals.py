import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache import file_system_type
from cvmfsexec.cache.refusals import REST_S, Refusals
from cvmfsexec.errors import CacheError
from tests.support.clock import Clock


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def refusals(clock: Clock, tmp_path: Path) -> Iterator[Refusals]:
    directory = os.open(tmp_path, os.O_RDONLY)
    yield Refusals("cache directory /cache", directory, clock)
    os.close(directory)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EDQUOT, "remove something of yours from the disk"),
        (errno.ENOSPC, "remove something from the disk"),
        (errno.EROFS, "a place for the cache that you can write"),
        (errno.ENOTCONN, ""),
    ],
    ids=lambda one: errno.errorcode.get(one) if isinstance(one, int) else "",
)
def test_a_refusal_is_told_once_with_what_helps(
    refusals: Refusals,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    number: int,
    advice: str,
) -> None:
    for _ in range(3):
        refusals.note(fault(number))
        assert refusals.are_recent
        clock.sleep(REST_S)
        assert not refusals.are_recent
    (warning,) = caplog.messages
    assert os.strerror(number) in warning
    assert advice in warning


def test_what_another_node_takes_away_is_no_refusal(
    refusals: Refusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        refusals.note(fault(errno.ESTALE))
        clock.sleep(REST_S / 10)
    assert not refusals.are_recent
    assert caplog.messages == []


def test_a_directory_in_which_everything_is_stale_refuses(
    refusals: Refusals, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        refusals.note(fault(errno.ESTALE))
        clock.sleep(0.05)
    assert refusals.are_recent
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("is_on_network", [True, False])
def test_only_other_nodes_deny_something_for_a_moment(
    refusals: Refusals,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_on_network: bool,
) -> None:
    kind = "nfs4" if is_on_network else "ext4"
    monkeypatch.setattr(file_system_type, "file_system_type_of", lambda _: kind)
    refusals.note_unreadable("ab/cd", fault(errno.EACCES))
    refusals.note(fault(errno.EACCES))
    assert refusals.are_recent is not is_on_network
    assert len(caplog.messages) == (0 if is_on_network else 2)
    for _ in range(100):
        refusals.note(fault(errno.EACCES))
        clock.sleep(0.05)
    assert refusals.are_recent
    assert len(caplog.messages) == (1 if is_on_network else 2)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
def test_an_object_that_another_node_has_removed_is_absent(
    refusals: Refusals, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    refusals.note_unreadable("ab/cd", fault(number))
    assert not refusals.are_recent
    assert caplog.messages == []


def test_a_lost_file_system_is_told_once(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        refusals.note_unreadable(f"ab/{number}", fault(errno.ENOTCONN))
    assert refusals.are_recent
    assert len(caplog.messages) == 1


def test_faults_of_a_disk_are_told_up_to_a_point(
    refusals: Refusals, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        refusals.note_unreadable(f"ab/{number}", fault(errno.EIO))
    assert not refusals.are_recent
    assert len(caplog.messages) == 10


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_the_limits_of_the_process_are_not_the_directorys_fault(
    refusals: Refusals, number: int
) -> None:
    with pytest.raises(CacheError):
        refusals.note(fault(number))
    with pytest.raises(CacheError):
        refusals.note_unreadable("ab/cd", fault(number))


@pytest.mark.parametrize("number", [errno.EFBIG, errno.ENOTDIR])
def test_what_concerns_one_object_does_not_concern_the_others(
    refusals: Refusals, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    for _ in range(3):
        refusals.note(fault(number))
    assert not refusals.are_recent
    assert len(caplog.messages) == 1
