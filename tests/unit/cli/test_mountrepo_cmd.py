"""The command lines of mountrepo and umountrepo."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.cli import mountrepo_cmd, umountrepo_cmd
from cvmfsexec.cli.mount_words import Arguments

ROOT = Path(__file__).resolve().parents[3]
WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            ["-a", "-z", "-az", "--", "--dist", "--dist=x", "--help", "a.b"]
        ),
        st.text(max_size=8),
    ),
    max_size=5,
)


def run(command: str, *words: str, dist: str = "") -> subprocess.CompletedProcess[str]:
    program = f"from cvmfsexec.cli.{command}_cmd import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={"PYTHONPATH": str(ROOT / "src"), "CVMFSEXEC_DIST": dist},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "line",
    [
        "mountrepo",
        "mountrepo a.b c.d",
        "mountrepo -x",
        "mountrepo -a",
        "mountrepo --dist",
        "mountrepo a.b --verbose",
        "umountrepo",
        "umountrepo -z",
        "umountrepo -a a.b",
        "umountrepo a.b c.d",
        "umountrepo -x",
        "umountrepo --dist x",
    ],
)
def test_other_words_get_usage_and_the_original_status(line: str) -> None:
    command, *words = line.split()
    done = run(command, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Usage: {command} ")


@pytest.mark.parametrize("command", ["mountrepo", "umountrepo"])
def test_help_is_no_error(command: str) -> None:
    done = run(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {command} ")


@pytest.mark.parametrize(
    ("line", "wants_all", "is_lazy", "repository"),
    [
        ("a.b", False, False, "a.b"),
        ("-z a.b", False, True, "a.b"),
        ("-a", True, False, ""),
        ("-z -a", True, True, ""),
        ("-a -z", True, True, ""),
        ("-az", True, True, ""),
        ("--dist x -a", True, False, ""),
    ],
)
def test_umountrepo_takes_what_the_original_takes(
    line: str, *, wants_all: bool, is_lazy: bool, repository: str
) -> None:
    arguments = umountrepo_cmd.parse(line.split())
    assert arguments is not None
    assert arguments.wants_all is wants_all
    assert arguments.is_lazy is is_lazy
    assert arguments.repository == repository


def test_mountrepo_takes_options_before_the_repository() -> None:
    arguments = mountrepo_cmd.parse(["--dist=d", "--verbose", "--allow-other", "a.b"])
    assert arguments == Arguments("a.b", allow_other=True, dist="d", verbosity=1)


@given(words=WORDS)
def test_any_words_are_understood_or_not(words: list[str]) -> None:
    mounting = mountrepo_cmd.parse(words)
    assert mounting is None or mounting.wants_help or mounting.repository in words
    unmounting = umountrepo_cmd.parse(words)
    if unmounting is not None and not unmounting.wants_help:
        assert unmounting.wants_all or unmounting.repository in words


@pytest.mark.parametrize("command", ["mountrepo", "umountrepo"])
def test_without_a_configuration_it_is_said(command: str, tmp_path: Path) -> None:
    done = run(command, "a.example.org", dist=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{command}: no configuration: ")


@pytest.mark.parametrize("name", ["../etc", "a/b.example.org", "a..b", ".a.b", "a b.c"])
@pytest.mark.parametrize("command", ["mountrepo", "umountrepo"])
def test_what_is_no_name_is_refused(command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "etc/cvmfs").mkdir(parents=True)
    done = run(command, name, dist=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "cvmfs").exists()
