"""The directory of one repository, as a web server serves it.

Everything that is replaced is written aside in ``data/txn`` and renamed, so that a
reader, and a crash, see the old file or the new one. One publisher at a time: the
lock goes with its process.

Source: docs/reference/publisher-format.md, "Directory skeleton".
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvmfsexec.errors import PublishError

MANIFEST = ".cvmfspublished"
WHITELIST = ".cvmfswhitelist"
REFLOG = ".cvmfsreflog"
MASTER_REPLICA = ".cvmfs_master_replica"

_BUCKETS = 256


class RepositoryDirectory:
    """Where one repository lies on the local disk.

    All methods but :meth:`scratch_path` are for the thread that publishes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scratch = path / "data" / "txn"
        self._numbers = itertools.count()

    @property
    def is_published(self) -> bool:
        """Whether there is a revision."""
        return (self.path / MANIFEST).exists()

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """Hold the repository for one publication; makes its directories.

        What an earlier publication that was killed has left aside is removed.

        Raises:
            PublishError: The directory cannot be written, or is being published to.
        """
        import fcntl

        try:
            for number in range(_BUCKETS):
                (self.path / "data" / f"{number:02x}").mkdir(
                    parents=True, exist_ok=True
                )
            self._scratch.mkdir(exist_ok=True)
            (self.path / MASTER_REPLICA).touch()
            lock = os.open(self._scratch, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self.unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise PublishError(
                f"another process is publishing to {str(self.path)!r}"
            ) from error
        try:
            self._clear_scratch()
            yield
        finally:
            self._clear_scratch()
            os.close(lock)

    def scratch_path(self) -> str:
        """Return a name for a new file in the file system of the objects."""
        return f"{self._scratch}/{os.getpid()}-{next(self._numbers)}"

    def write_scratch(self, content: bytes) -> str:
        """Write a new file that the end of the publication removes; returns its path.

        Raises:
            PublishError: Disk full, or the like.
        """
        path = self.scratch_path()
        try:
            with open(path, "xb") as stream:
                stream.write(content)
        except OSError as error:
            raise self.unwritable(error) from error
        return path

    def take_scratch(self, path: str) -> bytes:
        """Return the content of a file made at :meth:`scratch_path`, and remove it.

        Raises:
            PublishError: It cannot be read.
        """
        try:
            with open(path, "rb") as stream:
                content = stream.read()
            os.unlink(path)
        except OSError as error:
            raise self.unwritable(error) from error
        return content

    def read(self, name: str) -> bytes | None:
        """Return a file of the repository's top directory; None if it is not there."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PublishError(
                f"cannot read {str(self.path / name)!r}: {error.strerror}"
            ) from error

    def replace(self, name: str, content: bytes) -> None:
        """Put a file into the top directory, at once and for good.

        Raises:
            PublishError: Disk full, or the like; the old file is still there.
        """
        aside = self.scratch_path()
        try:
            with open(aside, "xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(aside, self.path / name)
            self._flush_directory()
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> PublishError:
        """Return the error for something that could not be written here."""
        return PublishError(f"cannot write to {str(self.path)!r}: {error.strerror}")

    def _flush_directory(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _clear_scratch(self) -> None:
        try:
            for leftover in self._scratch.iterdir():
                if not leftover.is_dir():
                    leftover.unlink()
        except OSError as error:
            raise self.unwritable(error) from error
