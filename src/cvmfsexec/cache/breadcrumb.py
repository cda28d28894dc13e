"""The breadcrumb: which revision of a repository was verified last on this machine.

File ``cvmfschecksum.<fqrn>`` in the cache directory, mode 0600, one line without its
end: ``<root catalog hash>T<time of publication>R<revision>``; old clients wrote no
``R…``, which reads as revision 0. It is the high-water mark against roll-back, and
names the root catalog to start from when no server answers.

The first breadcrumb is linked, the others replace one by a rename (``PendingFiles``):
at any time there is the old one or the new one, whole. A process that is killed at
the worst moment, between two system calls of an update, leaves a file in ``txn/``,
which the next update or start removes. The alternatives are worse: to remove the old
one first could lose the high-water mark, to write over it could mix the two.

On a network file system, who opens or reads the old one may be told that it is gone
when another node replaces it, and finds the new one a second later.

Source: docs/reference/client-behaviour.md, "Mount sequence and root selection".
"""

import errno
import os
import re
from functools import partial
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.cache import pending
from cvmfsexec.cache.open_files import (
    GONE,
    again_while_gone,
    close_quietly,
    unreadable,
)
from cvmfsexec.cache.scratch import write_all
from cvmfsexec.cache.young_directories import again_while_young
from cvmfsexec.errors import CacheError, FormatError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.names import check_fqrn

BREADCRUMB_BYTES_MAX = 128  # the longest is 49 + 1 + 19 + 1 + 19

_TEXT = re.compile(rb"([^T\n]{40,49})T([0-9]{1,19})(?:R([0-9]{1,19}))?\n?")


class Breadcrumb(NamedTuple):
    """The newest revision that was verified.

    Attributes:
        root_catalog: Its root catalog.
        published_at_s: When it was published, in seconds since 1970.
        revision: Its number; 0 if unknown.
    """

    root_catalog: ContentHash
    published_at_s: int
    revision: int

    @classmethod
    def parse(cls, text: bytes) -> "Breadcrumb":
        """Read the content of a breadcrumb file.

        Raises:
            FormatError: It is none, or names no catalog.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise FormatError(f"not a breadcrumb: {text[:80]!r}")
        root_catalog = ContentHash.parse(match[1].decode("ascii", "replace"))
        if root_catalog.is_null:
            raise FormatError("a breadcrumb that names no catalog")
        return cls(root_catalog, int(match[2]), int(match[3] or 0))

    def serialize(self) -> bytes:
        """Return the content of a breadcrumb file."""
        text = f"{self.root_catalog}T{self.published_at_s}R{self.revision}"
        return text.encode("ascii")


def read_breadcrumb(directory: str, fqrn: str) -> Breadcrumb | None:
    """Return what was verified last, or ``None`` if nothing is remembered.

    A damaged file is reported and counts as none: after a power failure it can be
    empty, and must not keep the user out of the repository for ever.

    Raises:
        CacheError: There is a file, but it cannot be read.
        ConfigurationError: ``fqrn`` is not a repository name.
    """
    path = _path(directory, fqrn)
    try:
        return _read(path)
    except FormatError as error:
        log.warning("%s is damaged and is ignored: %s", path, error)
        return None


def write_breadcrumb(directory: str, fqrn: str, breadcrumb: Breadcrumb) -> None:
    """Remember a verified revision, unless a newer one is remembered already.

    A directory that cannot be written is reported; it does not stop the session.

    Raises:
        CacheError: There is a breadcrumb that cannot be read.
        ConfigurationError: ``fqrn`` is not a repository name.
    """
    try:
        known = _read(_path(directory, fqrn))
    except FormatError:
        known = None  # which was reported when it was read
    if known == breadcrumb:
        return
    if known is not None and known.revision > breadcrumb.revision:
        return  # another session was faster
    replace = partial(_replace, directory, _path("", fqrn), breadcrumb.serialize())
    under_way = os.path.join(directory, pending.DIRECTORY)
    try:
        again_while_young(under_way, replace, OSError)
    except OSError as error:
        log.warning(
            "cannot remember revision %d of %s in %s: %s",
            breadcrumb.revision,
            fqrn,
            directory,
            error.strerror,
        )


def _path(directory: str, fqrn: str) -> str:
    return os.path.join(directory, f"cvmfschecksum.{check_fqrn(fqrn)}")


def _read(path: str) -> Breadcrumb | None:
    try:
        return Breadcrumb.parse(again_while_gone(partial(_first_bytes, path)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}") from error


def _first_bytes(path: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in GONE and (
            error.errno == errno.ESTALE or os.path.exists(path)
        ):
            raise unreadable(path, error) from error
        raise
    try:
        return os.read(descriptor, BREADCRUMB_BYTES_MAX + 1)
    except OSError as error:
        # Even if it says that there is no such file: there was one to open, and what
        # has replaced it must not count as absent.
        raise unreadable(path, error) from error
    finally:
        close_quietly(descriptor)


def _replace(directory: str, name: str, content: bytes) -> None:
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    files = pending.PendingFiles(directory_fd)
    try:
        file = files.create()
        try:
            write_all(file.descriptor, content)
            files.replace(file, name)
        finally:
            files.discard(file)
    finally:
        close_quietly(directory_fd)
