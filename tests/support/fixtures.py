"""Repositories that the original server tools wrote, unpacked when a test asks.

They lie beside the project in ``../shared/fixtures`` (too big to be part of it); a
test that needs one is skipped, with the reason, where they are absent. Treat what is
returned as read-only: it is shared by all tests of a run.

Functions and no pytest fixtures, so that parametrized data and other support code
can call them too; but call them inside a test or a fixture, never at import, or the
skip takes the whole module along.
"""

import atexit
import functools
import gzip
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORIES = ("conformance.example.org", "shake.example.org", "config.example.org")

_FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"


def fixture_repository(name: str) -> Path:
    """Return the directory of a repository, as a web server would serve it.

    Args:
        name: The fqrn, or its first label (``shake``).
    """
    return _unpacked(_fqrn(name))


def fixture_key() -> bytes:
    """Return the master public key (PEM) that speaks for all of them."""
    return _present("keys/example.org.pub").read_bytes()


def fixture_truth(name: str) -> dict[str, Any]:
    """Return what the original client says about every entry of a repository."""
    return _truth(_fqrn(name))


def _fqrn(name: str) -> str:
    return name if "." in name else f"{name}.example.org"


def _present(relative: str) -> Path:
    path = _FIXTURES / relative
    if not path.exists():
        pytest.skip(f"no fixture {relative}: ../shared/fixtures is not there")
    return path


@functools.cache
def _unpacked(fqrn: str) -> Path:
    archive = _present(f"{fqrn}.tar")
    with tarfile.open(archive) as tar:
        # Python 3.12 wants to be told; early 3.11 knows no filters.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(_directory())  # noqa: S202 -- our own archive
    return _directory() / fqrn


@functools.cache
def _truth(fqrn: str) -> dict[str, Any]:
    with gzip.open(_present(f"{fqrn}.truth.json.gz")) as stream:
        truth: dict[str, Any] = json.load(stream)
    return truth


@functools.cache
def _directory() -> Path:
    directory = tempfile.mkdtemp(prefix="cvmfsexec-fixtures-")
    atexit.register(_remove, directory, os.getpid())
    return Path(directory)


def _remove(directory: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a child that a test forked
        shutil.rmtree(directory)
