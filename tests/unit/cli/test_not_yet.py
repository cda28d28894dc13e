"""Commands that are still to come read their words as the original does."""

import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec import __version__
from cvmfsexec.cli import exit_codes

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("singcvmfs",)


def run(line: str) -> subprocess.CompletedProcess[str]:
    command, *words = line.split()
    program = f"from cvmfsexec.cli.{command}_cmd import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "line",
    [
        "singcvmfs exec image ls",
        "singcvmfs --pwd / run image",
        "singcvmfs version",
    ],
)
def test_understood_words_are_declined_in_one_sentence(line: str) -> None:
    done = run(line)
    assert (done.returncode, done.stdout) == (exit_codes.NOT_AVAILABLE, "")
    command = line.partition(" ")[0]
    assert done.stderr.startswith(f"{command}: not available in this version; ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("singcvmfs", 1),
        ("singcvmfs --debug", 1),
    ],
)
def test_other_words_get_usage_and_the_original_status(line: str, status: int) -> None:
    done = run(line)
    assert (done.returncode, done.stdout) == (status, "")
    command = line.partition(" ")[0]
    assert done.stderr.startswith(f"Usage: {command} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_to_do_instead(command: str) -> None:
    done = run(f"{command} --help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not available in this version: " in done.stdout


def test_singcvmfs_tells_the_version() -> None:
    done = run("singcvmfs -V")
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")
