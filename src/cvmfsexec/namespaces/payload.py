"""The payload's process: from the fork to the user's command."""

import errno
import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from cvmfsexec import log
from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import identity, messages, signals, syscalls
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.origin import Origin
from cvmfsexec.namespaces.plan import SessionPlan
from cvmfsexec.namespaces.requests import DESCRIPTOR_VARIABLE

CANNOT_EXECUTE = 126
COMMAND_NOT_FOUND = 127
SIGNALLED = 128
"""Exit statuses as every shell has them; the last is the base for signal numbers."""


def become_payload(
    plan: SessionPlan, origin: Origin, init_pid: int, mailbox: int, channel: int
) -> NoReturn:
    """Be the user again, and then the user's command.

    Called in a process that init has just forked. Where that is impossible, init is
    told through the mailbox.

    Args:
        plan: What to run.
        origin: What the user's process was like.
        init_pid: The parent.
        mailbox: Pipe to init.
        channel: For requests from inside; -1 for none.
    """
    status = CANNOT_EXECUTE
    try:
        _become_user(origin)
        enter_directory(plan.cwd)
        messages.send(mailbox, Message(Topic.STARTED))
        syscalls.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() == init_pid:
            signals.hand_back(origin.signals)
            environment = dict(plan.environment)
            if channel >= 0:
                os.set_inheritable(channel, True)  # noqa: FBT003 -- has no other form
                environment[DESCRIPTOR_VARIABLE] = str(channel)
            status = execute(plan.command, environment)
    except (NamespaceError, OSError) as error:
        messages.send(mailbox, messages.about_refusal(error))
    except BaseException:  # noqa: BLE001 -- the border of a process
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def execute(command: tuple[str, ...], environment: Mapping[str, str]) -> int:
    """Become a command; on return, its answer is the exit status that says why not."""
    name = command[0]
    if not name:
        log.error("%r: command not found", name)
        return COMMAND_NOT_FOUND
    try:
        _execute_as_execvp_does(command, environment)
    except OSError as error:
        return _explain(name, error, environment)
    except ValueError as error:  # NUL in a word; "=" in the name of a variable
        log.error("cannot execute %s: %s", name, error)
    return CANNOT_EXECUTE


def exit_status_of(wait_status: int) -> int:
    """Return the exit status that a shell would give for an ended process."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else SIGNALLED - code


def _execute_as_execvp_does(
    command: tuple[str, ...], environment: Mapping[str, str]
) -> None:
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 -- what we are for
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # A script without "#!" is the shell's, as execvp(3) has it but Python has not.
        script = os.fsdecode(error.filename)
        os.execve("/bin/sh", ("sh", script, *command[1:]), environment)  # noqa: S606


def _explain(name: str, error: OSError, environment: Mapping[str, str]) -> int:
    """Say why a command was not executed, and return the exit status that says it."""
    if "/" not in name:
        places = [os.path.join(one, name) for one in os.get_exec_path(environment)]
        if not any(map(os.path.exists, places)):
            # A directory of PATH that may not be searched is no reason either.
            log.error("%s: command not found", name)
            return COMMAND_NOT_FOUND
    elif not os.path.exists(name):
        log.error("%s: %s", name, error.strerror)
        return COMMAND_NOT_FOUND
    if isinstance(error, FileNotFoundError):
        # The kernel says so when a script is there but the program in its "#!" is not.
        log.error("cannot execute %s: its interpreter is missing", name)
    else:
        log.error("cannot execute %s: %s", name, error.strerror)
    return CANNOT_EXECUTE


def _become_user(origin: Origin) -> None:
    syscalls.unshare(syscalls.CLONE_NEWUSER, "create the payload's user namespace")
    identity.map_identity(inside=origin.identity, outside=identity.ROOT)


def enter_directory(path: str) -> None:
    """Go to the user's working directory.

    Raises:
        NamespaceError: It cannot be entered in the session.
    """
    # Elsewhere than where the user was, the command could do harm.
    try:
        os.chdir(path)
    except OSError as error:
        purpose = f"enter {path} inside the session"
        raise syscalls.refusal("chdir", error.errno or 0, purpose) from error
