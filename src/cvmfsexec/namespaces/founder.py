"""Founding a session: namespaces are created, and init is started in them.

A process that has called ``unshare`` can never go back, and one that has asked for a
new pid namespace cannot even fork any more once the first process of that is gone. So
not the supervisor does this but a child, the founder, which ends as soon as it has
started init. The kernel gives init to the supervisor then, as that is a subreaper.
Thus the supervisor stays on the host, as it was, and can try again in another way.
"""

import os
import sys
from typing import NamedTuple, NoReturn

from cvmfsexec.errors import NamespaceError, SessionError
from cvmfsexec.namespaces import (
    descriptors,
    identity,
    init,
    messages,
    syscalls,
)
from cvmfsexec.namespaces.isolation import Isolation
from cvmfsexec.namespaces.meeting import Place
from cvmfsexec.namespaces.messages import Mailbox, Message, Topic
from cvmfsexec.namespaces.origin import Origin
from cvmfsexec.namespaces.plan import SessionPlan


class Session(NamedTuple):
    """A session that was founded, as the supervisor holds it.

    Attributes:
        init_pid: Its first process, now a child of the supervisor.
        control: Pipe to init. The session lives no longer than this is open.
        mailbox: What init and its children report.
    """

    init_pid: int
    control: int
    mailbox: Mailbox


def found_session(
    plan: SessionPlan, origin: Origin, isolation: Isolation, place: Place
) -> Session:
    """Start init in new namespaces; the caller is a subreaper.

    Raises:
        NamespaceError: The kernel refused the namespaces. Nothing is left of them.
        SessionError: Somebody killed init.
    """
    control_out, control = os.pipe()
    report_out, report = os.pipe()
    mailbox = Mailbox(report_out)
    try:
        assignment = init.Assignment(
            plan, origin, isolation, place, control_out, report
        )
        try:
            init_pid = _start_init(assignment, foreign=(control, report_out))
        finally:
            descriptors.close_all((control_out, report))
        messages.send_bytes(control, init.GO)
        _wait_until_settled(init_pid, mailbox)
    except BaseException:
        descriptors.close_all((control, report_out))
        raise
    return Session(init_pid, control, mailbox)


def _start_init(assignment: init.Assignment, foreign: tuple[int, ...]) -> int:
    """Return the pid of init; the process that has started it is gone by then."""
    founding_out, founding = os.pipe()
    founder_pid = os.fork()
    if founder_pid == 0:
        descriptors.close_all((founding_out, *foreign))
        _become_founder(assignment, founding)
    os.close(founding)
    message = Mailbox(founding_out).receive()
    os.close(founding_out)
    os.waitpid(founder_pid, 0)
    if message is None:
        raise NamespaceError(
            "cannot create namespaces for the session: who tried was killed",
            syscall="unshare",
        )
    if message.topic is Topic.REFUSED:
        raise messages.refusal_in(message)
    return message.number


def _wait_until_settled(init_pid: int, mailbox: Mailbox) -> None:
    message = mailbox.receive()
    if message is not None and message.topic is Topic.SETTLED:
        return
    os.waitpid(init_pid, 0)
    if message is not None and message.topic is Topic.REFUSED:
        raise messages.refusal_in(message)
    raise SessionError("the session's init process was killed before it could start")


def _become_founder(assignment: init.Assignment, founding: int) -> NoReturn:
    try:
        messages.send(founding, _found(assignment, founding))
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _found(assignment: init.Assignment, founding: int) -> Message:
    try:
        syscalls.unshare(
            assignment.isolation.clone_flags, "create namespaces for the session"
        )
        identity.map_identity(inside=identity.ROOT, outside=assignment.origin.identity)
        init_pid = os.fork()
    except (NamespaceError, OSError) as error:
        return messages.about_refusal(error)
    if init_pid == 0:
        os.close(founding)
        init.become_init(assignment)
    return Message(Topic.FOUNDED, number=init_pid)
