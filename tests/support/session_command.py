"""A command line for ``run_session`` with services that are good for nothing else.

``session_command.py [--service NAME=BEHAVIOUR[,AFTER...]]... -- command [word...]``

Each service mounts at ``/cvmfs/NAME``. Behaviours:

=============  =================================================================
serve          a real FUSE mount of an empty directory
idle           ready at once, without a mount
quit           as ``idle``, but it returns when the file $TOUCH appears
refuse         says that it cannot start, with a hint and status 9
raise          raises an error of ours
crash          raises an error of Python's
leave          returns 3 without a word
absent         says that the session can do without it
lonely         as ``idle``, but only if one that it comes after is absent
hang           never gets ready
=============  =================================================================

With ``BACKGROUND`` set, the session goes on in the background when its command ends.
"""

import os
import struct
import sys
import time
from collections.abc import Callable
from functools import partial

from cvmfsexec.errors import CacheError, CvmfsError, NamespaceError, ServiceFailedError
from cvmfsexec.namespaces.background import run_in_background
from cvmfsexec.namespaces.fuse_mount import mount_fuse
from cvmfsexec.namespaces.plan import Service, ServiceChannel, SessionPlan
from cvmfsexec.namespaces.supervisor import run_session

NAMESPACE_STATUS = 4
SESSION_STATUS = 6

_HEADER = struct.Struct("<IIQQIIII")
_OUT_HEADER = struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_FORGET, _GETATTR, _INIT, _OPENDIR, _READDIR, _RELEASEDIR = 2, 3, 26, 27, 28, 29
_INTERRUPT, _BATCH_FORGET = 36, 42
_UNANSWERED = (_FORGET, _INTERRUPT, _BATCH_FORGET)
_ENOSYS = 38


def main(words: list[str]) -> int:
    plan = _read_plan(words)
    if os.environ.get("DESCRIBE"):
        sys.stdout.write("\n".join(plan.describe()))
        return 0
    if os.environ.get("BACKGROUND"):
        return run_in_background(partial(_run, plan))
    return _run(plan)


def _run(plan: SessionPlan, status_out: int = -1) -> int:
    try:
        return run_session(plan._replace(status_out=status_out))
    except CvmfsError as error:
        sys.stderr.write(f"{type(error).__name__}: {error} ({error.hint})\n")
        if isinstance(error, ServiceFailedError):
            return error.status or SESSION_STATUS
        is_namespace = isinstance(error, NamespaceError)
        return NAMESPACE_STATUS if is_namespace else SESSION_STATUS


def _read_plan(words: list[str]) -> SessionPlan:
    services = []
    while words[0] != "--":
        option, value, *words = words
        if option != "--service":
            raise SystemExit(f"unknown option {option}")
        name, _, rest = value.partition("=")
        behaviour, *after = rest.split(",")
        run = partial(_BEHAVIOURS[behaviour], name)
        services.append(Service(name, run, tuple(after)))
    return SessionPlan(
        command=tuple(words[1:]),
        environment=dict(os.environ),
        cwd=os.getcwd(),
        services=tuple(services),
        mountpoints=tuple(f"/cvmfs/{one.name}" for one in services),
    )


def _idle(_name: str, channel: ServiceChannel) -> int:
    channel.wait_for_dependencies()
    channel.ready()
    time.sleep(3600)
    return 0


def _quit(_name: str, channel: ServiceChannel) -> int:
    channel.wait_for_root()
    channel.ready()
    while not os.path.exists(os.environ["TOUCH"]):
        time.sleep(0.01)
    return 0


def _refuse(name: str, channel: ServiceChannel) -> int:
    channel.failed(f"no way to {name}", hint="walk", status=9)
    return 1


def _raise(name: str, _channel: ServiceChannel) -> int:
    raise CacheError(f"no cache for {name}", hint="buy one")


def _crash(_name: str, _channel: ServiceChannel) -> int:
    raise ZeroDivisionError


def _leave(_name: str, _channel: ServiceChannel) -> int:
    return 3


def _absent(_name: str, channel: ServiceChannel) -> int:
    channel.absent()
    return 0


def _lonely(name: str, channel: ServiceChannel) -> int:
    if channel.wait_for_dependencies():
        raise CacheError(f"{name} is not alone")
    return _idle(name, channel)


def _hang(_name: str, _channel: ServiceChannel) -> int:
    time.sleep(3600)
    return 0


def _serve(name: str, channel: ServiceChannel) -> int:
    channel.wait_for_dependencies()
    channel.wait_for_root()
    device = mount_fuse(f"/cvmfs/{name}", max_read_bytes=131072)
    channel.ready()
    while True:
        request = os.read(device, 1 << 18)
        opcode, unique = _HEADER.unpack_from(request)[1:3]
        error, body = _answer(opcode)
        header = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), error, unique)
        if opcode not in _UNANSWERED:
            os.write(device, header + body)


def _answer(opcode: int) -> tuple[int, bytes]:
    if opcode == _INIT:
        return 0, struct.pack("<IIIIHHI", 7, 31, 131072, 0, 16, 12, 4096) + bytes(40)
    if opcode == _GETATTR:
        directory = 0o40755
        attributes = _ATTRIBUTES.pack(
            1, 0, 0, 0, 0, 0, 0, 0, 0, directory, 2, 0, 0, 0, 512, 0
        )
        return 0, struct.pack("<QII", 60, 0, 0) + attributes
    if opcode in (_OPENDIR, _READDIR, _RELEASEDIR):
        return 0, bytes(16) if opcode == _OPENDIR else b""
    return -_ENOSYS, b""


_BEHAVIOURS: dict[str, Callable[[str, ServiceChannel], int]] = {
    "serve": _serve,
    "idle": _idle,
    "quit": _quit,
    "refuse": _refuse,
    "raise": _raise,
    "crash": _crash,
    "leave": _leave,
    "absent": _absent,
    "lonely": _lonely,
    "hang": _hang,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
