"""Progress bars on a real terminal, and none where there is no terminal."""

import os
import pty
import struct
import subprocess
import sys
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest

from cvmfsexec.cli.progress import _SHOW_AFTER_S

ROOT = Path(__file__).resolve().parents[3]

_QUICK = "time.sleep(0.5); advance(7)"
_STEADY = "[(time.sleep(0.15), advance(2)) for _ in range(5)]"
_STUCK = "time.sleep(0.5)"
_SOON_S = 0.2


def on_terminal(*words: str, streams: Sequence[str] = ("stderr",)) -> bytes:
    """Run a command with these streams on a terminal; return what appears there."""
    ours, theirs = pty.openpty()
    try:
        ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        settings = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        settings.update(dict.fromkeys(streams, theirs))
        process = subprocess.Popen(words, env={"TERM": "xterm"}, **settings)  # type: ignore[call-overload]
    finally:
        os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # what Linux says when the last one has left the terminal
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown


def program(
    work: str,
    begin: str = "progress_bar(10, 'bytes', 'stored') as advance",
    show_after_s: float = _SOON_S,
) -> tuple[str, ...]:
    text = (
        f"import sys, time; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "from cvmfsexec.cli import progress\n"
        "from cvmfsexec.cli.progress import progress_bar, waiting\n"
        f"progress._SHOW_AFTER_S = {show_after_s}\n"
        f"with {begin}: {work}\n"
    )
    return (sys.executable, "-c", text)


def test_what_takes_longer_than_a_second_is_shown() -> None:
    shown = on_terminal(*program(_STEADY))
    assert b"stored:  80%" in shown
    assert b"8.00/10.0" in shown


def test_what_is_quick_is_not() -> None:
    assert on_terminal(*program(_QUICK, show_after_s=_SHOW_AFTER_S)) == b""
    assert _SHOW_AFTER_S == 1


def test_whoever_waits_for_one_thing_sees_that_time_passes() -> None:
    assert b"stored:   0%" in on_terminal(*program(_STUCK))


def test_the_bar_is_wiped_away() -> None:
    last = on_terminal(*program(_STEADY)).rpartition(b"\r ")[2]
    assert last.strip(b" ") == b"\r"


def test_what_cannot_be_counted_is_shown_too() -> None:
    assert b"opening [00:00]" in on_terminal(*program(_STUCK, "waiting('opening')"))


def test_without_a_terminal_nothing_is_shown() -> None:
    done = subprocess.run(program(_STEADY), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize(
    ("streams", "is_shown"),
    [(("stderr",), True), (("stdout", "stderr"), False), (("stdout",), False)],
    ids=["only errors", "both", "only output"],
)
def test_output_on_the_same_terminal_is_progress_enough(
    streams: tuple[str, ...], *, is_shown: bool
) -> None:
    words = program(_STUCK, "progress_bar(None, 'entries', beside_output=True)")
    assert bool(on_terminal(*words, streams=streams)) is is_shown


def test_names_cannot_write_to_the_terminal() -> None:
    shown = on_terminal(*program(_STUCK, r"progress_bar(9, 'B', b'a\x1b[31m\xff')"))
    assert rb"a\x1b[31m\udcff:" in shown
    assert b"\x1b[31m" not in shown
