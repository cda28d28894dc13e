"""What users mean by a path in a repository: an entry, or all that fits a pattern.

Patterns are those of a shell, in any part of a path. A name that is there is meant
itself, whatever characters it has.
"""

import fnmatch
import os
from collections.abc import Iterable, Iterator

from cvmfsexec.client.links import LinkedRepository, follow
from cvmfsexec.repository.lookup import Location

_MAGIC = frozenset(b"*?[")


def matching(repository: LinkedRepository, path: bytes) -> Iterator[Location]:
    """Yield what a normalized path means, wherever its links lead.

    Raises:
        CvmfsError: A catalog on the way cannot be had.
    """
    found = follow(repository, path)
    if found is not None:
        yield found
        return
    if not _MAGIC.intersection(path):
        return
    tops = [repository.lookup.root()]
    *above, last = path.split(b"/")[1:]
    for pattern in above:
        tops = [
            child
            for top in tops
            for child in _children(repository, top, pattern)
            if child.entry.is_directory
        ]
    for top in tops:
        yield from _children(repository, top, last)


def outermost(locations: Iterable[Location]) -> list[Location]:
    """Return those that are not below another, each once, in the order of paths."""
    tops: dict[bytes, Location] = {}
    for path, location in sorted({one.path: one for one in locations}.items()):
        if not any(above in tops for above in _above(path)):
            tops[path] = location
    return list(tops.values())


def _above(path: bytes) -> Iterator[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _children(
    repository: LinkedRepository, top: Location, pattern: bytes
) -> Iterator[Location]:
    if not _MAGIC.intersection(pattern):
        found = follow(repository, top.path + b"/" + pattern)
        if found is not None:
            yield found
        return
    for child in repository.lookup.list_(top):
        if fnmatch.fnmatchcase(os.fsdecode(child.entry.name), os.fsdecode(pattern)):
            yield child
