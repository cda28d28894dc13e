"""The process that takes away what another one leaves behind."""

import os
import signal
import time
from functools import partial
from pathlib import Path

from cvmfsexec.namespaces.keeper import start_keeper


def write(path: Path) -> None:
    path.write_text(str(os.getpid()))


def test_it_acts_when_it_is_dismissed_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "cleared"
    keeper = start_keeper(partial(write, path))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP):
        os.kill(keeper.pid, number)
    assert not path.exists()
    keeper.dismiss()
    assert path.read_text() == str(keeper.pid)


def test_it_acts_when_its_owner_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "cleared"
    reading, writing = os.pipe()
    owner = os.fork()
    if owner == 0:
        os.close(reading)
        start_keeper(partial(write, path), foreign=(writing,))
        os.write(writing, b"x")
        time.sleep(60)
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    os.close(reading)
    deadline_s = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    assert path.exists()
