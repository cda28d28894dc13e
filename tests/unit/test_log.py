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
log.keep_in_file(sys.argv[1], "label")
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
