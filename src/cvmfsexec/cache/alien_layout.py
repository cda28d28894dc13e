"""The directories of an alien cache, as the original client makes them.

``quarantaine``, ``txn`` and the 256 for objects, all of mode 0770 whatever the umask,
and an empty file ``.cvmfscache``. All are made at once: the original takes a directory
that has ``ff`` for complete, makes nothing more, and could store nothing in what is not
there. So ``ff`` comes last.

Who is killed in between leaves the rest to the next one. Who may not write there makes
nothing: it has to do with what there is.
"""

import contextlib
import os
from collections.abc import Iterator
from functools import partial

from cvmfsexec import log
from cvmfsexec.cache.contents import PREFIXES
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.young_directories import again_while_young

MODE = 0o770

_DIRECTORIES = ("quarantaine", "txn", *PREFIXES)
_LAST = PREFIXES[-1]
_SENTINEL = ".cvmfscache"
_SENTINEL_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_layout(path: str) -> int:
    """Return a descriptor of an alien cache, which is made if it is missing.

    Raises:
        OSError: It cannot be opened or made.
    """
    directory = again_while_young(path, partial(_open_or_make, path), OSError)
    try:
        if not os.access(_LAST, os.F_OK, dir_fd=directory):
            _make_directories(directory)
    except OSError as error:
        log.debug("alien cache %s: no directories made: %s", path, error.strerror)
    return directory


def _open_or_make(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with _without_umask(), contextlib.suppress(FileExistsError):
            os.mkdir(path, MODE)
        return os.open(path, _FLAGS)


def _make_directories(directory: int) -> None:
    with _without_umask():
        with contextlib.suppress(FileExistsError):
            close_quietly(os.open(_SENTINEL, _SENTINEL_FLAGS, 0o600, dir_fd=directory))
        for name in _DIRECTORIES:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, MODE, dir_fd=directory)


@contextlib.contextmanager
def _without_umask() -> Iterator[None]:
    """Let modes be as they are given, and from the beginning.

    All other files of ours are made with modes that no umask would change.
    """
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)
