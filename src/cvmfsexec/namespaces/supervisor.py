"""The supervisor: the process that the user started, and whose end is the session's.

It stays on the host and in its namespaces. It passes on signals, and waits for init.
It is single-threaded and waits in ``sigwaitinfo`` alone.
"""

import os
import signal
from functools import partial
from signal import Signals
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.errors import NamespaceError, ServiceFailedError, SessionError
from cvmfsexec.namespaces import (
    descendants,
    descriptors,
    messages,
    signals,
    syscalls,
    terminal,
)
from cvmfsexec.namespaces.founder import Session, found_session
from cvmfsexec.namespaces.isolation import Isolation
from cvmfsexec.namespaces.meeting import Place, take_place
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.origin import Origin, take_over
from cvmfsexec.namespaces.plan import SessionPlan

if TYPE_CHECKING:
    from cvmfsexec.namespaces.host_services import HostServices, HostSide


def run_session(plan: SessionPlan, host_side: "HostSide | None" = None) -> int:
    """Run a command with its file servers; return when nothing is left of either.

    From its start this process is the session's supervisor. It loses standard input
    and output and all inherited descriptors to the payload, for good. It must have
    no threads.

    Args:
        plan: What to run.
        host_side: File servers that run on the host instead of in the session.

    Returns:
        The command's exit status, 128+n if signal n ended it, 126 if it could not be
        executed, 127 if it was not found (that was logged then).

    Raises:
        ConfigurationError: The session's name is taken.
        NamespaceError: The plan is impossible, or the kernel refused something; the
            hint says what was found to be the reason.
        ServiceFailedError: A file server could not start; in its own words.
        SessionError: A process of the session was killed, or ended unexpectedly.
    """
    plan.check()
    try:
        origin = take_over()
        try:
            if host_side is not None:
                return _run_with_host_side(plan, origin, host_side)
            return _run(plan, origin)
        finally:
            signals.restore_mask(origin.signals)
    except OSError as error:
        raise _with_hint(syscalls.refusal_of(error)) from error
    except NamespaceError as error:
        raise _with_hint(error) from error.__cause__


def _run_with_host_side(plan: SessionPlan, origin: Origin, host: "HostSide") -> int:
    from cvmfsexec.namespaces.host_services import HostServices
    from cvmfsexec.namespaces.keeper import start_keeper

    keeper = start_keeper(host.clear_away, foreign=origin.inherited)
    try:
        services = HostServices(host, origin, plan.native.names)
        try:
            early_end = services.start()
            if early_end is not None:
                return _conclude(early_end)
            shown = tuple(
                one for one in plan.host_mounts if one.name in services.ready_names
            )
            return _run(plan._replace(host_mounts=shown), origin, services)
        finally:
            host.clear_away()
            services.end()
    finally:
        keeper.dismiss()


def _run(
    plan: SessionPlan, origin: Origin, host_services: "HostServices | None" = None
) -> int:
    place = take_place(plan.name)
    try:
        return _run_at(place, plan, origin, host_services)
    finally:
        place.leave()


def _run_at(
    place: Place,
    plan: SessionPlan,
    origin: Origin,
    host_services: "HostServices | None",
) -> int:
    syscalls.set_child_subreaper(on=True)
    try:
        if not plan.outlasts_command:
            try:
                session = found_session(plan, origin, Isolation.PID_NAMESPACE, place)
            except NamespaceError as error:
                if _is_about_fuse(error):
                    raise  # nothing that another try could change
                log.debug("no session with a pid namespace: %s", error)
            else:
                syscalls.set_child_subreaper(on=False)
                return _conclude(_supervise(session, origin, place, host_services))
        older_children = descendants.list_children()
        session = found_session(plan, origin, Isolation.PROCESS_TREE, place)
        verdict = _supervise(session, origin, place, host_services)
        # Nothing is left to do, unless init was killed and could not do it.
        descendants.end_all(spared=older_children)
        return _conclude(verdict)
    finally:
        syscalls.set_child_subreaper(on=False)
        terminal.rescue_foreground()


def _with_hint(error: NamespaceError) -> NamespaceError:
    from cvmfsexec.namespaces import hints

    error.hint = error.hint or hints.find_hint(error)
    return error


def _is_about_fuse(error: NamespaceError) -> bool:
    from cvmfsexec.namespaces import hints

    return hints.is_about_fuse(error)


def _supervise(
    session: Session,
    origin: Origin,
    place: Place,
    host_services: "HostServices | None",
) -> Message:
    """Stay with a session to its end; return what became of it."""
    descriptors.let_go(origin.inherited)
    if host_services is None:
        wait_status = _watch(session, origin)
    else:
        host_services.watch_for(
            partial(_signal_payload, session),
            (session.control, session.mailbox.descriptor, place.listener),
        )
        wait_status = _watch_with_host_services(session, origin, host_services)
    os.set_blocking(session.mailbox.descriptor, False)
    heard = session.mailbox.drain()
    descriptors.close_all((session.control, session.mailbox.descriptor))
    if host_services is not None and host_services.failure is not None:
        return host_services.failure
    if heard:
        return heard[-1]
    how = signals.describe_end(wait_status)
    return Message(Topic.LOST, text=f"the session's init process {how}")


def _watch(session: Session, origin: Origin) -> int:
    """Pass on signals until init has ended; return its wait status."""
    # What the user's shell has ignored for us stays ignored.
    awaited = (signals.FORWARDED - origin.signals.ignored) | {Signals.SIGCHLD}
    leads_session = os.getsid(0) == os.getpid()
    while True:
        info = signal.sigwaitinfo(awaited)
        if info.si_signo == Signals.SIGCHLD:
            pid, wait_status = os.waitpid(session.init_pid, os.WNOHANG)
            if pid:
                return wait_status
        elif signals.is_news_to_payload(
            info.si_signo, info.si_code, leads_session=leads_session
        ):
            _signal_payload(session, info.si_signo)


def _signal_payload(session: Session, number: int) -> None:
    messages.send_bytes(session.control, bytes((number,)))


def _watch_with_host_services(
    session: Session, origin: Origin, host_services: "HostServices"
) -> int:
    """As ``_watch``, with file servers that may end and have signals to pass on."""
    awaited = (signals.FORWARDED - origin.signals.ignored) | {
        Signals.SIGCHLD,
        Signals.SIGIO,
    }
    leads_session = os.getsid(0) == os.getpid()
    while True:
        info = signals.wait_for(awaited, host_services.time_left_s)
        if info is None:
            host_services.lose_patience()
        elif info.si_signo == Signals.SIGCHLD:
            pid, wait_status = os.waitpid(session.init_pid, os.WNOHANG)
            if pid:
                return wait_status
            host_services.look_round()
        elif info.si_signo == Signals.SIGIO and (
            info.si_code == signals.SI_KERNEL or info.si_pid == os.getpid()
        ):
            host_services.look_round()
        elif signals.is_news_to_payload(
            info.si_signo, info.si_code, leads_session=leads_session
        ) and not host_services.is_repeat(info.si_signo):
            _signal_payload(session, info.si_signo)


def _conclude(verdict: Message) -> int:
    if verdict.topic is Topic.ENDED:
        return verdict.number
    if verdict.topic is Topic.REFUSED:
        raise messages.refusal_in(verdict)
    if verdict.topic is Topic.FAILED:
        raise ServiceFailedError(verdict.text, hint=verdict.hint, status=verdict.number)
    raise SessionError(f"{verdict.text}; the session has ended")
