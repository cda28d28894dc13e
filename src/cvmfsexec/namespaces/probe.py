"""What the kernel allows here, found by trying each thing in a process of its own.

Nothing is concluded from version numbers: kernels are patched, and containers, seccomp
filters and security modules forbid what the kernel could do. Everything tried is gone
when this returns: namespaces end with the last process in them.
"""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from cvmfsexec.errors import CvmfsError, NamespaceError
from cvmfsexec.namespaces import hints, identity, messages, steps, syscalls
from cvmfsexec.namespaces.fuse_mount import mount_fuse
from cvmfsexec.namespaces.fusermount import Fusermount
from cvmfsexec.namespaces.isolation import Isolation
from cvmfsexec.namespaces.messages import Mailbox, Message, Topic

USER_NAMESPACE = "user namespace"
PRIVATE_ROOT = "mounts in it"
FUSE_MOUNT = "FUSE mount in it"
PAYLOAD_NAMESPACE = "second user namespace"
NEW_PROC = "pid namespace with its own /proc"
FUSERMOUNT = "mount by fusermount"

_SCRATCH = "probe"


class Trial(NamedTuple):
    """What came of trying one thing.

    Attributes:
        subject: What was tried: one of the names above.
        works: Whether the kernel allowed it.
        reason: Why not, in a sentence.
        hint: What the user can do about it.
    """

    subject: str
    works: bool
    reason: str = ""
    hint: str = ""


def try_namespaces() -> dict[str, Trial]:
    """Try what a session needs, in the order in which it needs it.

    Returns:
        A trial by its subject. What needs something that failed was not tried and is
        not in it.
    """
    incoming, outgoing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(incoming)
        _become_prober(outgoing)
    os.close(outgoing)
    mailbox = Mailbox(incoming)
    trials: dict[str, Trial] = {}
    try:
        while (message := mailbox.receive()) is not None:
            trials[message.sender] = _trial_of(message)
    finally:
        os.close(incoming)
        os.waitpid(pid, 0)
    return trials


def try_fusermount(helper: Fusermount, directory: str) -> Trial:
    """Try a mount of the host, on a directory that is made for it and removed.

    Args:
        helper: Mounts and unmounts.
        directory: In which the user can make one.
    """
    mountpoint = os.path.join(directory, f"cvmfsexec-probe-{os.urandom(6).hex()}")
    try:
        os.mkdir(mountpoint, 0o700)
        try:
            device = helper.mount(mountpoint, source="cvmfsexec-probe")
            try:
                helper.unmount(mountpoint, is_lazy=True)
            finally:
                os.close(device)
        finally:
            os.rmdir(mountpoint)
    except CvmfsError as error:
        return Trial(FUSERMOUNT, works=False, reason=str(error), hint=error.hint)
    except OSError as error:
        reason = f"cannot use {directory}: {error.strerror}"
        return Trial(FUSERMOUNT, works=False, reason=reason)
    return Trial(FUSERMOUNT, works=True)


def _become_prober(outgoing: int) -> NoReturn:
    try:
        origin = identity.current_identity()

        def enter() -> None:
            syscalls.unshare(
                Isolation.PID_NAMESPACE.clone_flags, "create a user namespace"
            )
            identity.map_identity(inside=identity.ROOT, outside=origin)

        if _try(outgoing, USER_NAMESPACE, enter):
            # The first process of the new pid namespace, as init will be.
            _in_child(lambda: _try_inside(outgoing, origin))
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _try_inside(outgoing: int, origin: identity.Identity) -> None:
    def leave() -> None:
        syscalls.unshare(syscalls.CLONE_NEWUSER, "create a second user namespace")
        identity.map_identity(inside=origin, outside=identity.ROOT)

    def make_root() -> None:
        steps.ReceiveOnly().perform()
        steps.StackRoot().perform()
        os.mkdir(_SCRATCH)

    _in_child(lambda: _try(outgoing, PAYLOAD_NAMESPACE, leave))
    if _try(outgoing, PRIVATE_ROOT, make_root):
        _try(outgoing, FUSE_MOUNT, lambda: os.close(mount_fuse(_SCRATCH)))
        _try(outgoing, NEW_PROC, steps.MountProc("proc").perform)


def _in_child(body: Callable[[], object]) -> None:
    """Run something in a child, and wait for its end."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        body()
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _try(outgoing: int, subject: str, action: Callable[[], None]) -> bool:
    """Do something, report what came of it, and return whether it worked."""
    try:
        action()
    except (NamespaceError, OSError) as error:
        refusal = error
        if isinstance(refusal, OSError):
            refusal = syscalls.refusal_of(refusal)
        # Asked for here, where the reasons are: inside, as who was refused.
        hint = refusal.hint or hints.find_hint(refusal)
        message = messages.about_refusal(refusal)._replace(sender=subject, hint=hint)
        messages.send(outgoing, message)
        return False
    messages.send(outgoing, Message(Topic.READY, subject))
    return True


def _trial_of(message: Message) -> Trial:
    works = message.topic is Topic.READY
    return Trial(message.sender, works, message.text, message.hint)
