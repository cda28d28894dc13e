"""A file system image of the user's, mounted in the session for its cache.

``fuse2fs`` serves it, a child of init: it mounts in the session's namespaces by itself.
The image is locked as long as a process of the session lives, because two that write to
it would destroy it. At the end it is unmounted before the namespaces go, so that it is
clean. After a hard kill it is not, and the next session repairs it first.
"""

import fcntl
import os
import signal
import struct
import subprocess
import time
from contextlib import suppress
from typing import NamedTuple, NoReturn

from cvmfsexec import log
from cvmfsexec.errors import ConfigurationError, NamespaceError
from cvmfsexec.namespaces import descendants, root, syscalls

MOUNTPOINT = root.SCRATCH

_MOUNT_PATIENCE_S = 60.0
_UNMOUNT_PATIENCE_S = 20.0
_LOOK_AGAIN_S = 0.005
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_SUPERBLOCK_START = 1024
_MAGIC_AND_STATE = struct.Struct("<56xHH")
_MAGIC = 0xEF53
_IS_CLEAN, _HAS_ERRORS = 1, 2
_FIRST_PID = 1  # of a pid namespace
_REPAIRED = (0, 1)  # of e2fsck: nothing to do, or all done


class ScratchImage(NamedTuple):
    """An image that was checked, and is locked.

    Attributes:
        path: Absolute.
        program: ``fuse2fs``.
        lock: Descriptor of the image.
    """

    path: str
    program: str
    lock: int


def take_image(path: str, search_path: str) -> ScratchImage:
    """Check and lock an image, and repair it if it was not unmounted.

    Args:
        path: Absolute path.
        search_path: Where programs are looked for, beside the system's directories.

    Raises:
        ConfigurationError: It cannot be used; one sentence says why.
    """
    program = _find("fuse2fs", search_path)
    if not program:
        raise ConfigurationError(
            "a scratch image needs the program fuse2fs, which is not installed",
            hint="it comes with e2fsprogs, in a package fuse2fs of most distributions",
        )
    try:
        lock = os.open(path, os.O_RDWR)
    except OSError as error:
        raise ConfigurationError(
            f"the scratch image {path} cannot be used: {error.strerror}"
        ) from error
    try:
        _take_lock(path, lock)
        if not _is_clean(path, lock):
            _repair(path, _find("e2fsck", search_path))
    except BaseException:
        os.close(lock)
        raise
    return ScratchImage(path, program, lock)


def _take_lock(path: str, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder_of(os.fstat(lock))
        who = f"process {holder}" if holder else "another run"
        raise ConfigurationError(
            f"the scratch image {path} is in use by {who}",
            hint="one run at a time can use it; make an image for each",
        ) from error
    except OSError as error:
        # Some shared file systems have no locks.
        log.warning("the scratch image %s cannot be locked: %s", path, error.strerror)


def _holder_of(status: os.stat_result) -> str:
    place = f":{status.st_ino}"
    with suppress(OSError), open("/proc/locks", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if "FLOCK" in fields and fields[5].endswith(place):
                return fields[4]
    return ""


def _is_clean(path: str, image: int) -> bool:
    block = os.pread(image, _MAGIC_AND_STATE.size, _SUPERBLOCK_START)
    if len(block) < _MAGIC_AND_STATE.size or (
        _MAGIC_AND_STATE.unpack(block)[0] != _MAGIC
    ):
        raise ConfigurationError(
            f"the scratch image {path} is not an ext2, ext3 or ext4 file system",
            hint=f"make one: truncate -s 10G {path}; mkfs.ext4 -O ^has_journal {path}",
        )
    state = _MAGIC_AND_STATE.unpack(block)[1]
    return bool(state & _IS_CLEAN) and not state & _HAS_ERRORS


def _repair(path: str, program: str) -> None:
    log.warning("the scratch image %s was not unmounted; it is checked now", path)
    if not program:
        log.warning("there is no e2fsck; the scratch image is used as it is")
        return
    for how in ("-p", "-fy"):
        done = subprocess.run(
            (program, how, path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode in _REPAIRED:
            return
    raise ConfigurationError(
        f"the scratch image {path} is damaged, and e2fsck cannot repair it",
        hint="make a new one",
    )


def _find(program: str, search_path: str) -> str:
    for directory in f"{search_path}:{_SYSTEM_PATH}".split(":"):
        path = os.path.join(directory, program)
        if directory and os.access(path, os.X_OK):
            return path
    return ""


# -- in the session --------------------------------------------------------------------


class MountedImage:
    """An image at its mount point, as init has it."""

    def __init__(self, image: ScratchImage) -> None:
        """Mount it, and wait until it answers.

        Raises:
            NamespaceError: It cannot be mounted, in the program's own words.
        """
        before = os.stat(MOUNTPOINT).st_dev
        told = os.memfd_create("fuse2fs")
        self.pid = os.fork()
        if self.pid == 0:
            _become_program(image, told)
        deadline_s = time.monotonic() + _MOUNT_PATIENCE_S
        try:
            while os.stat(MOUNTPOINT).st_dev == before:
                if os.waitpid(self.pid, os.WNOHANG)[0]:
                    raise _refusal(image, told)
                if time.monotonic() > deadline_s:
                    os.kill(self.pid, signal.SIGKILL)
                    raise _refusal(image, told)
                time.sleep(_LOOK_AGAIN_S)
        finally:
            os.close(told)

    def unmount(self) -> None:
        """End all other processes of the session, unmount, wait until it is written.

        Called by init, as the last thing.
        """
        if os.getpid() == _FIRST_PID:
            self._kill_namespace()  # who has joined is nobody's descendant here
        descendants.end_all(spared=(self.pid,))
        with suppress(NamespaceError):  # it has ended before
            syscalls.umount2(MOUNTPOINT, syscalls.MNT_DETACH)
        deadline_s = time.monotonic() + _UNMOUNT_PATIENCE_S
        with suppress(ChildProcessError):
            while not os.waitpid(self.pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline_s:
                    log.warning("the scratch image is not written in time")
                    return
                time.sleep(_LOOK_AGAIN_S)

    def _kill_namespace(self) -> None:
        spared = (os.getpid(), self.pid)
        for name in os.listdir("/proc"):
            if name.isdecimal() and int(name) not in spared:
                with suppress(ProcessLookupError):
                    os.kill(int(name), signal.SIGKILL)


def _become_program(image: ScratchImage, told: int) -> NoReturn:
    try:
        syscalls.set_parent_death_signal(signal.SIGKILL)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            # Polite signals are for the payload; libfuse leaves alone what is ignored.
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os.set_inheritable(image.lock, True)  # noqa: FBT003 -- has no other form
        line = (image.program, image.path, MOUNTPOINT, "-f", "-o", "fakeroot,rw")
        os.execv(image.program, line)  # noqa: S606 -- no shell is wanted
    finally:
        os._exit(127)


def _refusal(image: ScratchImage, told: int) -> NamespaceError:
    words = os.pread(told, 4096, 0).decode(errors="replace").split("\n")
    lines = [line.strip() for line in words if line.strip()]
    reason = lines[-1] if lines else "fuse2fs does not say why"
    return NamespaceError(
        f"the scratch image {image.path} cannot be mounted at {MOUNTPOINT}: {reason}"
    )
