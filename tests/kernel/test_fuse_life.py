"""How a server begins and ends: mounts of others, slow answers, violent deaths."""

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from cvmfsexec.fuse.crew import Ending
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.vfs.attributes import Attributes
from tests.support.fuse_mount import abort, mounted, unmount, why_not
from tests.support.memory_file_system import MemoryFileSystem, Tree

PATIENT_S = 30.0


class Slow(MemoryFileSystem):
    """Needs a while for names that begin with "slow"."""

    def __init__(self, tree: Tree, *, seconds: float) -> None:
        super().__init__(tree)
        self._seconds = seconds

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        if name.startswith(b"slow"):
            time.sleep(self._seconds)
        return super().lookup(parent, name)


def test_unmounting_ends_the_server() -> None:
    with mounted(MemoryFileSystem({b"file": b"x"})) as mount:
        assert mount.inside(lambda: os.listdir(".")) == ["file"]
        mount.inside(unmount)
        assert mount.ending() == Ending.UNMOUNTED.name


def test_unmounting_waits_for_open_files() -> None:
    def read_after_unmount() -> bytes:
        descriptor = os.open("file", os.O_RDONLY)
        unmount()
        return os.read(descriptor, 10)

    with mounted(MemoryFileSystem({b"file": b"0123456789"})) as mount:
        assert mount.inside(read_after_unmount) == b"0123456789"
        assert mount.ending() == Ending.UNMOUNTED.name


def test_a_device_that_was_never_mounted_is_told_apart() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        ending = FuseServer(device, MemoryFileSystem({})).serve()
    finally:
        os.close(device)

    assert ending is Ending.NOT_MOUNTED


@pytest.mark.parametrize("options", ["", "allow_other", "max_read=131072"])
def test_mounts_that_others_made(options: str) -> None:
    """Apptainer gives neither ``default_permissions`` nor ``max_read``, nor "ro"."""
    content = os.urandom(1_000_000)
    with mounted(
        MemoryFileSystem({b"file": content}), is_read_only=False, mount_options=options
    ) as mount:
        assert mount.inside(lambda: _read("file")) == content


def test_a_slow_answer_keeps_nobody_else_waiting() -> None:
    def measure() -> float:
        with subprocess.Popen(["stat", "slow"], stdout=subprocess.DEVNULL):
            time.sleep(0.02)
            begun_s = time.monotonic()
            for number in range(100):
                os.path.lexists(f"name {number}")
            return time.monotonic() - begun_s

    with mounted(Slow({b"slow": b""}, seconds=2.0)) as mount:
        assert mount.inside(measure) < 1.5


def test_slow_answers_are_prepared_side_by_side() -> None:
    def measure() -> float:
        begun_s = time.monotonic()
        processes = [
            subprocess.Popen(["stat", f"slow {number}"], stderr=subprocess.DEVNULL)
            for number in range(12)
        ]
        for process in processes:
            process.wait()
        return time.monotonic() - begun_s

    with mounted(Slow({}, seconds=1.0)) as mount:
        assert mount.inside(measure) < 12 / 2


def test_killing_the_server_ends_all_that_wait_for_it() -> None:
    def wait() -> None:
        os.stat("slow")

    with mounted(Slow({b"slow": b""}, seconds=PATIENT_S)) as mount:
        server = mount.server_pid
        killer = threading.Timer(0.1, os.kill, (server, signal.SIGKILL))
        begun_s = time.monotonic()
        killer.start()
        with pytest.raises((RuntimeError, ConnectionAbortedError)):
            mount.inside(wait)
        assert time.monotonic() - begun_s < PATIENT_S / 2
        killer.join()


def test_nothing_remains_after_a_mount() -> None:
    with mounted(MemoryFileSystem({b"file": b"x"})) as mount:
        server = mount.server_pid
        mount.inside(lambda: os.listdir("."))

    assert _eventually(lambda: not os.path.exists(f"/proc/{server}"))


def test_an_aborted_connection_ends_the_server() -> None:
    def stat_something_new() -> int:
        try:
            os.stat("new name")
        except OSError as error:
            return error.errno or 0
        return 0

    with mounted(MemoryFileSystem({b"file": b"x"})) as mount:
        device = mount.inside(lambda: os.stat(".").st_dev)
        try:
            abort(os.minor(device))
        except OSError as error:
            pytest.skip(f"cannot abort here: {error}")
        assert mount.inside(stat_something_new) == errno.ENOTCONN
        assert mount.ending() in {Ending.ABORTED.name, Ending.UNMOUNTED.name}


def test_a_process_killed_while_it_waits_is_not_missed() -> None:
    def kill() -> list[str]:
        with subprocess.Popen(["stat", "slow"], stderr=subprocess.DEVNULL) as process:
            time.sleep(0.05)
            process.kill()
        return os.listdir(".")

    with mounted(Slow({b"slow": b"", b"file": b""}, seconds=0.2)) as mount:
        assert mount.inside(kill) == ["slow", "file"]
        assert mount.run("cat", "file") == ""


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()


def _eventually(is_true: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + PATIENT_S
    while not is_true():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True
