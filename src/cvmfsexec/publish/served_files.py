"""From the path of a URL to an open file of a repository, and to nothing else.

``/cvmfs/<fqrn>/<path>`` is the file ``<path>`` of the repository in the directory
``<fqrn>`` of the served directory; or of the served directory itself, where that is a
repository. What is not a repository is not served: a server started in the wrong
directory gives nothing away. Symbolic links are followed (``.cvmfsalt-*`` are some),
but only to files that lie in the served directory.

May be called from several threads.
"""

import errno
import os
import stat
from typing import NamedTuple

from cvmfsexec.errors import FormatError, PublishError
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import MANIFEST_BYTES_MAX, Manifest

PREFIX = b"cvmfs"
MANIFEST_NAME = ".cvmfspublished"

_MACHINE_TROUBLE = frozenset({errno.ENOMEM, errno.ENFILE, errno.EMFILE})


class OpenFile(NamedTuple):
    """A regular file, open for reading; whoever holds it closes ``fd``."""

    fd: int
    size: int
    mtime_ns: int
    inode: int
    name: bytes


class ServedFiles:
    """The repositories of one directory.

    Args:
        directory: One repository, or a directory with one repository per fqrn.

    Raises:
        PublishError: There is no repository.
    """

    def __init__(self, directory: str) -> None:
        self._root = os.fsencode(os.path.realpath(directory))
        self._repositories: dict[bytes, bytes] = {}
        own = os.path.join(directory, MANIFEST_NAME)
        if os.path.isfile(own):
            self._repositories[_fqrn_of(own)] = self._root
        elif not self.fqrns():
            raise PublishError(
                f"there is no repository in {directory!r}",
                hint="name the directory given to 'cvmfs publish --output'",
            )

    def fqrns(self) -> list[str]:
        """Return the names of the repositories that are served now, sorted."""
        if self._repositories:
            return sorted(os.fsdecode(fqrn) for fqrn in self._repositories)
        try:
            names = os.listdir(self._root)
        except OSError as error:
            raise PublishError(
                f"cannot read {os.fsdecode(self._root)!r}: {error.strerror}"
            ) from error
        return sorted(os.fsdecode(name) for name in names if self._is_repository(name))

    def open(self, path: bytes) -> OpenFile | None:
        """Open the file behind a URL path; None where nothing is to be served.

        Raises:
            OSError: The machine is out of descriptors or memory.
        """
        empty, *parts = path.split(b"/")
        if empty or len(parts) < 3 or parts[0] != PREFIX or b"\0" in path:
            return None
        if any(part in (b"", b".", b"..") for part in parts):
            return None
        directory = self._directory_of(parts[1])
        if directory is None:
            return None
        return self._open_file(b"/".join([directory, *parts[2:]]), parts[-1])

    def _directory_of(self, fqrn: bytes) -> bytes | None:
        if self._repositories:
            return self._repositories.get(fqrn)
        return self._root + b"/" + fqrn if self._is_repository(fqrn) else None

    def _is_repository(self, name: bytes) -> bool:
        return os.path.isfile(b"/".join((self._root, name, MANIFEST_NAME.encode())))

    def _open_file(self, local: bytes, name: bytes) -> OpenFile | None:
        try:
            # O_NONBLOCK: opening a fifo would wait for its writer.
            fd = os.open(local, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        except OSError as error:
            if error.errno in _MACHINE_TROUBLE:
                raise
            return None  # a loop of links, a name too long
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and self._is_inside(fd, local):
                return OpenFile(
                    fd, status.st_size, status.st_mtime_ns, status.st_ino, name
                )
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _is_inside(self, fd: int, local: bytes) -> bool:
        try:
            real = os.readlink(f"/proc/self/fd/{fd}".encode())
        except OSError:  # /proc is masked
            real = os.path.realpath(local)
        return real.startswith(self._root + b"/")


def _fqrn_of(manifest_path: str) -> bytes:
    try:
        with open(manifest_path, "rb") as stream:
            blob = stream.read(MANIFEST_BYTES_MAX)
        return Manifest.parse(parse_letter(blob).letter).fqrn.encode()
    except OSError as error:
        raise PublishError(
            f"cannot read {manifest_path!r}: {error.strerror}"
        ) from error
    except FormatError as error:
        raise PublishError(f"{manifest_path!r}: {error}") from error
