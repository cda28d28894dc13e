"""Two ``Claims`` of one directory exclude each other as two processes do: a lock
belongs to the description of the open file, and each has its own."""

import contextlib
import errno
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cvmfsexec import callers
from cvmfsexec.cache import claims
from cvmfsexec.cache.claims import Claims
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from tests.support.claimant import Claimant
from tests.support.descriptors import descriptor_count
from tests.support.store_contract import NAME
from tests.support.system_calls import fail_calls

OTHER = ContentHash.of(b"another object")
NO_LOCKS = (errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, 524)
"""What file systems say that have none; 524 is NFS's own."""


class Time:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.pauses: list[float] = []
        self.then: Callable[[], object] = lambda: None

    def clock(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.now_s += pause_s
        self.then()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def ours(directory: int, time: Time) -> Iterator[Claims]:
    with contextlib.closing(
        Claims(directory, clock=time.clock, sleep=time.sleep)
    ) as made:
        yield made


@pytest.fixture
def theirs(directory: int) -> Iterator[Claims]:
    with contextlib.closing(Claims(directory)) as made:
        yield made


def claim(
    some: Claims,
    content_hash: ContentHash = NAME,
    *,
    patience_s: float = 0.0,
    is_there: Callable[[], bool] = lambda: False,
) -> contextlib.AbstractContextManager[bool]:
    return some.claim(content_hash, patience_s=patience_s, is_there=is_there)


def count_locking(
    monkeypatch: pytest.MonkeyPatch, error: int | None = None
) -> list[int]:
    """Note each call to ``fcntl``, which may fail; the list grows."""
    real, calls = fcntl.fcntl, []

    def call(descriptor: int, command: int, argument: Any = 0) -> Any:  # noqa: ANN401
        calls.append(command)
        if error is not None:
            raise OSError(error, os.strerror(error))
        return real(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", call)
    return calls


# Who has it


def test_who_waits_for_the_claim_of_another_can_leave(
    directory: int, theirs: Claims
) -> None:
    caller = callers.Caller()
    caller.task = object()
    callers.work_for(caller)

    def leave() -> bool:
        caller.leave(caller.task)
        return False

    try:
        with (
            contextlib.closing(Claims(directory)) as ours,
            claim(theirs),
            pytest.raises(callers.CannotWait),
            claim(ours, patience_s=600, is_there=leave),
        ):
            pytest.fail("it has the claim")
    finally:
        callers.work_for(None)
    with claim(theirs) as is_free:
        assert is_free


def test_one_of_two_has_the_claim(ours: Claims, theirs: Claims) -> None:
    with claim(theirs) as first, claim(ours) as second:
        assert (first, second) == (True, False)
    with claim(ours) as third:
        assert third


def test_claims_on_different_objects_are_independent(
    ours: Claims, theirs: Claims
) -> None:
    with claim(theirs), claim(ours, OTHER) as other:
        assert other


def test_an_error_gives_the_claim_back(ours: Claims, theirs: Claims) -> None:
    with contextlib.suppress(InterruptedError), claim(theirs):
        raise InterruptedError
    with claim(ours) as is_ours:
        assert is_ours


@pytest.mark.parametrize("byte", [b"\0", b"\xff"], ids=["lowest", "highest"])
def test_every_hash_has_a_place_to_lock(
    ours: Claims, theirs: Claims, byte: bytes
) -> None:
    name = ContentHash(byte * 20, HashAlgorithm.SHAKE128)
    with claim(theirs, name) as first, claim(ours, name) as second:
        assert (first, second) == (True, False)


def test_only_an_empty_file_is_left(tmp_path: Path, ours: Claims) -> None:
    for content_hash in (NAME, OTHER):
        with claim(ours, content_hash):
            pass
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        (claims.FILE_NAME, b"")
    ]
    assert (tmp_path / claims.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_nothing_is_made_before_something_is_claimed(
    tmp_path: Path, ours: Claims
) -> None:
    assert list(tmp_path.iterdir()) == []
    ours.close()


def test_a_claim_costs_two_system_calls(
    ours: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(ours):
        pass
    calls = count_locking(monkeypatch)
    with claim(ours):
        pass
    assert calls == [fcntl.F_OFD_SETLK] * 2


def test_another_descriptor_of_the_file_changes_nothing(
    tmp_path: Path, ours: Claims, theirs: Claims
) -> None:
    with claim(theirs):
        os.close(os.open(tmp_path / claims.FILE_NAME, os.O_RDWR))
        with claim(ours) as is_ours:
            assert not is_ours


def test_the_file_may_be_removed_at_any_time(
    tmp_path: Path, ours: Claims, theirs: Claims
) -> None:
    with claim(theirs):
        (tmp_path / claims.FILE_NAME).unlink()
        with claim(ours) as is_ours:
            assert is_ours  # both fetch; that does no harm
    with claim(theirs) as is_theirs:
        assert is_theirs


def test_closing_gives_all_claims_back(ours: Claims, theirs: Claims) -> None:
    with claim(theirs):
        theirs.close()
        theirs.close()
        with claim(ours) as is_ours:
            assert is_ours


def test_threads_open_one_file(directory: int) -> None:
    before = descriptor_count()
    shared = Claims(directory)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        with claim(shared):
            pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert descriptor_count() == before + 1
    shared.close()


# Waiting


def test_who_waits_stops_when_the_object_is_there(
    ours: Claims, theirs: Claims, time: Time
) -> None:
    with (
        claim(theirs),
        claim(ours, patience_s=60, is_there=lambda: len(time.pauses) == 7) as is_ours,
    ):
        assert not is_ours
    assert len(time.pauses) == 7


def test_who_waits_gets_the_claim_of_one_who_failed(
    ours: Claims, theirs: Claims, time: Time
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(claim(theirs))

        def fail_in_the_end() -> None:
            if len(time.pauses) == 3:
                stack.close()

        time.then = fail_in_the_end
        with claim(ours, patience_s=60) as is_ours:
            assert is_ours
    assert len(time.pauses) == 3


def test_pauses_grow_and_are_bounded(ours: Claims, theirs: Claims, time: Time) -> None:
    with claim(theirs), claim(ours, patience_s=10):
        pass
    assert time.pauses[0] == claims.PAUSE_MIN_S
    assert max(time.pauses) == claims.PAUSE_MAX_S
    assert time.pauses[:-1] == sorted(time.pauses[:-1])
    assert len(time.pauses) < 250


@pytest.mark.parametrize("patience_s", [0.0, -1.0])
def test_without_patience_nobody_waits(
    ours: Claims, theirs: Claims, time: Time, patience_s: float
) -> None:
    with claim(theirs), claim(ours, patience_s=patience_s) as is_ours:
        assert not is_ours
    assert time.pauses == []


def test_patience_ends_and_is_low_for_a_while(
    ours: Claims, theirs: Claims, time: Time
) -> None:
    def waited_s() -> float:
        started_s = time.now_s
        with claim(ours, patience_s=10) as is_ours:
            assert not is_ours
        return time.now_s - started_s

    with claim(theirs):
        assert waited_s() == pytest.approx(10)
        assert waited_s() == pytest.approx(claims.LOW_PATIENCE_S)
        time.now_s += claims.LOW_PATIENCE_FOR_S
        assert waited_s() == pytest.approx(10)


# Where there are none


@pytest.mark.parametrize("error", NO_LOCKS)
def test_without_locks_everybody_fetches_and_nobody_asks_again(
    ours: Claims, time: Time, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    calls = count_locking(monkeypatch, error)
    for _ in range(3):
        with claim(ours, patience_s=60) as is_ours:
            assert is_ours
    assert len(calls) == 1
    assert time.pauses == []


@pytest.mark.parametrize(
    "error", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ELOOP]
)
def test_a_directory_that_cannot_be_written_has_no_claims(
    ours: Claims, time: Time, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    failed = fail_calls(monkeypatch, "open", error)
    for _ in range(3):
        with claim(ours, patience_s=60) as is_ours:
            assert is_ours
    assert len(failed) == 1
    assert time.pauses == []


def test_locks_may_fail_while_somebody_waits(
    ours: Claims, theirs: Claims, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(theirs):
        time.then = lambda: count_locking(monkeypatch, errno.ENOLCK)
        with claim(ours, patience_s=60) as is_ours:
            assert is_ours
        monkeypatch.undo()
    assert len(time.pauses) == 1


def test_locks_may_fail_when_one_is_given_back(
    ours: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claim(ours) as is_ours:
        assert is_ours
        count_locking(monkeypatch, errno.EIO)
    with claim(ours) as is_ours:
        assert is_ours


def test_a_store_that_keeps_nothing_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(str(tmp_path), os.open(tmp_path, os.O_RDONLY))
    store.refusals.note(OSError(errno.ENOSPC, "full"))
    calls = count_locking(monkeypatch)
    with store.claim(NAME, patience_s=60) as is_ours:
        assert not is_ours
    assert calls == []
    store.close()


# Real processes


def test_a_stopped_holder_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with Claimant(tmp_path) as holder, Claimant(tmp_path) as other:
        assert holder.take(NAME)
        os.kill(holder.pid, signal.SIGSTOP)
        assert not other.take(NAME, patience_s=0.2)
        os.kill(holder.pid, signal.SIGCONT)
        holder.give_back(NAME)
        assert other.take(NAME)


HASHES = tuple(ContentHash.of(b"%d" % number) for number in range(3))
any_hash = st.sampled_from(HASHES)
any_place = st.integers(0, 2)


class ClaimingProcesses(RuleBasedStateMachine):
    """Three processes that take claims, give them back, and are killed."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._directory = self._stack.enter_context(Claimant.directory())
        self.claimants = [self._start() for _ in range(3)]
        self.holders: dict[ContentHash, Claimant] = {}

    def _start(self) -> Claimant:
        return self._stack.enter_context(Claimant(self._directory))

    def _kill(self, holder: Claimant) -> None:
        holder.kill()
        self.claimants[self.claimants.index(holder)] = self._start()
        for content_hash in [h for h, who in self.holders.items() if who is holder]:
            del self.holders[content_hash]

    @rule(place=any_place, content_hash=any_hash)
    def take(self, place: int, content_hash: ContentHash) -> None:
        claimant = self.claimants[place]
        holder = self.holders.get(content_hash)
        if holder is claimant:
            return
        assert claimant.take(content_hash) == (holder is None)
        self.holders.setdefault(content_hash, claimant)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        content_hash = data.draw(st.sampled_from(sorted(self.holders)))
        self.holders.pop(content_hash).give_back(content_hash)

    @rule(place=any_place)
    def kill(self, place: int) -> None:
        self._kill(self.claimants[place])

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), place=any_place, by_death=st.booleans())
    def wait(self, data: st.DataObject, place: int, *, by_death: bool) -> None:
        content_hash = data.draw(st.sampled_from(sorted(self.holders)))
        holder, waiter = self.holders[content_hash], self.claimants[place]
        if holder is waiter:
            return
        waiter.begin_to_take(content_hash, patience_s=60)
        if by_death:
            self._kill(holder)
        else:
            del self.holders[content_hash]
            holder.give_back(content_hash)
        assert waiter.has_taken()
        self.holders[content_hash] = waiter

    @invariant()
    def nobody_else_can_take_what_is_held(self) -> None:
        for content_hash, holder in self.holders.items():
            others = [one for one in self.claimants if one is not holder]
            assert not others[0].take(content_hash)

    def teardown(self) -> None:
        self._stack.close()


TestClaimingProcesses = ClaimingProcesses.TestCase
TestClaimingProcesses.settings = settings(max_examples=25, stateful_step_count=20)
