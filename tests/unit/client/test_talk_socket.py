"""A talk socket: its name, who may connect, and callers that mean no good."""

import os
import select
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cvmfsexec.client import talk_socket
from cvmfsexec.client.talk_socket import (
    MESSAGE_BYTES_MAX,
    TalkSocket,
    dead_sockets_in,
    remove_if_dead,
    sockets_of,
    take_talk_socket,
    talk,
)
from cvmfsexec.errors import CvmfsError, SessionError

FQRN = "test.example.org"
PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGIO)
    yield
    signal.signal(signal.SIGIO, before)


def taken(workspace: Path) -> TalkSocket:
    found = take_talk_socket(str(workspace), FQRN)
    assert found is not None
    return found


def left_behind(path: Path) -> None:
    """Make what a killed session leaves: a socket that nobody listens at."""
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
        dead.listen()


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[TalkSocket]:
    found = taken(tmp_path)
    found.hear(lambda: lambda message: b"heard " + message[:20])
    yield found
    found.close()


def test_the_first_has_the_name_of_the_original(tmp_path: Path) -> None:
    with closing(taken(tmp_path)) as first:
        assert first.path == f"{tmp_path}/cvmfs_io.{FQRN}"
        assert stat.S_IMODE(os.lstat(first.path).st_mode) == 0o600
    assert os.listdir(tmp_path) == []


def test_others_have_numbers_that_no_repository_has(tmp_path: Path) -> None:
    with ExitStack() as stack:
        several = [stack.enter_context(closing(taken(tmp_path))) for _ in range(5)]
        paths = [one.path for one in several]
        assert len(set(paths)) == 5
        assert all(path.startswith(f"{paths[0]}+") for path in paths[1:])
        found = sockets_of(str(tmp_path), FQRN)
        assert (found[0], set(found)) == (paths[0], set(paths))
        (tmp_path / f"cvmfs_io.{FQRN}.other").touch()
        (tmp_path / f"cvmfs_io.{FQRN}+x").touch()
        assert len(sockets_of(str(tmp_path), FQRN)) == 5


def test_what_a_killed_session_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / f"cvmfs_io.{FQRN}"
    left_behind(path)
    with closing(taken(tmp_path)) as first:
        assert first.path == str(path)
        remove_if_dead(str(path))  # it is not dead any more
        assert path.exists()


def test_only_what_is_dead_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / f"cvmfs_io.{FQRN}"
    left_behind(path)
    remove_if_dead(str(path))
    assert not path.exists()
    path.write_text("not a socket")
    remove_if_dead(str(path))
    remove_if_dead(str(tmp_path / "nothing"))


def test_dead_ones_are_found_among_others(tmp_path: Path) -> None:
    dead = tmp_path / f"cvmfs_io.{FQRN}"
    left_behind(dead)
    left_behind(tmp_path / "another")
    (tmp_path / "cvmfs_io.file").touch()
    assert dead_sockets_in(str(tmp_path)) == [str(dead)]
    with closing(taken(tmp_path)):
        assert dead_sockets_in(str(tmp_path)) == []
    assert dead_sockets_in(str(tmp_path / "nothing")) == []


def test_a_socket_of_a_later_session_is_not_taken_away(tmp_path: Path) -> None:
    first = taken(tmp_path)
    os.unlink(first.path)
    with closing(taken(tmp_path)) as second:
        first.close()
        assert os.path.exists(second.path)


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 200) / ("e" * 200)
    deep.mkdir(parents=True)
    with closing(taken(deep)) as found:
        found.hear(lambda: lambda message: message)
        assert talk(found.path, b"deep", PATIENCE_S)[0] == b"deep"


@pytest.mark.parametrize("place", ["nowhere", "file"])
def test_without_a_place_there_is_none(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    assert take_talk_socket(str(tmp_path / place), FQRN) is None


def test_an_exact_path_is_obeyed(tmp_path: Path) -> None:
    wanted = str(tmp_path / "here")
    found = take_talk_socket("/nonexistent", FQRN, wanted)
    assert found is not None
    with closing(found):
        assert found.path == wanted
        assert take_talk_socket("/nonexistent", FQRN, wanted) is None


def test_who_talks_is_answered(echo: TalkSocket) -> None:
    answer, pid = talk(echo.path, b"hello", PATIENCE_S)
    assert (answer, pid) == (b"heard hello", os.getpid())


def test_a_caller_whose_signal_was_lost_is_heard(echo: TalkSocket) -> None:
    while echo._threads:  # that of the beginning would hear without a signal
        time.sleep(0.01)
    signals: list[object] = []

    def be_deaf_once(number: int, _frame: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            echo._notice()

    signal.signal(signal.SIGIO, be_deaf_once)
    assert talk(echo.path, b"hello", PATIENCE_S)[0] == b"heard hello"
    assert len(signals) > 1


def test_nothing_is_prepared_before_somebody_calls(tmp_path: Path) -> None:
    prepared = []

    def prepare() -> talk_socket.Answer:
        prepared.append(threading.current_thread().name)
        return lambda message: message

    with closing(taken(tmp_path)) as found:
        before = threading.active_count()
        found.hear(prepare)
        settle(before)
        assert prepared == []
        for _ in range(3):
            talk(found.path, b"x", PATIENCE_S)
        assert prepared == ["talk"]
        settle(before)  # the thread has gone again


def settle(thread_count: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while threading.active_count() > thread_count:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_who_called_early_is_heard(tmp_path: Path) -> None:
    with closing(taken(tmp_path)) as found, closing(caller(found.path)) as early:
        early.sendall(b"early")
        found.hear(lambda: lambda message: message)
        assert early.recv(100) == b"early"


def caller(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(PATIENCE_S)
    made.connect(path)
    return made


def test_many_at_once_are_all_answered(echo: TalkSocket) -> None:
    callers = []
    answers: list[bytes] = []

    def call(number: int) -> None:
        while True:
            try:
                answers.append(talk(echo.path, b"%d" % number, PATIENCE_S)[0])
            except SessionError:  # the queue is full
                time.sleep(0.01)
            else:
                return

    for number in range(50):
        callers.append(threading.Thread(target=call, args=(number,)))
        callers[-1].start()
    while any(one.is_alive() for one in callers):
        select.select([], [], [], 0.01)  # the signal strikes the main thread
    assert sorted(answers) == sorted(b"heard %d" % number for number in range(50))


def test_who_says_nothing_keeps_nobody_from_talking(
    echo: TalkSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk_socket, "CALLER_PATIENCE_S", 0.2)
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(caller(echo.path))) for _ in range(8)]
        assert talk(echo.path, b"me", PATIENCE_S)[0] == b"heard me"
        assert [one.recv(10) for one in silent] == [b""] * 8


def test_who_never_ends_is_cut_off(echo: TalkSocket) -> None:
    with closing(caller(echo.path)) as flood:
        try:
            flood.sendall(b"x" * (MESSAGE_BYTES_MAX * 8))
            answer = flood.recv(100)
        except OSError:
            answer = b""
    assert len(answer) < 100
    assert talk(echo.path, b"me", PATIENCE_S)[0] == b"heard me"


def test_who_hangs_up_harms_nobody(tmp_path: Path) -> None:
    with closing(taken(tmp_path)) as found:
        found.hear(lambda: lambda _message: b"y" * 10_000_000)
        for _ in range(5):
            with closing(caller(found.path)) as gone:
                gone.sendall(b"x")
        assert len(talk(found.path, b"x", PATIENCE_S)[0]) == 10_000_000


def test_nobody_there_is_an_error_of_ours(tmp_path: Path) -> None:
    left_behind(tmp_path / "dead")
    for name in ("dead", "nothing", "no/where"):
        with pytest.raises(CvmfsError):
            talk(str(tmp_path / name), b"x", PATIENCE_S)
