"""Symbolic links within a repository, followed as a kernel would, without a mount."""

import os
from typing import Protocol

from cvmfsexec.format.names import normalize_path, parent_path
from cvmfsexec.repository.lookup import Location, PathLookup
from cvmfsexec.vfs.presentation import Presentation

LINKS_MAX = 40  # as the kernel's


class LinkedRepository(Protocol):
    """What is needed of a repository to follow its links.

    Attributes:
        fqrn: Its name.
        lookup: Finds entries.
        presentation: Tells where links lead.
    """

    fqrn: str
    lookup: PathLookup
    presentation: Presentation


def follow(repository: LinkedRepository, path: bytes) -> Location | None:
    """Return the entry that a path leads to, by links anywhere in it.

    Args:
        repository: Where it is.
        path: Normalized.

    Returns:
        ``None`` if there is nothing, or if the way leads out of the repository.
    """
    for _ in range(LINKS_MAX):
        location = repository.lookup.find(path)
        link = _link_on_the_way(repository, path) if location is None else location
        if link is None or not link.entry.is_symlink:
            return location
        target = repository.presentation.link_target(link.entry)
        inside = _inside(parent_path(link.path), target, repository.fqrn)
        if inside is None:
            return None
        path = inside + path[len(link.path) :]
    return None


def _link_on_the_way(repository: LinkedRepository, path: bytes) -> Location | None:
    """Return the first link that a path goes through."""
    end = path.find(b"/", 1)
    while end > 0:
        location = repository.lookup.find(path[:end])
        if location is None or location.entry.is_symlink:
            return location
        end = path.find(b"/", end + 1)
    return None


def _inside(directory: bytes, target: bytes, fqrn: str) -> bytes | None:
    """Return the repository path that a link leads to; ``None`` if out of it."""
    top = b"/cvmfs/" + fqrn.encode()
    absolute = target if target.startswith(b"/") else top + directory + b"/" + target
    clean = os.path.normpath(absolute)
    if clean != top and not clean.startswith(top + b"/"):
        return None
    return normalize_path(clean[len(top) :])
