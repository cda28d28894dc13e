"""The command line of ``cvmfsexec``: the original's grammar, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec import __version__
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.exec_cmd import (
    USAGE,
    Arguments,
    UsageError,
    _names_and_pins,
    _pins,
    parse,
)
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.pinned_name import TAG, Pin

ROOT = Path(__file__).resolve().parents[3]


def arguments(line: str) -> Arguments:
    return parse(line.split())


def run(
    *words: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    program = "from cvmfsexec.cli.exec_cmd import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={"PYTHONPATH": str(ROOT / "src"), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


# -- what is understood --


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("--", Arguments((), ()), id="no repository, no command"),
        pytest.param("-- ls", Arguments((), ("ls",)), id="no repository"),
        pytest.param("a.b --", Arguments(("a.b",), ()), id="no command"),
        pytest.param("a.b c.d -- ls -l", Arguments(("a.b", "c.d"), ("ls", "-l"))),
        pytest.param("a.b -- ls -- -l", Arguments(("a.b",), ("ls", "--", "-l"))),
        pytest.param(
            "-N a.b -- ls",
            Arguments(("a.b",), ("ls",), has_interface=False),
            id="-N",
        ),
        pytest.param(
            "-NN a.b c.d --",
            Arguments(("a.b", "c.d"), (), has_interface=False),
            id="-N twice in a word",
        ),
        pytest.param(
            "-m /i.img a.b --", Arguments(("a.b",), (), image="/i.img"), id="-m"
        ),
        pytest.param(
            "-m/i.img a.b --", Arguments(("a.b",), (), image="/i.img"), id="-m joined"
        ),
        pytest.param(
            "-Nm /i.img a.b --",
            Arguments(("a.b",), (), image="/i.img", has_interface=False),
            id="-Nm",
        ),
        pytest.param(
            "-m /i.img -N a.b --",
            Arguments(("a.b",), (), image="/i.img", has_interface=False),
            id="-m -N",
        ),
        pytest.param("--dist d a --", Arguments(("a",), (), dist="d"), id="--dist"),
        pytest.param("--dist=d a --", Arguments(("a",), (), dist="d"), id="--dist="),
        pytest.param("--dist= --", Arguments((), (), dist=""), id="--dist= empty"),
        pytest.param("--mode 3 --", Arguments((), (), mode="3"), id="--mode"),
        pytest.param("--join s --", Arguments((), (), joined="s"), id="--join"),
        pytest.param("--name=s --", Arguments((), (), name="s"), id="--name"),
        pytest.param(
            "--bind /a:/b --bind=/c:/d --",
            Arguments((), (), binds=("/a:/b", "/c:/d")),
            id="--bind twice",
        ),
        pytest.param(
            "--replace-native --",
            Arguments((), (), replaces_native=True),
            id="--replace-native",
        ),
        pytest.param("--verbose --", Arguments((), (), verbosity=1), id="--verbose"),
        pytest.param("--debug --", Arguments((), (), verbosity=2), id="--debug"),
    ],
)
def test_command_line_is_understood(line: str, expected: Arguments) -> None:
    assert arguments(line) == expected


def test_words_of_the_command_are_not_touched() -> None:
    words = ["", "two words", "-v", "--help", "*", "\udcff", "--"]
    assert parse(["a.b", "--", *words]).command == tuple(words)


@pytest.mark.parametrize(
    "line", ["-v", "-Nv", "-v a.b -- ls", "--version", "-v junk", "-v -q", "-vq"]
)
def test_version_needs_nothing_else(line: str) -> None:
    assert arguments(line).wants_version


@pytest.mark.parametrize("line", ["-h", "--help", "--help a.b", "-N --help"])
def test_help_needs_nothing_else(line: str) -> None:
    assert arguments(line).wants_help


# -- what is not --


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param("", "'--' is missing", id="nothing"),
        pytest.param("a.b", "'--' is missing", id="no --"),
        pytest.param("a.b ls -l", "'--' is missing", id="no -- but words"),
        pytest.param("-q a.b --", "unknown option -q", id="unknown letter"),
        pytest.param("-q -v", "unknown option -q", id="unknown letter before -v"),
        pytest.param("- a.b --", "unknown option -", id="no letter"),
        pytest.param("-Nq a.b --", "unknown option -q", id="unknown second letter"),
        pytest.param("--quiet --", "unknown option --quiet", id="unknown word"),
        pytest.param("--verbose=1 --", "unknown option --verbose=1", id="value"),
        pytest.param("a.b -N --", "-N must come before", id="late -N"),
        pytest.param("a.b -m i --", "-m must come before", id="late -m"),
        pytest.param("-m", "-m needs a value", id="-m at the end"),
        pytest.param("-m -- ls", "-m needs a value", id="-m before --"),
        pytest.param("--dist", "--dist needs a value", id="--dist at the end"),
        pytest.param("--wait 1 --", "--wait is about --join", id="--wait alone"),
        pytest.param("--join s a.b --", "joined as it is", id="--join with more"),
        pytest.param("--join s --name t --", "joined as it is", id="--join and --name"),
        pytest.param("--join s -m i --", "joined as it is", id="--join and -m"),
        pytest.param("--dist -- ls", "--dist needs a value", id="--dist before --"),
    ],
)
def test_command_line_is_refused(line: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        arguments(line)


# -- what comes out --


def test_version_is_a_bare_number() -> None:
    done = run("-v")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def test_usage_error_says_what_is_wrong_and_shows_usage_on_stderr() -> None:
    done = run("-q", "--", "true")
    assert done.returncode == exit_codes.USAGE == 1
    assert done.stdout == ""
    assert done.stderr == f"cvmfsexec: unknown option -q\n{USAGE}"


@pytest.mark.parametrize(
    ("mode", "instead"), [("1", "use mountrepo"), ("4", "use singcvmfs"), ("5", "no")]
)
def test_modes_of_other_commands_are_theirs(mode: str, instead: str) -> None:
    done = run("--mode", mode, "--", "true")
    assert (done.returncode, done.stdout) == (exit_codes.USAGE, "")
    assert instead in done.stderr


@pytest.mark.parametrize("text", ["-1", "1.5", "soon", "9999999", ""])
def test_odd_number_of_seconds_is_refused(text: str) -> None:
    done = run("--join", "nobody", f"--wait={text}", "--", "true")
    assert done.returncode == exit_codes.CONFIGURATION
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["../etc", "a/b.example.org", ".hidden.example.org", "a..b", "a b.c", ""]
)
def test_odd_repository_name_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "etc/cvmfs").mkdir(parents=True)
    done = run("--dist", str(tmp_path), name, "--", "true")
    assert done.returncode == exit_codes.CONFIGURATION
    assert done.stderr.count("\n") == 1


def test_missing_configuration_is_one_sentence_with_a_hint(tmp_path: Path) -> None:
    done = run("--dist", str(tmp_path), "a.example.org", "--", "true")
    assert done.returncode == exit_codes.CONFIGURATION
    assert f"{tmp_path}/etc/cvmfs" in done.stderr
    assert "--dist" in done.stderr
    assert done.stderr.count("\n") == 1


def test_removed_working_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    program = "import os; os.rmdir(os.getcwd());" + (
        "from cvmfsexec.cli.exec_cmd import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--", "sh", "-c", "touch here"],
        cwd=tmp_path / "gone",
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_codes.CONFIGURATION
    assert "working directory" in done.stderr
    assert done.stderr.count("\n") == 1


def test_control_characters_of_a_name_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "etc/cvmfs").mkdir(parents=True)
    done = run("--dist", str(tmp_path), "\x1b[31m.example.org", "--", "true")
    assert "\x1b" not in done.stderr


# -- revisions --


def test_a_repository_has_one_revision_in_a_session() -> None:
    names, pins = _names_and_pins(("a.b@v1", "c.d", "a.b@v1"))
    assert names == ("a.b", "c.d", "a.b")
    assert _pins(names, pins) == {"a.b": Pin(TAG, "v1")}


@pytest.mark.parametrize("typed", [("a.b@v1", "a.b@v2"), ("a.b", "a.b@v1")])
def test_two_revisions_of_one_repository_are_refused(typed: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="in two revisions") as caught:
        _pins(*_names_and_pins(typed))
    assert "another session" in caught.value.hint


def test_names_without_a_revision_cost_no_import() -> None:
    program = (
        "import sys; from cvmfsexec.cli.exec_cmd import _names_and_pins;"
        "_names_and_pins(('a.b',));"
        "print('cvmfsexec.format.pinned_name' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
