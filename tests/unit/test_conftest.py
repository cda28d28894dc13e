"""Tests are judged, and started, the same way by whomever they are started."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DEAF = 'trap "" HUP INT QUIT TERM USR1; exec "$@"'

ASK = """
import subprocess
from tests.conftest import pytest_sessionstart
pytest_sessionstart()
subprocess.run(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"], check=True)
"""


def test_tests_start_sessions_with_the_signals_of_a_login() -> None:
    asked = subprocess.run(
        ["sh", "-c", DEAF, "sh", sys.executable, "-c", ASK],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    masks = dict(line.split(":\t") for line in asked.stdout.splitlines())
    of_c_library = 0b11 << 31
    assert {name: int(m, 16) & ~of_c_library for name, m in masks.items()} == {
        "SigBlk": 0,
        "SigIgn": 0,
    }
