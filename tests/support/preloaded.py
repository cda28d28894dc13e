"""Libraries that stand between programs and the kernel's calls, made on the spot."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def compile_library(directory: Path, name: str, source: str) -> str:
    """Return the path of a new library for ``LD_PRELOAD``; skip if that is impossible.

    Args:
        directory: Gets it; commands of other users must be able to read it.
        name: What it is called.
        source: In C.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = directory / f"{name}.so"
    line = [compiler, "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    done = subprocess.run(line, input=source, text=True, check=False)
    if done.returncode != 0 or not os.access(library, os.R_OK):
        pytest.skip("the C compiler does not work")
    library.chmod(0o755)
    return str(library)
