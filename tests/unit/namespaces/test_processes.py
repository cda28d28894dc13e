"""What works on ordinary processes, without any namespace."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import descendants, descriptors, payload, syscalls
from cvmfsexec.namespaces.signals import take_over


def in_child(function: Callable[[], object]) -> int:
    """Call a function in a fork; return 0 if its answer was true."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if function() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_inherited_descriptors_are_those_without_close_on_exec() -> None:
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)  # noqa: FBT003
    found = descriptors.find_inherited()
    os.close(ours)
    os.close(theirs)
    assert theirs in found
    assert ours not in found


def test_closed_streams_are_occupied_by_what_exec_closes_again() -> None:
    def occupy() -> bool:
        os.close(0)
        os.close(1)
        descriptors.occupy_closed_streams()
        next_one = os.open("/", os.O_RDONLY)
        return not os.get_inheritable(0) and not os.get_inheritable(1) and next_one > 2

    assert in_child(occupy) == 0


def test_letting_go_leaves_standard_error_alone() -> None:
    def let_go() -> bool:
        before = os.fstat(2)
        reading, writing = os.pipe()
        descriptors.let_go((writing,))
        nowhere = os.stat(os.devnull)
        return (
            os.path.samestat(os.fstat(0), nowhere)
            and os.path.samestat(os.fstat(1), nowhere)
            and os.path.samestat(os.fstat(2), before)
            and os.read(reading, 1) == b""
        )

    assert in_child(let_go) == 0


def test_tree_with_daemons_is_ended_as_a_whole() -> None:
    def end_tree() -> bool:
        syscalls.set_child_subreaper(on=True)
        script = "(setsid sleep 300 &) ; (sleep 300 & sleep 300) & echo; sleep 300"
        shell = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
        assert shell.stdout is not None
        shell.stdout.read(1)
        time.sleep(0.05)
        descendants.end_all()
        return not descendants.list_children()

    assert in_child(end_tree) == 0


def test_spared_child_lives() -> None:
    def spare() -> bool:
        spared = subprocess.Popen(["sleep", "300"])
        descendants.end_all(spared=[spared.pid])
        alive = spared.poll() is None
        spared.kill()
        return alive

    assert in_child(spare) == 0


def test_children_are_found_without_the_kernels_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_list(*_: object, **__: object) -> None:
        raise FileNotFoundError

    child = subprocess.Popen(["sleep", "300"])
    with monkeypatch.context() as patch:
        real = open
        patch.setattr(
            "builtins.open",
            lambda path, *a, **k: (
                no_list() if str(path).endswith("children") else real(path, *a, **k)
            ),
        )
        found = descendants.list_children()
    child.kill()
    child.wait()
    assert child.pid in found


@pytest.mark.parametrize(
    ("wait_status", "exit_status"),
    [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143), (11 | 0x80, 139)],
)
def test_exit_status_is_that_of_a_shell(wait_status: int, exit_status: int) -> None:
    assert payload.exit_status_of(wait_status) == exit_status


def test_signals_are_taken_over_and_remembered() -> None:
    def take() -> bool:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2})
        state = take_over()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return (
            state.mask == {signal.SIGUSR2}
            and state.ignored == {signal.SIGHUP, signal.SIGCHLD}
            and {signal.SIGTERM, signal.SIGCHLD, signal.SIGIO} <= blocked
            and signal.SIGTSTP not in blocked
        )

    assert in_child(take) == 0


def test_refused_call_carries_its_facts() -> None:
    with pytest.raises(NamespaceError, match="cannot unmount /nowhere") as caught:
        syscalls.umount2("/nowhere", 0)
    assert caught.value.syscall == "umount2"
    assert caught.value.errno != 0


def test_process_name_is_cut_to_what_the_kernel_keeps() -> None:
    def rename() -> bool:
        syscalls.set_process_name("cvmfs:a-long-repository.example.org")
        with open("/proc/self/comm") as comm:
            return comm.read() == "cvmfs:a-long-re\n"

    assert in_child(rename) == 0


def test_importing_the_door_is_cheap() -> None:
    costly = ("logging", "socket", "json", "subprocess", "dataclasses", "pathlib")
    script = (
        "import sys, cvmfsexec.namespaces.supervisor;"
        f"print([name for name in {costly} if name in sys.modules])"
    )
    line = [sys.executable, "-I", "-c", script]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
