"""What ``mountrepo`` and ``umountrepo`` do inside of a session: they ask it.

A session is known by the variable that says where it hears requests. Where it hears
none (``cvmfsexec -N``), the ids of the process tell: there is one user in a session's
innermost namespace, and outside of that it is uid 0.

Source: docs/reference/mountrepo.md, "Inside of a session".
"""

import errno
import os
import sys
from collections.abc import Mapping, MutableMapping

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.report import report_error, write_message
from cvmfsexec.errors import ConfigurationError, CvmfsError, SessionError
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.requests import (
    DESCRIPTOR_VARIABLE,
    Request,
    Verb,
    ask,
    is_channel,
)

MOUNT_VARIABLE = "CVMFSMOUNT"
UNMOUNT_VARIABLE = "CVMFSUMOUNT"
_COMMANDS = {MOUNT_VARIABLE: "mountrepo", UNMOUNT_VARIABLE: "umountrepo"}
_VARIABLES = (*_COMMANDS, DESCRIPTOR_VARIABLE, "CVMFSEXEC_WAITFIFO")


def is_inside(environment: Mapping[str, str]) -> bool:
    """Whether this process is the payload of a session."""
    if DESCRIPTOR_VARIABLE in environment:
        return True
    if not os.getuid():
        return False  # root's map looks like that in many places
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            words = file.read().split()
    except OSError:
        return False
    return words == [str(os.getuid()), "0", "1"]


def request_mount(name: str, environment: Mapping[str, str]) -> int:
    """Have a repository mounted by the session; return the exit status."""
    return _request("mountrepo", Request(Verb.MOUNT, name), environment)


def request_unmount(name: str, environment: Mapping[str, str], *, is_lazy: bool) -> int:
    """Have a repository unmounted by the session; return the exit status.

    Args:
        name: Empty for all.
        environment: Says where to ask.
        is_lazy: It is wanted even if it is in use.
    """
    if is_lazy or not name:
        option = "-z" if is_lazy else "-a"
        write_message("umountrepo", f"option {option} is not possible in a session")
        return exit_codes.USAGE
    return _request("umountrepo", Request(Verb.UNMOUNT, name), environment)


def leave_outer_session(environment: MutableMapping[str, str]) -> None:
    """Forget the session that this command runs in; its payload gets another one."""
    text = environment.get(DESCRIPTOR_VARIABLE, "")
    if text.isdecimal() and len(text) < 10 and int(text) > 2 and is_channel(int(text)):
        os.close(int(text))
    for name in _VARIABLES:
        environment.pop(name, None)


def offer_commands(environment: MutableMapping[str, str], directory: str) -> None:
    """Let a payload know the commands that ask."""
    for variable, command in _COMMANDS.items():
        environment[variable] = os.path.join(directory, command)


def _request(program: str, request: Request, environment: Mapping[str, str]) -> int:
    try:
        answer = _ask(request, environment)
    except SessionError as error:
        report_error(program, error)
        return exit_codes.UNKNOWN_ERROR
    except CvmfsError as error:
        report_error(program, error)
        return exit_codes.exit_status_of(error)
    is_done = answer.topic is Topic.READY
    if _is_refused(answer, errno.EINVAL):
        sys.stderr.write(f"{answer.text}\n")  # as the original has it
        return exit_codes.UNKNOWN_ERROR
    if request.verb is Verb.UNMOUNT and (is_done or _is_refused(answer, errno.EBUSY)):
        print("Unmounting", answer.sender or request.name, flush=True)
    if not is_done:
        write_message(program, answer.text, answer.hint)
    return _status_of(answer)


def _is_refused(answer: Message, number: int) -> bool:
    return answer.topic is Topic.REFUSED and answer.number == number


def _ask(request: Request, environment: Mapping[str, str]) -> Message:
    from cvmfsexec.format.names import check_fqrn

    check_fqrn(request.name)
    text = environment.get(DESCRIPTOR_VARIABLE)
    if text is None:
        raise SessionError(
            "nothing can be requested from this session: it was started with -N, or "
            "this command has joined it"
        )
    if not text.isdecimal() or len(text) > 9:
        raise ConfigurationError(f"{DESCRIPTOR_VARIABLE} is no descriptor's number")
    return ask(int(text), request)


def _status_of(answer: Message) -> int:
    if answer.topic is Topic.READY:
        return exit_codes.OK
    if answer.topic is Topic.LOST:
        return exit_codes.FILE_SERVER_DIED
    if answer.topic is Topic.FAILED:
        return answer.number or exit_codes.UNKNOWN_ERROR
    if answer.number == errno.EBUSY:
        return exit_codes.BUSY
    if answer.number == errno.EAGAIN:
        return exit_codes.UNKNOWN_ERROR
    return exit_codes.MOUNT_FAILED
