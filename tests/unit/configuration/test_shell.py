"""Evaluation by a shell: the original's semantics, within limits."""

import os
import time
from pathlib import Path

import pytest

from cvmfsexec.configuration.assignments import assigned_names
from cvmfsexec.configuration.files import ConfigurationFile
from cvmfsexec.configuration.shell import evaluate_in_shell
from cvmfsexec.errors import ConfigurationError
from tests.support.descriptors import descriptor_count

ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "CVMFS_OLD": "old"}


def evaluate(
    path: Path, text: str, *, program: str = "/bin/sh", time_limit_s: float = 20
) -> dict[str, str]:
    path.write_bytes(os.fsencode(text))
    return evaluate_in_shell(
        ConfigurationFile(str(path), "the file"),
        assigned_names(text),
        ENVIRONMENT,
        shell=program,
        time_limit_s=time_limit_s,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "it's a $HOME" / "domain.d"
    directory.mkdir(parents=True)
    (directory.parent / "common.conf").write_text("COMMON=c\nURL=$URL/c\n")
    return directory / "-n '$x.conf"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A='x   y'\nB=\"  $A \"\n", {"A": "x y", "B": "x y"}),
        ("A=$CVMFS_OLD:new\n", {"A": "old:new"}),
        ("A=$(echo 1)$((1 + 1))\n", {"A": "12"}),
        ("f() { A=1; }\nA=0\nf\n", {"A": "1"}),
        ("A=*.conf\n", {"A": "-n '$x.conf"}),
        ("if false; then A=1\nB=2\nfi\n", {"B": ""}),
        ("case $CVMFS_OLD in\n old)\n  A=1\n ;;\nesac\n", {"A": "1"}),
        ("URL=u\n. ../common.conf\n", {"URL": "u/c"}),
        ("A=1\nreturn\nA=2\n", {"A": "1"}),
        ("echo spoils\nA=1\necho nothing >&2\n", {"A": "1"}),
        ("A=1\ncat\nread A\n", {"A": ""}),
        ("A=Größe\n", {"A": "Größe"}),
        ("A=\udcff\n", {"A": "\udcff"}),
        ("A=1", {"A": "1"}),
        ("false\nA=1\nfalse", {"A": "1"}),
        ("A='1\n2'\n", {"A": "1 2"}),
        ("A=${NO:-d}\nreadonly B=1\nexport C=2\n", {"A": "d", "B": "1", "C": "2"}),
    ],
)
def test_values_are_what_echo_prints_after_the_file(
    file: Path, text: str, values: dict[str, str]
) -> None:
    assert evaluate(file, text) == values


@pytest.mark.parametrize(
    "text",
    [
        "A=1\nexit 0\n",
        "A=1\nif [\n",
        "readonly A=1\nA=2\n",
        ". ./absent\nA=1\n",
        "A='1\n",
    ],
    ids=["exit", "syntax", "readonly", "source", "quote"],
)
def test_file_that_ends_its_shell_is_an_error(file: Path, text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"cannot evaluate .* the file"
    ) as caught:
        evaluate(file, text)
    assert caught.value.hint


def test_complaint_of_the_shell_is_told(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        evaluate(file, ". ./absent.conf\nA=1\n")


def test_hanging_file_is_cut_off(file: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"longer than 0\.2 s"):
        evaluate(file, "sleep 60\nA=1\n", time_limit_s=0.2)
    assert time.monotonic() - begin < 10


def test_endless_output_is_cut_off(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="too much output"):
        evaluate(file, "while :; do echo xxxxxxxxxxxxxxx >&2; done\nA=1\n")


def test_nothing_that_a_file_started_survives(file: Path, tmp_path: Path) -> None:
    record = tmp_path / "pid"
    text = f"sleep 60 &\necho $! >'{record}'\nA=1\n"
    assert evaluate(file, text) == {"A": "1"}
    pid = int(record.read_text())
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_no_descriptor_is_left_open_or_given_away(file: Path, tmp_path: Path) -> None:
    before = descriptor_count()
    with (tmp_path / "secret").open("w") as secret:
        answer = evaluate(file, "A=$(ls /proc/$$/fd | sort -n | tr '\\n' ,)\n")
        assert str(secret.fileno()) not in answer["A"].split(",")
    assert descriptor_count() == before


def test_missing_shell_is_an_error(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot run /nonexistent"):
        evaluate(file, "A=1\n", program="/nonexistent")


def test_works_when_standard_descriptors_are_closed(file: Path) -> None:
    file.write_text("A=$(echo 1)\n")
    names = ("A",)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover -- another process
        saved = os.dup2(write_end, 20)
        for fd in range(10):
            try:
                os.close(fd)
            except OSError:
                continue
        answer = evaluate_in_shell(
            ConfigurationFile(str(file), "f"), names, ENVIRONMENT
        )
        os.write(saved, answer["A"].encode())
        os._exit(0)
    os.close(write_end)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(read_end, 10) == b"1"
    os.close(read_end)
