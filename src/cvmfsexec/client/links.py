"""Symbolic links within a repository, followed as a kernel would, without a mount."""

import os

from cvmfsexec.client.assembly import Client
from cvmfsexec.format.names import normalize_path, parent_path
from cvmfsexec.repository.lookup import Location

LINKS_MAX = 40  # as the kernel's


def follow(client: Client, path: bytes) -> Location | None:
    """Return the entry that a path leads to, by links anywhere in it.

    Args:
        client: Of the repository.
        path: Normalized.

    Returns:
        ``None`` if there is nothing, or if the way leads out of the repository.
    """
    for _ in range(LINKS_MAX):
        location = client.lookup.find(path)
        link = _link_on_the_way(client, path) if location is None else location
        if link is None or not link.entry.is_symlink:
            return location
        target = client.presentation.link_target(link.entry)
        inside = _inside(parent_path(link.path), target, client.fqrn)
        if inside is None:
            return None
        path = inside + path[len(link.path) :]
    return None


def _link_on_the_way(client: Client, path: bytes) -> Location | None:
    """Return the first link that a path goes through."""
    end = path.find(b"/", 1)
    while end > 0:
        location = client.lookup.find(path[:end])
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
