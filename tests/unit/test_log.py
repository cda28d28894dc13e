"""Messages for the user and for the log file, on one line each."""

import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec.log import harmless

ROOT = Path(__file__).resolve().parents[2]

HOSTILE = "one\ntwo\r\x1b[31mred\x07 \udcff \u202e ü"
SPELLED_OUT = r"one\ntwo\r\x1b[31mred\x07 \udcff \u202e ü"

SAY = """
import sys
from cvmfsexec import log
log.speak_as("tool")
log.keep_in(log.LogPlaces("label", file=sys.argv[1]))
log.warning("%s: %d", sys.argv[2], 1)
log.error("100%")
"""


def test_control_characters_are_spelled_out() -> None:
    assert harmless(HOSTILE) == SPELLED_OUT


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_foreign_names_forge_no_lines(tmp_path: Path, locale: str) -> None:
    path = tmp_path / "log/a.example.org.log"
    done = subprocess.run(
        [sys.executable, "-c", SAY, path, HOSTILE],
        env={"PYTHONPATH": str(ROOT / "src"), "LC_ALL": locale},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    said = [f"{SPELLED_OUT}: 1", "100%"]
    assert done.stderr.splitlines() == [f"tool: {text}" for text in said]
    kept = path.read_text(encoding="utf-8").splitlines()
    assert [line.partition("label: ")[2] for line in kept] == said


EACH_LEVEL = """
import sys
from cvmfsexec import log
{setup}
log.keep_in(log.LogPlaces("label", file=sys.argv[1], debug_file=sys.argv[2]))
for say in (log.debug, log.detail, log.info, log.warning, log.error):
    say(say.__name__)
"""
LEVELS = ["debug", "detail", "info", "warning", "error"]


@pytest.mark.parametrize(
    ("setup", "told", "kept"),
    [
        ("", 2, 3),
        ("log.enable_detail()", 4, 4),
        ("log.enable_detail(debug=True)", 5, 4),
    ],
)
def test_each_place_keeps_what_it_is_for(
    tmp_path: Path, setup: str, told: int, kept: int
) -> None:
    done, (file, _) = run_each_level(tmp_path, setup, with_debug_file=False)
    assert done == LEVELS[-told:]
    assert file == LEVELS[-kept:]


@pytest.mark.parametrize("setup", ["", "log.enable_detail()"])
def test_a_debug_file_keeps_everything_and_stderr_stays_as_quiet_as_it_was(
    tmp_path: Path, setup: str
) -> None:
    done, (file, debug_file) = run_each_level(tmp_path, setup, with_debug_file=True)
    assert debug_file == LEVELS
    assert file == LEVELS[1:]
    assert done == LEVELS[-4:] if setup else LEVELS[-2:]


def run_each_level(
    directory: Path, setup: str, *, with_debug_file: bool
) -> tuple[list[str], tuple[list[str], list[str]]]:
    """Say something at each level; return what stderr and two files were told."""
    files = directory / "file", directory / "debug"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            EACH_LEVEL.format(setup=setup),
            files[0],
            files[1] if with_debug_file else "",
        ],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    texts = [file.read_text() if file.exists() else "" for file in files]
    assert bool(texts[1]) is with_debug_file
    first, second = (
        [line.partition("label: ")[2] for line in text.splitlines()] for text in texts
    )
    told = [line.partition("cvmfsexec: ")[2] for line in done.stderr.splitlines()]
    return told, (first, second)


AT_ONCE = """
import sys, threading
from cvmfsexec import log
log.keep_in(log.LogPlaces("label", file=sys.argv[1]))
start = threading.Barrier(16)
def say(number):
    start.wait()
    log.error("%d", number)
threads = [threading.Thread(target=say, args=(number,)) for number in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_the_first_messages_may_come_from_many_threads(tmp_path: Path) -> None:
    for attempt in range(3):
        path = tmp_path / f"{attempt}.log"
        done = subprocess.run(
            [sys.executable, "-c", AT_ONCE, path],
            env={"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        numbers = {str(number) for number in range(16)}
        told = [line.partition("cvmfsexec: ")[2] for line in done.stderr.splitlines()]
        kept = [line.partition("label: ")[2] for line in path.read_text().splitlines()]
        assert (len(told), set(told)) == (16, numbers)
        assert (len(kept), set(kept)) == (16, numbers)
