"""Compiled modules run without their source, and are the same each time."""

import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec.distribution.bytecode import compile_module
from cvmfsexec.errors import DistributionError

SOURCE = b'X = {"a", "b", "c"}\ndef f(y):\n    return y in {"k", "l", "m", 1, None}\n'


def test_a_compiled_module_is_imported_without_source(tmp_path: Path) -> None:
    (tmp_path / "module.pyc").write_bytes(compile_module(SOURCE, "module.py"))
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import module; print(module.X)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(eval(done.stdout)) == ["a", "b", "c"]  # noqa: S307 -- a set


def test_other_processes_compile_to_the_same() -> None:
    script = (
        "import sys; from cvmfsexec.distribution.bytecode import compile_module\n"
        f"sys.stdout.buffer.write(compile_module({SOURCE!r}, 'm'))"
    )
    for seed in "123":
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        assert done.stdout == compile_module(SOURCE, "m")


@pytest.mark.parametrize("source", [b"def", b"\0", b"# coding: x\n"])
def test_what_is_no_python_is_refused(source: bytes) -> None:
    with pytest.raises(DistributionError, match="cannot compile m"):
        compile_module(source, "m")
