"""A session whose payload reads a tree file by file, as a test tells it to.

No file is read twice, so that each read needs an object that the client lacks.
"""

import contextlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.commands import SYSTEM_PYTHON, started_exec
from tests.support.published import FQRN, Tree
from tests.support.reading_payload import LONG, content_of
from tests.support.sessions import ROOT, Started

AREAS, FILES, LONG_FILES = 8, 150, 3
PATIENCE_S = 60.0
"""For a number of reads; those of which each has to wait for a time limit, too."""


def large_tree() -> Tree:
    """Return a tree of distinct files, each of whose directories has a catalog."""
    paths = [f"f{number}" for number in range(LONG_FILES)]
    tree: dict[str, Tree] = {
        f"area{area}": {
            ".cvmfscatalog": b"",
            **{
                f"f{number}": content_of(f"area{area}/f{number}")
                for number in range(FILES)
            },
        }
        for area in range(AREAS)
    }
    return {**tree, LONG: {name: content_of(f"{LONG}/{name}") for name in paths}}


class TreeReader:
    """The session; its payload waits for work."""

    def __init__(self, session: Started) -> None:
        self._session = session
        # Not in the order of names, in which they could be fetched ahead.
        self._long_paths = [f"{LONG}/f{number}" for number in range(LONG_FILES)]
        self._paths = [
            f"area{area}/f{number * 67 % FILES}"
            for area in range(AREAS)
            for number in range(FILES)
        ]
        self._begun = 0
        self._finished = 0
        self._text = ""

    def read(self, count: int) -> set[str]:
        """Read some more files; return the different outcomes."""
        self.begin(count)
        return self.finish()

    def begin(self, count: int) -> None:
        """Let some more files be read."""
        assert len(self._paths) >= count, "the tree has been read"
        paths, self._paths = self._paths[:count], self._paths[count:]
        self._begin(paths)

    def enter_next_area(self) -> None:
        """Leave out what may have been fetched ahead; the next read is a new one."""
        area, _, _ = self._paths[0].partition("/")
        self._paths = [path for path in self._paths if not path.startswith(f"{area}/")]

    def begin_long(self) -> None:
        """Let a file be read whose transfer takes a while."""
        self._begin([self._long_paths.pop()])

    def _begin(self, paths: list[str]) -> None:
        self._begun += len(paths)
        assert self._session.process.stdin is not None
        self._session.process.stdin.write("".join(f"{path}\n" for path in paths))
        self._session.process.stdin.flush()

    def begin_all(self) -> None:
        """Let the rest be read."""
        self.begin(len(self._paths))

    def finish(self) -> set[str]:
        """Wait until all is read that was begun; return the different outcomes."""
        outcomes = set(self._outcomes(self._begun - self._finished))
        self._finished = self._begun
        return outcomes

    def wait_for_reads(self, count: int) -> None:
        """Wait until so many files more have been read, and well."""
        assert set(self._outcomes(count)) == {"ok"}
        self._finished += count

    def end(self) -> tuple[int, list[str]]:
        """Let the session end; return its status, and the lines that it said."""
        _, said = self._session.process.communicate(timeout=PATIENCE_S)
        return self._session.process.returncode, said.splitlines()

    def file_server_pid(self) -> int:
        """Return the number of the process that serves the repository."""
        return self._session.pid_of(f"cvmfs:{FQRN}"[:15])

    def _outcomes(self, count: int) -> list[str]:
        deadline_s = time.monotonic() + PATIENCE_S
        while self._text.count("\n") < count:
            self._receive(deadline_s - time.monotonic())
        *lines, self._text = self._text.split("\n", count)
        return [line.split()[1] for line in lines]

    def _receive(self, patience_s: float) -> None:
        process = self._session.process
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], max(patience_s, 0))
        assert ready, f"reads hang: {self._begun} begun, {self._finished} finished"
        received = os.read(process.stdout.fileno(), 1 << 16)
        if not received:
            assert process.stderr is not None
            raise AssertionError(f"the session ended: {process.stderr.read()}")
        self._text += received.decode()


@contextlib.contextmanager
def started_reader(dist: Path, before: tuple[str, ...] = ()) -> Iterator[TreeReader]:
    """Start a session of a client; it is ready to be told what to read."""
    script = str(ROOT / "tests/support/reading_payload.py")
    line = (FQRN, "--", SYSTEM_PYTHON, script, f"/cvmfs/{FQRN}")
    with started_exec(dist, *line, takes_input=True, before=before) as session:
        yield TreeReader(session)
