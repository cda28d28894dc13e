"""The command ``cvmfs`` in this process, on repositories on the local disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec.cli import main
from tests.support.configuration import make_dist

NO_SETTINGS: Mapping[str, str] = {}


class Told(NamedTuple):
    """What a command said."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.out.decode().splitlines()


class CvmfsCommand:
    """Runs commands; what they write is captured."""

    def __init__(self, captured: pytest.CaptureFixture[bytes]) -> None:
        self._captured = captured

    def __call__(self, *words: str | Path) -> Told:
        """Run ``cvmfs WORDS...``."""
        self._captured.readouterr()
        try:
            status = main._main([str(word) for word in words])
        except SystemExit as ending:
            status = int(ending.code or 0)
        out, err = self._captured.readouterr()
        return Told(status, out, err.decode(errors="surrogateescape"))


def local_dist(
    directory: Path,
    served: Path,
    master_key: bytes,
    settings: Mapping[str, str] = NO_SETTINGS,
) -> str:
    """Make a dist for repositories in a directory, and return its path.

    Args:
        directory: Gets the dist, with the cache in it.
        served: Holds a directory for each repository.
        master_key: Public, PEM.
        settings: Further parameters.
    """
    values = {
        "CVMFS_SERVER_URL": f"file://{served}/@fqrn@",
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_MAX_RETRIES": "0",
        **settings,
    }
    files = {
        "default.local": "".join(
            f"{name}='{value}'\n" for name, value in values.items()
        ),
        "keys/key.pub": master_key.decode(),
    }
    return make_dist(directory, files).dist
