"""Where repositories are mounted for the whole host, outside of any session.

That is ``DIST/cvmfs``, as scripts written for the original expect. If the dist cannot
be written, a directory of the user takes over, one for each dist, so that two read-only
installations do not meet.

Source: docs/reference/mountrepo.md, "Where".
"""

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.configuration.storage import (
    can_write_below,
    is_private,
    prepare_stand_in,
)
from cvmfsexec.errors import ConfigurationError

if TYPE_CHECKING:
    from cvmfsexec.configuration.locate import ConfigurationRoot


class MountPlace(NamedTuple):
    """A directory that stands for the root of a machine, as a dist does.

    Attributes:
        top: Its absolute path; links are resolved, as in the kernel's table of mounts.
    """

    top: str

    @property
    def directory(self) -> str:
        """Holds the mount points."""
        return os.path.join(self.top, "cvmfs")

    def mountpoint(self, fqrn: str) -> str:
        """Return where a repository is mounted."""
        return os.path.join(self.directory, fqrn)

    def lock_path(self, fqrn: str) -> str:
        """Return the file that is locked by whoever mounts a repository."""
        return os.path.join(self.top, "var/run/cvmfs", f"{fqrn}.lock")

    @property
    def is_writable(self) -> bool:
        """Whether this user can mount here."""
        lock_directory = os.path.dirname(self.lock_path(""))
        return can_write_below(self.directory) and can_write_below(lock_directory)


def mount_places(root: "ConfigurationRoot") -> tuple[MountPlace, ...]:
    """Return all places where repositories of a dist may be mounted, the best first."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root.dist))).hexdigest()
    stand_ins = (f"{own}/mounts-{digest[:12]}" for own in root.user_directories)
    return tuple(MountPlace(os.path.realpath(top)) for top in (root.dist, *stand_ins))


def prepare_mount_place(root: "ConfigurationRoot") -> MountPlace:
    """Return the place for new mounts of a dist.

    Raises:
        ConfigurationError: There is none that this user can write to.
    """
    first, *stand_ins = mount_places(root)
    if first.is_writable:
        return first
    for own, place in zip(root.user_directories, stand_ins, strict=True):
        if place.is_writable:
            prepare_stand_in(root, own)
            return place
    raise ConfigurationError(
        f"there is no place to mount at: {first.directory} cannot be written",
        hint="set TMPDIR to a directory that you can write to",
    )


def session_base(root: "ConfigurationRoot", runtime_directory: str) -> str:
    """Return a directory for private mounts of single sessions; it may not exist yet.

    Preferred are places of this node alone, that nobody backs up.

    Args:
        root: The dist.
        runtime_directory: Value of ``$XDG_RUNTIME_DIR``; may be empty.

    Raises:
        ConfigurationError: There is none that this user alone can write to.
    """
    candidates = list(reversed(root.user_directories))
    if runtime_directory.startswith("/") and os.path.isdir(runtime_directory):
        candidates.insert(0, os.path.join(runtime_directory, "cvmfsexec"))
    for directory in candidates:
        if can_write_below(directory) and is_private(directory):
            return directory
    raise ConfigurationError(
        "there is no place for the mounts of a session",
        hint="set XDG_RUNTIME_DIR or TMPDIR to a directory that you can write to",
    )
