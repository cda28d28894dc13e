"""What applications see of a mount, on every kind of kernel."""

import errno
import fcntl
import mmap
import os
import random
import select
import stat
import subprocess
from collections.abc import Callable
from typing import Any, cast

import pytest

from cvmfsexec.errors import TransferError
from tests.support.fuse_mount import mounted
from tests.support.fuse_variants import every_kernel
from tests.support.memory_file_system import MTIME_S, MemoryFileSystem, Node

BIG = random.Random(1).randbytes(3_000_001)  # noqa: S311 -- repeatable, not secret
SHELL = os.path.realpath("/bin/sh")


def _file_system() -> MemoryFileSystem:
    with open(SHELL, "rb") as stream:
        shell = stream.read()
    tree = MemoryFileSystem(
        {
            b"big": BIG,
            b"empty": b"",
            b"small": b"0123456789",
            b"sh": shell,
            b"deep": {b"er": {b"and": {b"deeper": b"found"}}},
            b"names": {b"%d" % i * (i % 60 + 1): b"" for i in range(1000)},
            b"none": {},
            b"link": "deep/er",
            b"dangling": "nowhere/at all",
            b"long link": "x" * 4095,
            b"broken": TransferError("no route"),
            b"\xff\n name": b"odd",
            b"device": b"",
            b"old": b"",
        }
    )
    device = tree.node(b"device")
    minor = 0x12345
    encoded = minor & 0xFF | 7 << 8 | (minor & ~0xFF) << 12
    device.attributes = device.attributes._replace(
        mode=stat.S_IFCHR | 0o600, rdev=encoded, size=0
    )
    old = tree.node(b"old")
    old.attributes = old.attributes._replace(mtime_s=-86400, mtime_ns=999_999_999)
    tree.node(b"small").xattrs = {b"user.a": b"value", b"user.long": b"x" * 60000}
    return tree


@every_kernel
def test_every_entry_is_what_the_file_system_says(kernel: dict[str, Any]) -> None:
    file_system = _file_system()
    with mounted(file_system, **kernel) as mount:
        seen = mount.inside(lambda: _walk(b"."))

    assert seen == _expected(file_system.root, b".")


def _walk(path: bytes) -> dict[bytes, tuple[object, ...]]:
    status = os.lstat(path)
    content: object = None
    below: dict[bytes, tuple[object, ...]] = {}
    if stat.S_ISDIR(status.st_mode):
        content = os.listdir(path)
        for name in content:
            below |= _walk(path + b"/" + name)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(status.st_mode) and not path.endswith(b"broken"):
        with open(path, "rb") as stream:
            content = stream.read()
    return {
        path: (
            status.st_ino,
            status.st_mode,
            status.st_size,
            status.st_blocks,
            status.st_blksize,
            status.st_nlink,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_rdev,
            content,
        ),
        **below,
    }


def _expected(node: Node, path: bytes) -> dict[bytes, tuple[object, ...]]:
    attributes = node.attributes
    content = node.content
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, Exception) or stat.S_ISCHR(attributes.mode):
        content = None
    elif not isinstance(content, bytes):
        content = node.names
    mtime_ns = attributes.mtime_s * 10**9 + attributes.mtime_ns
    expected: dict[bytes, tuple[object, ...]] = {
        path: (
            node.inode,
            attributes.mode,
            attributes.size,
            attributes.blocks,
            4096,
            attributes.nlink,
            mtime_ns,
            mtime_ns,
            os.makedev(7, 0x12345) if attributes.rdev else 0,
            content,
        )
    }
    for name, child in node.children.items():
        expected |= _expected(child, path + b"/" + name)
    return expected


@every_kernel
def test_entries_equal_when_looked_up_without_listing(kernel: dict[str, Any]) -> None:
    with mounted(_file_system(), **kernel) as mount:
        status = mount.inside(lambda: os.stat("link/and/deeper"))
        missing = mount.inside(lambda: os.path.lexists("deep/nothing"))

    assert (status.st_size, status.st_mtime_ns) == (5, MTIME_S * 10**9 + 5)
    assert not missing


@every_kernel
def test_bytes_come_out_at_any_offset(kernel: dict[str, Any]) -> None:
    def read() -> list[bytes]:
        descriptor = os.open("big", os.O_RDONLY)
        pieces = [os.pread(descriptor, size, offset) for offset, size in ranges]
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped:
            pieces += [mapped[offset : offset + size] for offset, size in ranges]
        return pieces

    ranges = [(0, 1), (4095, 2), (2_999_999, 100), (1_000_001, 1_500_000), (9**9, 5)]
    with mounted(_file_system(), **kernel) as mount:
        pieces = mount.inside(read)

    assert pieces == [BIG[offset : offset + size] for offset, size in ranges] * 2


@every_kernel
def test_programs_run_from_the_mount(kernel: dict[str, Any]) -> None:
    with mounted(_file_system(), **kernel) as mount:
        assert mount.run("./sh", "-c", "echo $((6 * 7))") == "42\n"


@every_kernel
def test_a_listing_can_be_read_in_pieces_and_again(kernel: dict[str, Any]) -> None:
    def read() -> list[list[str]]:
        with os.scandir("names") as entries:
            some = [next(entries).name for _ in range(3)]
        return [some, os.listdir("names"), os.listdir("names"), os.listdir("none")]

    file_system = _file_system()
    with mounted(file_system, **kernel) as mount:
        some, once, twice, none = mount.inside(read)

    names = [name.decode() for name in file_system.node(b"names").names]
    assert (some, once, twice, none) == (names[:3], names, names, [])


@every_kernel
def test_extended_attributes(kernel: dict[str, Any]) -> None:
    def read() -> tuple[object, ...]:
        return (
            os.listxattr("small"),
            os.getxattr("small", "user.a"),
            os.getxattr("small", "user.long"),
            os.listxattr("big"),
            _errno_of(lambda: os.getxattr("small", "user.none")),
        )

    with mounted(_file_system(), **kernel) as mount:
        found = mount.inside(read)

    assert found == (
        ["user.a", "user.long"],
        b"value",
        b"x" * 60000,
        [],
        errno.ENODATA,
    )


@every_kernel
def test_statvfs(kernel: dict[str, Any]) -> None:
    with mounted(_file_system(), **kernel) as mount:
        status = mount.inside(lambda: os.statvfs("."))

    assert (status.f_bsize, status.f_frsize) == (512, 512)
    assert (status.f_blocks, status.f_bfree, status.f_bavail) == (1000, 600, 600)
    assert (status.f_ffree, status.f_namemax) == (7, 255)


@every_kernel
def test_what_cannot_be_found_out_is_an_io_error(kernel: dict[str, Any]) -> None:
    def fail() -> list[int]:
        return [
            _errno_of(lambda: _read("broken")),
            _errno_of(lambda: os.getxattr("broken", "user.a")),
            _errno_of(lambda: os.listxattr("broken")),
            _errno_of(lambda: _read("missing")),
        ]

    with mounted(_file_system(), **kernel) as mount:
        assert mount.inside(fail) == [errno.EIO] * 3 + [errno.ENOENT]
        # Kernels differ in how often they try to read a page.
        assert cast("int", mount.ask("faults.io_errors")) >= 3


CHANGES: dict[str, Callable[[], object]] = {
    "create": lambda: os.open("new", os.O_CREAT | os.O_WRONLY),
    "mkdir": lambda: os.mkdir("new"),
    "mkfifo": lambda: os.mkfifo("new"),
    "symlink": lambda: os.symlink("a", "new"),
    "link": lambda: os.link("small", "new"),
    "rename": lambda: os.rename("small", "new"),
    "unlink": lambda: os.unlink("small"),
    "rmdir": lambda: os.rmdir("none"),
    "chmod": lambda: os.chmod("small", 0o700),
    "chown": lambda: os.chown("small", 0, 0),
    "utime": lambda: os.utime("small"),
    "truncate": lambda: os.truncate("small", 1),
    "open with O_TRUNC": lambda: os.open("small", os.O_RDONLY | os.O_TRUNC),
    "write": lambda: os.write(os.open("small", os.O_RDWR), b"x"),
    "append": lambda: os.write(os.open("small", os.O_WRONLY | os.O_APPEND), b"x"),
    "setxattr": lambda: os.setxattr("small", "user.a", b"x"),
    "removexattr": lambda: os.removexattr("small", "user.a"),
    "posix_fallocate": lambda: os.posix_fallocate(os.open("small", os.O_RDWR), 0, 99),
}


@pytest.mark.parametrize("is_read_only", [True, False], ids=["ro mount", "rw mount"])
@every_kernel
def test_every_change_is_refused(kernel: dict[str, Any], *, is_read_only: bool) -> None:
    def change() -> dict[str, int]:
        # The first open lets the kernel learn that it need not ask: try before, too.
        before = {name: _errno_of(action) for name, action in CHANGES.items()}
        _read("small")
        after = {name: _errno_of(action) for name, action in CHANGES.items()}
        return {name: max(before[name], after[name]) for name in CHANGES}

    with mounted(_file_system(), is_read_only=is_read_only, **kernel) as mount:
        assert mount.inside(change) == dict.fromkeys(CHANGES, errno.EROFS)
        assert mount.inside(lambda: _read("small")) == b"0123456789"


@every_kernel
def test_less_usual_calls_do_what_they_do_on_disk(kernel: dict[str, Any]) -> None:
    def call() -> tuple[object, ...]:
        descriptor = os.open("small", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        fcntl.lockf(descriptor, fcntl.LOCK_SH)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return (
            os.isatty(descriptor),
            bool(poll.poll(0)),
            os.lseek(descriptor, 3, os.SEEK_DATA),
            os.lseek(descriptor, 3, os.SEEK_HOLE),
            os.access("small", os.R_OK | os.X_OK),
            os.pread(os.open("small", os.O_RDONLY | os.O_CLOEXEC), 5, 5),
            _errno_of(lambda: os.readlink("small")),
            _errno_of(lambda: os.listdir("small")),
            _errno_of(lambda: os.open("small", os.O_DIRECTORY)),
        )

    with mounted(_file_system(), **kernel) as mount:
        found = mount.inside(call)

    assert found == (
        *(False, True, 3, 10, True, b"56789"),
        *(errno.EINVAL, errno.ENOTDIR, errno.ENOTDIR),
    )


@every_kernel
def test_reading_around_the_page_cache(kernel: dict[str, Any]) -> None:
    def read() -> bytes:
        descriptor = os.open("big", os.O_RDONLY | os.O_DIRECT)
        with mmap.mmap(-1, 2 << 20) as aligned:
            count = os.preadv(descriptor, [aligned], 4096)
            return aligned[:count]

    with mounted(_file_system(), **kernel) as mount:
        assert mount.inside(read) == BIG[4096 : 4096 + (2 << 20)]


def test_modes_decide_under_default_permissions() -> None:
    file_system = _file_system()
    for path, mode in ((b"small", 0), (b"big", 0o644), (b"deep", 0o700)):
        file_system.node(path).chmod(mode)

    def call() -> tuple[object, ...]:
        # Root of a user namespace has CAP_DAC_OVERRIDE only over mapped owners.
        run = ["./big"]
        return os.access("big", os.X_OK), _errno_of(lambda: subprocess.call(run))

    with mounted(file_system) as mount:
        assert mount.inside(call) == (False, errno.EACCES)


def test_many_processes_read_at_once() -> None:
    def read() -> list[int]:
        script = 'cat big sh | cksum; find . -name "9*" | wc -l'
        processes = [
            subprocess.Popen(
                ["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True
            )
            for _ in range(8)
        ]
        outputs = {process.communicate()[0] for process in processes}
        return [len(outputs), *(process.returncode for process in processes)]

    with mounted(_file_system()) as mount:
        assert mount.inside(read) == [1] + [0] * 8


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _errno_of(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0
