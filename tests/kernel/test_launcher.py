"""The launchers in the root of the checkout: nothing of a shell is left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sessions import Caller, skip_unless_possible, wait_until

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "cvmfsexec"
SHELLS = [name for name in ("sh", "dash", "bash", "busybox") if shutil.which(name)]
HAS_VENV = (ROOT / ".venv/bin/python").exists()

Line = list[str | Path]

pytestmark = pytest.mark.skipif(not HAS_VENV, reason="no .venv in this checkout")

TELL = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ)], sys.stdout)"

GIVEN = {
    "PATH": os.defpath,
    "LC_ALL": "C.UTF-8",  # or the Python that tells would set LC_CTYPE
    "LC_CTYPE": "C",
    "BASH_FUNC_module%%": '() {  echo "module $@"\n}',
    "with.dot": "x",
    "OLDPWD": "/nowhere",
    "SHLVL": "7",
    "PS1": "$ ",
    "IFS": "/",
    "LARGE": "ü" * 40_000,
}


@pytest.fixture(autouse=True)
def _sessions_are_possible() -> None:
    skip_unless_possible(Caller.ORDINARY)


def run(
    *words: str, shell: str = "sh", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    path = shutil.which(shell) or shell
    interpreter = [path, "sh"] if shell == "busybox" else [path]
    return subprocess.run(
        [*interpreter, str(LAUNCHER), *words],
        env=GIVEN if environment is None else environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_environment_and_words_arrive_as_they_were(shell: str) -> None:
    words = ["", "a  b", "new\nline", "--", "*", "-v"]
    done = run("-N", "--", sys.executable, "-c", TELL, *words, shell=shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [words, GIVEN]


def test_nothing_is_added_to_a_small_environment() -> None:
    done = run("-N", "--", "/usr/bin/env", environment={"A": "1"})
    assert (done.stdout, done.stderr) == ("A=1\n", "")


def test_large_environment_leaves_room_for_the_words() -> None:
    environment = {f"V{i}": "x" * 10_000 for i in range(80)} | {"PATH": os.defpath}
    words = ["y" * 100_000] * 8
    script = 'echo $# ${#8} "${#V79}"'
    done = run("--", "sh", "-c", script, "sh", *words, environment=environment)
    assert (done.stdout, done.stderr) == ("8 100000 10000\n", "")


def test_environment_is_not_among_the_arguments_which_everybody_can_read() -> None:
    script = "tr '\\0' '\\n' < /proc/1/cmdline"
    done = run("--", "sh", "-c", script)
    assert "exec_cmd" in done.stdout
    assert len(done.stdout) < len(GIVEN["LARGE"])


def test_functions_of_bash_are_functions_again() -> None:
    if "bash" not in SHELLS:
        pytest.skip("no bash")
    done = run("--", "bash", "-c", "module load x")
    assert done.stdout == "module load x\n"


@pytest.mark.parametrize("path", ["", "."])
def test_launcher_is_found_in_the_working_directory(path: str) -> None:
    done = subprocess.run(
        ["sh", "-c", "cvmfsexec -v"],
        env={"PATH": f"{path}:{os.defpath}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return launchers of a copy, whose own modules wait while they are imported."""
    for name in ("cvmfs", "cvmfsexec", "scripts/launch"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    package = tmp_path / "src/cvmfsexec/cli"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    for name in ("exec_cmd.py", "main.py"):
        (package / name).write_text(
            "import time\nprint('here', flush=True)\ntime.sleep(60)\n"
        )
    return tmp_path


@pytest.mark.parametrize("name", ["cvmfs", "cvmfsexec"])
def test_interrupt_during_the_imports_is_quiet(copy: Path, name: str) -> None:
    """And a copy of a checkout runs its own modules, not those it was copied from."""
    with subprocess.Popen(
        [copy / name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (-signal.SIGINT, "")


def test_interrupt_does_not_wait_for_a_transfer(tmp_path: Path) -> None:
    """A shell shows 130 for it."""
    etc = tmp_path / "etc/cvmfs"
    (etc / "keys").mkdir(parents=True)
    (etc / "keys/any.pub").write_bytes(b"never used")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = f"CVMFS_SERVER_URL={url}/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"
        settings += "CVMFS_TIMEOUT_DIRECT=120\n"  # so that nothing else ends it
        (etc / "default.local").write_text(settings)
        line: Line = [ROOT / "cvmfs", "ls", "--dist", tmp_path, "a.example.org"]
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
            asked, _ = silent.accept()
            with asked:
                asked.recv(1)
                process.send_signal(signal.SIGINT)
                _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (-signal.SIGINT, "")


def test_interrupted_publication_ends_with_130_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(60):
        (source / f"{number}").write_bytes(os.urandom(1 << 20))
    output = tmp_path / "output"
    line: Line = [ROOT / "cvmfs", "publish", source, "--repository", "a.example.org"]
    line += ["--output", output, "--keys", tmp_path / "keys"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(output.glob("*/data/??/*")), "objects are written")
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "")
    assert not list(output.glob("*/.cvmfspublished"))
    assert not list(output.glob("*/data/txn/*"))
