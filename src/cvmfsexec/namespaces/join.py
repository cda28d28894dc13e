"""Entering a session that is there, from outside, with a command of one's own.

::

    shell, MPI launcher
    └── cvmfsexec --join   stays outside the pid namespace; passes on signals
        └── command        in the session: same namespaces, same user as the payload

The command is a descendant of who started it, not of the session: it has the caller's
terminal, descriptors, environment and working directory. It lives no longer than
either. It enters the payload's user namespace too, and not one like it: the kernel lets
processes look at each other's memory, as MPI libraries and debuggers do, only if they
share that.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from signal import Signals
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cvmfsexec import log
from cvmfsexec.errors import (
    ConfigurationError,
    FormatError,
    NamespaceError,
    SessionError,
)
from cvmfsexec.namespaces import (
    descendants,
    descriptors,
    meeting,
    messages,
    payload,
    signals,
    syscalls,
    terminal,
)
from cvmfsexec.namespaces.ears import announce_by_signal
from cvmfsexec.namespaces.init import GRACE_S
from cvmfsexec.namespaces.isolation import Isolation
from cvmfsexec.namespaces.meeting import Card
from cvmfsexec.namespaces.messages import Mailbox, Topic
from cvmfsexec.namespaces.origin import Origin, take_over

if TYPE_CHECKING:
    import socket

_TABLE = "/proc/net/unix"
_LOOK_AGAIN_S = 0.05
_LISTING_PATIENCE_S = 1.0
_NAMESPACE_COUNT_MAX = 4


class Errand(NamedTuple):
    """What is to be run in a session.

    Attributes:
        command: At least one word.
        environment: All of it.
        cwd: Absolute path.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str


class Patience(NamedTuple):
    """How long to wait for a session.

    Attributes:
        appear_s: Until it has a name.
        ready_s: From then on, until it is ready.
    """

    appear_s: float = 0.0
    ready_s: float = 60.0


class KnownSession(NamedTuple):
    """A session of this user, as it is listed.

    Attributes:
        name: As it can be joined.
        pid: Its supervisor's; 0 if it cannot be seen from here.
        card: What it tells; ``None`` while it is not ready.
    """

    name: str
    pid: int
    card: Card | None


class _Invitation(NamedTuple):
    """What a session has sent, and the connection, which is kept.

    Attributes:
        namespaces: Descriptors: user, mount, pid if there is one, the payload's user.
    """

    card: Card
    namespaces: tuple[int, ...]
    connection: "socket.socket"


def run_joined(name: str, errand: Errand, patience: Patience) -> int:
    """Run a command in a session, and return its exit status.

    As with ``run_session``, this process loses standard input and output and all
    inherited descriptors to the command. It must have no threads.

    Raises:
        ConfigurationError: There is no session of this name and user.
        SessionError: It ended before the command could be started.
        NamespaceError: The kernel refused something.
    """
    invitation = _call(name, patience)
    try:
        origin = take_over()
        try:
            return _run(invitation, errand, origin)
        finally:
            signals.restore_mask(origin.signals)
    except OSError as error:
        raise syscalls.refusal_of(error) from error


def list_sessions() -> list[KnownSession]:
    """Return this user's sessions on this node, oldest first.

    Raises:
        NamespaceError: The kernel does not tell.
    """
    try:
        with open(_TABLE, "rb") as table:
            text = os.fsdecode(table.read())
    except OSError as error:
        raise NamespaceError(
            f"cannot read {_TABLE}: {error.strerror}", errno=error.errno or 0
        ) from error
    found = (_look_at(name) for name in names_in(text, os.getuid()))
    known = [session for session in found if session is not None]
    return sorted(known, key=lambda one: (one.card.since_s if one.card else 0, one))


def names_in(table: str, uid: int) -> list[str]:
    """Return the names of a user's sessions in the kernel's table of UNIX sockets.

    Anybody may have made a socket of such a name.
    """
    prefix = "@" + meeting.address_of(uid, "")
    names = set()
    for line in table.split("\n"):
        path = line.rpartition(" ")[2]
        name = path.removeprefix(prefix)
        if name != path and meeting.is_possible_name(name):
            names.add(name)
    return sorted(names)


# -- calling ---------------------------------------------------------------------------


def _look_at(name: str) -> KnownSession | None:
    try:
        connection, pid = _connect(name, _LISTING_PATIENCE_S)
    except (OSError, ConfigurationError):
        return None  # it has ended, or is not ours
    with connection:
        try:
            data = connection.recv(meeting.CARD_BYTES_MAX)
            return KnownSession(name, pid, meeting.decode_card(data)) if data else None
        except TimeoutError:
            return KnownSession(name, pid, None)
        except (OSError, FormatError):
            return None


def _call(name: str, patience: Patience) -> _Invitation:
    if not meeting.is_possible_name(name):
        meeting.check_name(name)
    connection = _connect_in_time(name, patience)
    try:
        return _receive_invitation(name, connection)
    except TimeoutError as error:
        raise SessionError(f"the session {name} is not ready in time") from error
    except (OSError, FormatError) as error:
        raise SessionError(f"the session {name} cannot be joined: {error}") from error


def _connect_in_time(name: str, patience: Patience) -> "socket.socket":
    deadline_s = time.monotonic() + patience.appear_s
    while True:
        try:
            return _connect(name, patience.ready_s)[0]
        except OSError as error:
            if time.monotonic() >= deadline_s:
                raise ConfigurationError(
                    f"there is no session named {name}",
                    hint="see 'cvmfs sessions'; it must be on this node, of this user, "
                    "and not in a container of its own",
                ) from error
        time.sleep(_LOOK_AGAIN_S)


def _connect(name: str, patience_s: float) -> tuple["socket.socket", int]:
    """Return a connection, and the pid of who has taken the name."""
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        # A full queue is waited for as well, which a time limit of Python's is not.
        limit = meeting.time_limit(patience_s)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.connect("\0" + meeting.address_of(os.getuid(), name))
        pid = _pid_of_own(name, connection)
        connection.settimeout(patience_s)
    except BaseException:
        connection.close()
        raise
    return connection, pid


def _pid_of_own(name: str, connection: "socket.socket") -> int:
    pid, uid = meeting.peer_of(connection)
    if uid != os.getuid():
        raise ConfigurationError(f"the session {name} belongs to somebody else")
    return pid


def _receive_invitation(name: str, connection: "socket.socket") -> _Invitation:
    import socket

    data, received, _, _ = socket.recv_fds(
        connection, meeting.CARD_BYTES_MAX, _NAMESPACE_COUNT_MAX
    )
    if not data:
        raise SessionError(f"the session {name} ended before it could be joined")
    for descriptor in received:
        os.set_inheritable(descriptor, False)  # noqa: FBT003 -- as it is
    card = meeting.decode_card(data)
    wanted = 4 if card.isolation is Isolation.PID_NAMESPACE else 3
    if len(received) != wanted:
        raise FormatError("it has sent no namespaces")
    return _Invitation(card, tuple(received), connection)


# -- entering --------------------------------------------------------------------------


def _run(invitation: _Invitation, errand: Errand, origin: Origin) -> int:
    has_pid_namespace = invitation.card.isolation is Isolation.PID_NAMESPACE
    older_children = descendants.list_children()
    # Where no pid namespace ends what the command has left behind, we do.
    syscalls.set_child_subreaper(on=not has_pid_namespace)
    try:
        pid = _start_command(invitation, errand, origin)
        try:
            wait_status = _watch(pid, invitation, origin)
        finally:
            _hang_up(invitation.connection)
        if not has_pid_namespace:
            descendants.end_all(spared=older_children)
        return payload.exit_status_of(wait_status)
    finally:
        syscalls.set_child_subreaper(on=False)
        terminal.rescue_foreground()


def _start_command(invitation: _Invitation, errand: Errand, origin: Origin) -> int:
    """Return the command's pid, once it is what was asked for."""
    *ours, payloads = invitation.namespaces
    kinds = (syscalls.CLONE_NEWUSER, syscalls.CLONE_NEWNS, syscalls.CLONE_NEWPID)
    for descriptor, kind in zip(ours, kinds, strict=False):
        syscalls.setns(descriptor, kind, f"enter the session {invitation.card.name}")
    refusal_out, refusal = os.pipe()
    lifeline_out, lifeline = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        # In a pid namespace whose first process has ended nobody can be born.
        raise SessionError(
            f"the session {invitation.card.name} ended before it could be joined"
        ) from error
    if pid == 0:
        descriptors.close_all((refusal_out, lifeline))
        _become_command(payloads, errand, origin, (refusal, lifeline_out))
    descriptors.close_all((refusal, lifeline_out, *invitation.namespaces))
    refused = Mailbox(refusal_out).receive()  # or its end, by exec
    os.close(refusal_out)
    if refused is not None and refused.topic is Topic.REFUSED:
        os.waitpid(pid, 0)
        raise messages.refusal_in(refused)
    descriptors.let_go(origin.inherited)
    return pid  # the lifeline stays open to our end


def _become_command(
    payloads: int, errand: Errand, origin: Origin, pipes: tuple[int, int]
) -> NoReturn:
    refusal, lifeline = pipes
    status = payload.CANNOT_EXECUTE
    try:
        syscalls.setns(payloads, syscalls.CLONE_NEWUSER, "be the payload's user")
        payload.enter_directory(errand.cwd)
        syscalls.set_parent_death_signal(signal.SIGKILL)
        os.set_blocking(lifeline, False)
        if _is_held(lifeline):
            signals.hand_back(origin.signals)
            status = payload.execute(errand.command, errand.environment)
    except (NamespaceError, OSError) as error:
        messages.send(refusal, messages.about_refusal(error))
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _is_held(lifeline: int) -> bool:
    """Whether the other end is still open; pids say nothing across the namespaces."""
    try:
        return bool(os.read(lifeline, 1))
    except BlockingIOError:
        return True


# -- waiting ---------------------------------------------------------------------------


def _watch(pid: int, invitation: _Invitation, origin: Origin) -> int:
    """Pass on signals until the command has ended; return its wait status.

    When the session ends, the command is asked to end, and killed if it does not.
    """
    connection = invitation.connection
    connection.settimeout(0)
    announce_by_signal(connection.fileno())
    awaited = signals.FORWARDED - origin.signals.ignored
    awaited |= {Signals.SIGCHLD, Signals.SIGIO}
    leads_session = os.getsid(0) == os.getpid()
    kill_at_s: float | None = None
    is_ending = False
    while True:
        if not is_ending and _has_said_goodbye(connection):
            log.warning("the session %s has ended", invitation.card.name)
            is_ending = True
            kill_at_s = time.monotonic() + GRACE_S
            os.kill(pid, Signals.SIGTERM)
            os.kill(pid, Signals.SIGCONT)
        ended, wait_status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return wait_status
        timeout_s = None if kill_at_s is None else kill_at_s - time.monotonic()
        info = signals.wait_for(awaited, timeout_s)
        if info is None:
            os.kill(pid, Signals.SIGKILL)
            kill_at_s = None
        elif not _is_own_event(info) and signals.is_news_to_payload(
            info.si_signo, info.si_code, leads_session=leads_session
        ):
            os.kill(pid, info.si_signo)


def _hang_up(connection: "socket.socket") -> None:
    """Leave the session; what the connection still announces is heard by nobody."""
    connection.close()
    while signal.sigtimedwait({Signals.SIGIO}, 0) is not None:
        pass


def _is_own_event(info: signal.struct_siginfo) -> bool:
    is_by_kernel = info.si_code == signals.SI_KERNEL
    return info.si_signo == Signals.SIGCHLD or (
        info.si_signo == Signals.SIGIO and is_by_kernel
    )


def _has_said_goodbye(connection: "socket.socket") -> bool:
    try:
        connection.recv(len(meeting.GOODBYE))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
