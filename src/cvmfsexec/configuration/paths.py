"""What paths in values mean.

Packaged configuration is written for a machine where it lies in ``/etc/cvmfs``, caches
in ``/var/lib/cvmfs``, and repositories are mounted. The files are not rewritten for a
dist; instead, a path taken from a value is looked at when it is used:

=============================  =====================================================
A path below                   means
=============================  =====================================================
``MOUNT_DIR/CONFIG_REPO``      the file in the configuration repository, wherever its
                               content can be read
``/etc/cvmfs``                 the same below the dist if it exists there, else as it
                               is written; so ``CVMFS_KEYS_DIR=/etc/cvmfs/keys/cern.ch``
                               of a package means the keys that came with the dist
``/var/lib/cvmfs``             the dist's ``var/lib/cvmfs``, or the user's directory
                               that stands in for it (``storage``)
``/var/run/cvmfs``             the dist's ``var/run/cvmfs``
``/var/log/cvmfs``             ``log`` beside the dist, or what stands in for it
anything else                  as it is written
=============================  =====================================================

The original prefixes *every* path below ``/var`` with the dist. A user who writes
``CVMFS_CACHE_BASE=/var/scratch/me`` does not mean that, and packages use only these
three.
"""

import os
import posixpath
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.configuration import storage

if TYPE_CHECKING:
    from cvmfsexec.configuration.files import ConfigurationRepository
    from cvmfsexec.configuration.locate import ConfigurationRoot


class PathMap(NamedTuple):
    """The table above for one dist and one configuration repository, if any."""

    root: "ConfigurationRoot"
    repository: "ConfigurationRepository | None"

    def resolve(self, value: str) -> str:
        """Return the local path that a path in a value means."""
        if not value.startswith("/"):
            return value
        path = posixpath.normpath(value)
        if self.repository is not None:
            inside = _below(path, self.repository.mountpoint)
            if inside is not None:
                return _join(self.repository.directory, inside)
        inside = _below(path, "/etc/cvmfs")
        if inside is not None:
            ours = _join(self.root.etc, inside)
            return ours if os.path.lexists(ours) else value
        return self._resolve_variable(path) or value

    def _resolve_variable(self, path: str) -> str:
        """Resolve what is below ``/var``; empty if it is none of ours."""
        if (inside := _below(path, "/var/lib/cvmfs")) is not None:
            return _join(storage.cache_base(self.root), inside)
        if (inside := _below(path, "/var/log/cvmfs")) is not None:
            return _join(storage.log_directory(self.root), inside)
        if _below(path, "/var/run/cvmfs") is not None:
            return _join(self.root.dist, path[1:])
        return ""


def _below(path: str, directory: str) -> str | None:
    """Return what follows a directory in a path, by whole components."""
    if path == directory:
        return ""
    return path[len(directory) + 1 :] if path.startswith(directory + "/") else None


def _join(directory: str, inside: str) -> str:
    return os.path.join(directory, inside) if inside else directory
