"""Blacklist files: certificates and revisions that are refused.

There may be two: ``CVMFS_BLACKLIST`` (by default ``etc/cvmfs/blacklist``) and
``etc/cvmfs/blacklist`` in the configuration repository. Their format is that of
``cvmfsexec.format.blacklist``. They are to be read again at each update.

Source: docs/reference/client-behaviour.md, "Blacklist".
"""

from typing import TYPE_CHECKING

from cvmfsexec.errors import ConfigurationError

if TYPE_CHECKING:
    from cvmfsexec.configuration.evaluate import Configuration

BLACKLIST_BYTES_MAX = 1 << 20
"""Ten thousand fingerprints with comments."""

_DEFAULT = "/etc/cvmfs/blacklist"


def blacklist_paths(configuration: "Configuration") -> tuple[str, ...]:
    """Return where blacklists may lie, whether or not there are any."""
    local = configuration.path("CVMFS_BLACKLIST", _DEFAULT)
    if configuration.repository is None:
        return (local,)
    return (local, configuration.repository.file("blacklist").path)


def read_blacklists(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return the texts of the blacklists that exist.

    Raises:
        ConfigurationError: One exists but cannot be read, or is too long: then it is
            unknown what to refuse.
    """
    texts = (_read(path) for path in paths)
    return tuple(text for text in texts if text is not None)


def _read(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:
            data = stream.read(BLACKLIST_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigurationError(
            f"cannot read blacklist {path}: {error.strerror}",
            hint="check CVMFS_BLACKLIST",
        ) from error
    if len(data) > BLACKLIST_BYTES_MAX:
        raise ConfigurationError(
            f"blacklist {path} is longer than {BLACKLIST_BYTES_MAX} bytes"
        )
    # Names and fingerprints are ASCII; anything else can stand in comments only.
    return data.decode("ascii", "replace")
