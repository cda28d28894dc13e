"""The command ``cvmfs`` as a whole: words, statuses, output that goes nowhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec import __version__
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.main import COMMANDS
from tests.support.cvmfs_command import CvmfsCommand, local_dist
from tests.support.published import FQRN
from tests.unit.cli.conftest import Home

SOURCES = Path(__file__).resolve().parents[3] / "src"
READING = ["ls", "cat", "stat", "find", "verify", "tags", "showconfig"]


def test_the_version_is_told(cvmfs: CvmfsCommand) -> None:
    assert cvmfs("--version").lines == [__version__]


def test_every_command_is_in_the_help(cvmfs: CvmfsCommand) -> None:
    told = cvmfs("--help")
    assert told.status == 0
    for name, summary in COMMANDS.items():
        assert f"  {name}" in told.out.decode()
        assert summary in " ".join(told.out.decode().split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(cvmfs: CvmfsCommand, name: str) -> None:
    told = cvmfs(name, "--help")
    assert told.status == 0
    assert COMMANDS[name] in " ".join(told.out.decode().split())


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("ls",),
        ("cat", FQRN),
        ("ls", FQRN, "a", "b"),
        ("find", FQRN, "--type", "x"),
        ("ls", "--nonsense", FQRN),
        ("--dist", "x", "ls", FQRN),
    ],
)
def test_words_that_make_no_sense_are_a_usage_error(
    cvmfs: CvmfsCommand, words: tuple[str, ...]
) -> None:
    told = cvmfs(*words)
    assert told.status == 2
    assert told.out == b""
    assert "usage: cvmfs" in told.err


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize(
    "fqrn", ["../etc", "..", "a/b", "", "x" * 300, "a b", "a\nb", "\udcff", ".hidden"]
)
def test_what_is_no_repository_name_is_refused(
    cvmfs: CvmfsCommand, home: Home, command: str, fqrn: str
) -> None:
    path = ["/"] if command in ("cat", "stat") else []
    told = cvmfs(command, "--dist", home.dist, fqrn, *path)
    assert told.status == exit_codes.CONFIGURATION
    assert told.out == b""
    assert told.err.endswith(
        "is not a repository name; a name looks like atlas.cern.ch\n"
    )
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("command", READING)
def test_without_a_configuration_each_says_so(
    cvmfs: CvmfsCommand, tmp_path: Path, command: str
) -> None:
    path = ["/"] if command in ("cat", "stat") else []
    told = cvmfs(command, "--dist", tmp_path, FQRN, *path)
    assert told.status == exit_codes.CONFIGURATION
    assert told.err.startswith(
        f"cvmfs: no configuration: there is no directory {tmp_path}"
    )


def run_outside(home: Home, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in which ``$cvmfs`` is the command."""
    call = "from cvmfsexec.cli.main import main; main()"
    command = f'{sys.executable} -W error -c "{call}"'
    script = script.replace("$cvmfs", command).replace("$dist", home.dist)
    return subprocess.run(
        ["sh", "-c", script],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_reader_that_has_seen_enough_is_no_error(home: Home) -> None:
    done = run_outside(
        home,
        f"($cvmfs find --dist $dist {FQRN}; echo status $? >&2) | head -n 1",
    )
    assert done.stdout == "/\n"
    assert done.stderr == "status 0\n"


@pytest.mark.parametrize("command", ["ls", "tags", "stat /hello", "cat /large"])
def test_output_that_cannot_be_written_is_one_sentence(
    home: Home, command: str
) -> None:
    name, _, path = command.partition(" ")
    done = run_outside(home, f"$cvmfs {name} --dist $dist {FQRN} {path} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "cvmfs: cannot write the output: No space left on device\n"


def test_what_an_encoding_lacks_is_spelled_out(home: Home, tmp_path: Path) -> None:
    dist = local_dist(
        tmp_path, tmp_path, home.repository.master_key_pem, {"SITE": "Zürich"}
    )
    done = run_outside(
        home, f"PYTHONIOENCODING=ascii $cvmfs showconfig --dist {dist} {FQRN}"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "SITE='Z\\xfcrich'" in done.stdout


def test_closed_output_is_no_reason_to_fail_oddly(home: Home) -> None:
    done = run_outside(home, f"$cvmfs ls --dist $dist {FQRN} >&- 2>&-")
    assert done.returncode in (0, 1)
    done = run_outside(home, "$cvmfs ls --dist $dist ../x >&- 2>&-")
    assert done.returncode == exit_codes.CONFIGURATION
