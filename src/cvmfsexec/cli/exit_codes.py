"""Exit statuses: the one place that decides them. Documented, never renumbered.

A command that ran gives its own status. When there was none, the numbers are those
of the original client (docs/reference/exit-status.md), so that scripts written for
it keep their meaning.
"""

from cvmfsexec import errors

OK = 0
USAGE = 1
"""The original commands answer a usage error with 1."""

UNKNOWN_ERROR = 1
CONFIGURATION = 2
MOUNT_FAILED = 4
FILE_SERVER_DIED = 6
CACHE = 9
SIGNATURE = 15
REPOSITORY = 16
HISTORY = 22
NO_PROXY = 23
REVISION_BLACKLISTED = 25
BUSY = 32
"""As umount(8) and the original answer for a repository that is in use."""

CANNOT_EXECUTE = 126
COMMAND_NOT_FOUND = 127
INTERRUPTED = 130

_BY_CLASS: dict[type[errors.CvmfsError], int] = {
    errors.CvmfsError: UNKNOWN_ERROR,
    errors.FormatError: REPOSITORY,
    errors.TrustError: SIGNATURE,
    errors.RollbackError: REPOSITORY,
    errors.RevisionBlacklistedError: REVISION_BLACKLISTED,
    errors.IntegrityError: REPOSITORY,
    errors.TransferError: REPOSITORY,
    errors.NoRouteError: NO_PROXY,
    errors.CacheError: CACHE,
    errors.ConfigurationError: CONFIGURATION,
    errors.CacheSettingError: CACHE,
    errors.TagNotFoundError: HISTORY,
    errors.StaleInodeError: UNKNOWN_ERROR,
    errors.NamespaceError: MOUNT_FAILED,
    errors.FusermountError: MOUNT_FAILED,
    errors.MountBusyError: BUSY,
    errors.SessionError: FILE_SERVER_DIED,
    errors.ServiceFailedError: UNKNOWN_ERROR,
    errors.PublishError: UNKNOWN_ERROR,
    errors.DistributionError: UNKNOWN_ERROR,
    errors.DistributionError: UNKNOWN_ERROR,
}


def exit_status_of(error: errors.CvmfsError) -> int:
    """Return the exit status for an error that ends a command."""
    if isinstance(error, errors.ServiceFailedError) and error.status:
        return error.status  # decided here already, in the file server's process
    for kind in type(error).__mro__:
        if kind in _BY_CLASS:
            return _BY_CLASS[kind]
    return UNKNOWN_ERROR
