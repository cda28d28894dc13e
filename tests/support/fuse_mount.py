"""A ``FuseServer`` on the real kernel, mounted where nobody else sees it.

The test process forks a *keeper*, which enters new user, mount and pid namespaces and
forks the *server*, the first process of the pid namespace. It mounts on a private tmpfs
and serves. Tests enter the namespaces by a further fork: ``Mount.inside``.

Whoever dies, nothing remains: the keeper dies with the test, the server with the keeper
(parent-death signals), every process inside with the server (pid namespace), and the
mount with the last of them (mount namespace).
"""

import ctypes
import functools
import json
import os
import pickle
import signal
import socket
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast

import pytest

from cvmfsexec.fuse.server import FuseServer

MOUNTPOINT = "/mnt"

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")


@functools.cache
def why_not() -> str | None:
    """Return why nothing can be mounted here; ``None`` if it can."""
    if os.geteuid() == 0 and os.path.exists("/dev/fuse"):
        os.chmod("/dev/fuse", 0o666)  # noqa: S103 -- as it is on every real machine
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
        _in_fork(_enter_new_namespaces)
    except OSError as error:
        return f"cannot mount here: {error}"
    return None


class Mount:
    """A mounted file system, used from outside its namespaces."""

    def __init__(self, server_pid: int, control: socket.socket) -> None:
        self.server_pid = server_pid
        self._control = control
        self._answers = control.makefile()

    def ask(self, name: str) -> object:
        """Return an attribute of the server as JSON knows it; dots lead further.

        A method is called.
        """
        self._control.sendall(name.encode())
        return json.loads(self._answers.readline())

    def requests(self) -> dict[str, int]:
        """Return how many requests of each kind the server has seen."""
        return cast("dict[str, int]", self.ask("requests"))

    def ending(self) -> str:
        """Wait until the server stops serving; return the name of its ``Ending``."""
        return cast("str", json.loads(self._answers.readline()))

    def inside(self, function: Callable[[], _Result]) -> _Result:
        """Call a function in a process inside the namespaces, in the mount."""

        def call() -> _Result:
            os.chdir(MOUNTPOINT)
            return function()

        def enter() -> _Result:
            of_server = f"/proc/{self.server_pid}/ns/"
            namespaces = [
                os.open(of_server + kind, os.O_RDONLY)
                for kind in ("user", "mnt", "pid")
            ]
            for namespace in namespaces:
                _call("setns", namespace, 0)
                os.close(namespace)
            return _in_fork(call)  # a pid namespace is entered by being born in it

        return _in_fork(enter)

    def run(self, *argv: str) -> str:
        """Run a command in the mount; return its standard output."""

        def run() -> str:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, timeout=120
            )
            if done.returncode:
                raise RuntimeError(f"{argv} failed: {done.returncode} {done.stderr}")
            return done.stdout

        return self.inside(run)

    def close(self) -> None:
        """Forget the server."""
        self._answers.close()
        self._control.close()


def unmount() -> None:
    """Detach the file system; to be called inside."""
    _call("umount2", MOUNTPOINT.encode(), _MNT_DETACH)


def abort(connection: int) -> None:
    """Abort a connection as an administrator can.

    Args:
        connection: The minor device number of the mounted file system.

    Raises:
        OSError: We are not the administrator.
    """

    def write() -> None:
        _call("unshare", _CLONE_NEWNS)
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _mount("none", "/sys/fs/fuse/connections", "fusectl", 0)
        with open(f"/sys/fs/fuse/connections/{connection}/abort", "w") as stream:
            stream.write("1")

    _in_fork(write)


@contextmanager
def mounted(
    file_system: object,
    *,
    is_read_only: bool = True,
    mount_options: str = "allow_other,default_permissions,max_read=1048576",
    server: Callable[..., FuseServer] = FuseServer,
    **server_options: Any,  # noqa: ANN401
) -> Iterator[Mount]:
    """Mount a file system for the time of a ``with`` block, or skip the test.

    Args:
        file_system: Is copied into the server's process, or what is needed to make it.
        is_read_only: Whether the mount is.
        mount_options: Beside those that every mount needs.
        server: What serves it, called there with the device and the file system.
        server_options: Of ``FuseServer``.
    """
    reason = why_not()
    if reason:
        pytest.skip(reason)
    ours, theirs = socket.socketpair()
    flags = _MS_NOSUID | _MS_NODEV | (_MS_RDONLY if is_read_only else 0)

    def serve() -> None:
        ours.close()
        device = _mount_fuse(flags, mount_options)
        _serve(server(device, file_system, **server_options), theirs)

    keeper = os.fork()
    if not keeper:
        _keep(serve, theirs)
    theirs.close()
    try:
        ours.settimeout(60)
        with ours.makefile() as stream:
            greeting = stream.readline()
        if not greeting.startswith("pid "):
            raise RuntimeError(f"no mount: {greeting}")
        mount = Mount(int(greeting[4:]), ours)
        try:
            yield mount
        finally:
            mount.close()
    finally:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        ours.close()


def _keep(serve: Callable[[], None], control: socket.socket) -> NoReturn:
    """Be the keeper: make the namespaces, start the server, wait for its end."""
    try:
        _die_with_parent()
        _enter_new_namespaces()
        ready, tell_ready = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(ready)
            _die_with_parent()
            _READY.append(tell_ready)
            serve()
        os.close(tell_ready)
        if os.read(ready, 1):
            control.sendall(f"pid {pid}\n".encode())
        os.waitpid(pid, 0)
    except BaseException:  # noqa: BLE001 -- the border of this process
        text = traceback.format_exc().replace("\n", " | ")
        control.sendall(text.encode() + b"\n")
    finally:
        os._exit(0)


_READY: list[int] = []


def _serve(server: FuseServer, control: socket.socket) -> None:
    """Be the server: answer questions in a thread, requests until unmounted."""

    def answer_questions() -> None:
        while name := control.recv(100).decode():
            value = functools.reduce(getattr, name.split("."), cast("Any", server))
            value = value() if callable(value) else value
            control.sendall(json.dumps(value, default=str).encode() + b"\n")

    threading.Thread(target=answer_questions, daemon=True).start()
    os.write(_READY.pop(), b"r")
    control.sendall(json.dumps(server.serve().name).encode() + b"\n")
    threading.Event().wait()  # so that tests can still ask and enter


def _mount_fuse(flags: int, options: str) -> int:
    """Mount FUSE on a private tmpfs; return the device."""
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _mount("tmpfs", MOUNTPOINT, "tmpfs", 0)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    required = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    separator = "," if options else ""
    _mount("test", MOUNTPOINT, "fuse.test", flags, f"{required}{separator}{options}")
    return device


def _in_fork(function: Callable[[], _Result]) -> _Result:
    """Call a function in a forked process; return, or raise, what it does."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if not pid:
        answer: tuple[bool, object]
        try:
            _die_with_parent()
            answer = (True, function())
        except BaseException as error:  # noqa: BLE001 -- the border of this process
            answer = (False, error)
        try:
            blob = pickle.dumps(answer)
        except (TypeError, AttributeError, pickle.PicklingError):
            blob = pickle.dumps((False, RuntimeError(repr(answer))))
        with os.fdopen(sender, "wb") as stream:
            stream.write(blob)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        blob = stream.read()
    status = os.waitpid(pid, 0)[1]
    if not blob:
        raise RuntimeError(f"the process inside died: {status}")
    succeeded, value = pickle.loads(blob)  # noqa: S301 -- from our own fork
    if not succeeded:
        raise value
    return cast("_Result", value)


def _enter_new_namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"0 {uid} 1"),
        ("gid_map", f"0 {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)


def _die_with_parent() -> None:
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _call(
        "mount",
        source.encode(),
        target.encode(),
        kind.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
