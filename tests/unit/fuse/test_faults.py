import errno

import pytest

from cvmfsexec.errors import TransferError
from cvmfsexec.fuse.faults import FaultAccount


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_io_errors_are_counted_with_their_time() -> None:
    clock = Clock()
    account = FaultAccount(clock=clock)
    clock.now_s = 1234.9

    account.record("READ", TransferError("no route"), errno.EIO)
    account.record("READ", TransferError("no route"), errno.ENOSPC)

    assert (account.io_errors, account.last_io_error_s) == (1, 1234)


def test_every_failure_is_logged_with_request_errno_reason_and_hint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    account = FaultAccount()

    account.record("READ of inode 5", TransferError("host", hint="try"), errno.EIO)

    assert caplog.messages == [
        "READ of inode 5 gave EIO (Input/output error): host (try)"
    ]


def test_a_mistake_of_ours_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    account = FaultAccount()

    with pytest.raises(KeyError) as raised:
        {"found": 1}["lost"]
    account.record("LOOKUP", raised.value, errno.EIO)

    assert "mistake in cvmfsexec" in caplog.text
    assert "test_faults.py" in caplog.text


def test_a_flood_of_failures_is_logged_in_part_and_counted_in_full(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    account = FaultAccount(clock=clock)

    for number in range(100):
        account.record(f"READ {number}", TransferError("no route"), errno.EIO)
    assert len(caplog.messages) == 20
    clock.now_s += 61
    account.record("READ", TransferError("no route"), errno.EIO)

    assert account.io_errors == 101
    assert caplog.messages[20].startswith("80 more errors")
    assert len(caplog.messages) == 22


def test_a_failure_that_the_kernel_asks_for_twice_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    account = FaultAccount(clock=clock)
    for _ in range(2):
        account.record("READ", TransferError("no route"), errno.EIO)
    assert (len(caplog.messages), account.io_errors) == (1, 2)
    clock.now_s += 2
    account.record("READ", TransferError("no route"), errno.EIO)
    assert len(caplog.messages) == 2


def test_a_clock_set_back_does_not_silence_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    account = FaultAccount(clock=clock)
    for number in range(50):
        account.record(f"READ {number}", TransferError("no route"), errno.EIO)
    caplog.clear()

    clock.now_s -= 500
    account.record("READ", TransferError("no route"), errno.EIO)

    assert len(caplog.messages) == 2


def test_somebody_else_can_listen() -> None:
    heard: list[tuple[str, BaseException]] = []
    account = FaultAccount(on_fault=lambda what, error: heard.append((what, error)))
    error = TransferError("no route")

    account.record("READ", error, errno.EIO)

    assert heard == [("READ", error)]
