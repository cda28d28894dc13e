import errno
from collections.abc import Iterator

import pytest

from cvmfsexec import errors
from cvmfsexec.errors import CacheError, CvmfsError
from cvmfsexec.fuse.errno_map import ERRNO_BY_ERROR, describe, errno_of


def _below(error_class: type[CvmfsError]) -> Iterator[type[CvmfsError]]:
    """Yield the tree in ``errors``; what packages add for themselves stays inside."""
    for below in error_class.__subclasses__():
        if below.__module__ == errors.__name__:
            yield below
            yield from _below(below)


@pytest.mark.parametrize("error_class", list(_below(CvmfsError)))
def test_map_is_total_over_the_error_tree(error_class: type[CvmfsError]) -> None:
    assert set(error_class.__mro__) & set(ERRNO_BY_ERROR)


@pytest.mark.parametrize("error_class", list(_below(CvmfsError)))
def test_no_error_means_that_an_entry_does_not_exist(
    error_class: type[CvmfsError],
) -> None:
    assert errno_of(error_class("reason")) not in {errno.ENOENT, 0}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.IntegrityError("x"), errno.EIO),
        (errors.ObjectTooLargeError("x"), errno.EIO),
        (errors.TransferError("x"), errno.EIO),
        (errors.IncompleteManifestError("x"), errno.EIO),
        (errors.UnsupportedTrustError("x"), errno.EACCES),
        (CvmfsError("x"), errno.EIO),
        (KeyError("a mistake of ours"), errno.EIO),
        (MemoryError(), errno.EIO),
    ],
    ids=repr,
)
def test_errno_of(error: BaseException, expected: int) -> None:
    assert errno_of(error) == expected


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (errno.ENOSPC, errno.ENOSPC),
        (errno.EDQUOT, errno.ENOSPC),
        (errno.EMFILE, errno.EMFILE),
        (errno.ENFILE, errno.ENFILE),
        (errno.ENOENT, errno.EIO),
        (errno.EACCES, errno.EIO),
    ],
)
def test_cache_error_tells_what_the_disk_lacks(cause: int, expected: int) -> None:
    error = CacheError("cannot store")
    error.__cause__ = OSError(cause, "reason")

    assert errno_of(error) == expected


def test_errno_is_described_for_people() -> None:
    assert describe(errno.EIO) == "EIO (Input/output error)"
