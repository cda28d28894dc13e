"""What is written to the device when another revision is shown."""

import errno
import os
import struct
from collections.abc import Iterator

import pytest

from cvmfsexec.fuse.negotiation import Terms
from cvmfsexec.fuse.notifications import Notifier
from cvmfsexec.fuse.protocol import FOREVER_S, Feature
from cvmfsexec.vfs.attributes import Changes

INODE, ENTRY = 2, 3


class Device:
    """Takes messages, and answers with an errno."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.errno = 0

    def write(self, _descriptor: int, message: bytes) -> int:
        self.messages.append(message)
        if self.errno:
            raise OSError(self.errno, os.strerror(self.errno))
        return len(message)

    def told(self) -> list[tuple[int, ...] | tuple[int, int, bytes]]:
        """Return code, inode, and the offset or the name."""
        return [_parsed(message) for message in self.messages]


def _parsed(message: bytes) -> tuple[int, ...] | tuple[int, int, bytes]:
    length, code, unique, inode = struct.unpack_from("<IiQQ", message)
    assert (length, unique) == (len(message), 0)
    if code == INODE:
        offset, size = struct.unpack_from("<qq", message, 24)
        assert size == 0
        return code, inode, offset
    size, flags = struct.unpack_from("<II", message, 24)
    assert flags == 0
    assert message[32 + size :] == b"\0"
    return code, inode, message[32 : 32 + size]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device = Device()
    monkeypatch.setattr(os, "write", device.write)
    yield device
    monkeypatch.undo()


def test_names_come_before_the_listing_of_their_directory(device: Device) -> None:
    Notifier(9).tell(Changes([(7, b"a"), (5, b"x"), (7, b"b")], [7, 1]))
    assert device.told() == [
        (ENTRY, 5, b"x"),
        (INODE, 5, 0),
        (ENTRY, 7, b"a"),
        (ENTRY, 7, b"b"),
        (INODE, 7, 0),
        (INODE, 7, -1),
        (INODE, 1, -1),
    ]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.ECONNABORTED])
def test_what_the_kernel_does_not_know_is_no_failure(
    device: Device, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    device.errno = number
    Notifier(9).tell(Changes([(7, b"a")], [7]))
    assert len(device.messages) == 3
    assert caplog.messages == []


def test_other_refusals_are_logged_once(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.errno = errno.EINVAL
    Notifier(9).tell(Changes([(7, b"a"), (7, b"b")], []))
    assert caplog.messages == ["the kernel may show what is old: Invalid argument"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOENT, True), (errno.EINVAL, False), (errno.ENOSYS, False), (0, False)],
)
def test_a_kernel_that_understands_says_so(
    device: Device, number: int, *, expected: bool
) -> None:
    device.errno = number
    assert Notifier(9).is_understood() is expected
    assert device.told() == [(INODE, 0, -1)]


def test_without_notifications_listings_are_asked_for_each_time() -> None:
    terms = Terms(31, Feature.NO_OPENDIR_SUPPORT | Feature.MAX_PAGES, 0)
    assert (terms.is_bounded, terms.validity_s) == (False, FOREVER_S)
    bounded = terms.bounded(60)
    assert (bounded.is_bounded, bounded.validity_s) == (True, 60)
    assert bounded.features == Feature.MAX_PAGES
