"""Which errno an application sees for an error of ours: one of the three maps.

Nothing here is ENOENT: only the answer ``None`` of a file system means that.

Source: docs/reference/client-behaviour.md, "Error codes seen by applications".
"""

import errno
import os

from cvmfsexec.errors import (
    CacheError,
    ConfigurationError,
    CvmfsError,
    DistributionError,
    FormatError,
    FusermountError,
    IntegrityError,
    MissingCredentialError,
    NamespaceError,
    PublishError,
    SessionError,
    StaleInodeError,
    TransferError,
    TrustError,
    UnsupportedTrustError,
)

ERRNO_BY_ERROR: dict[type[CvmfsError], int] = {
    FormatError: errno.EIO,
    TrustError: errno.EIO,
    MissingCredentialError: errno.EACCES,
    UnsupportedTrustError: errno.EACCES,  # what the original says without a helper
    IntegrityError: errno.EIO,
    TransferError: errno.EIO,
    CacheError: errno.EIO,
    ConfigurationError: errno.EIO,
    StaleInodeError: errno.ESTALE,
    NamespaceError: errno.EIO,
    PublishError: errno.EIO,
    SessionError: errno.EIO,
    FusermountError: errno.EIO,
    DistributionError: errno.EIO,
}
"""Errno by class of error; a class that is not listed has that of its base class."""

_PASSED_THROUGH = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
"""What the local system lacks: the application's user may be able to help it."""


def errno_of(error: BaseException) -> int:
    """Return the errno for a failure; EIO for whatever is not an error of ours."""
    if isinstance(error, CacheError) and isinstance(error.__cause__, OSError):
        local = error.__cause__.errno
        if local in _PASSED_THROUGH:
            # The kernel's FUSE client knows no quota of ours; a full disk is clearer.
            return errno.ENOSPC if local == errno.EDQUOT else local
    for error_class in type(error).__mro__:
        if error_class in ERRNO_BY_ERROR:
            return ERRNO_BY_ERROR[error_class]
    return errno.EIO


def describe(number: int) -> str:
    """Return an errno as a person reads it, e.g. ``EIO (Input/output error)``."""
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"
