"""Which directories get a catalog of their own.

Two rules, both of the original: a regular file ``.cvmfscatalog`` directly in the
directory, and the patterns of ``/.cvmfsdirtab``. A directory that only the patterns
name is given the marker in the repository (not in the source), because the original's
check wants a marker in every nested catalog.

Pure.

Source: docs/reference/publisher-format.md, "Rules for nested catalogs".
"""

import re
import stat
from collections.abc import Iterable
from typing import NamedTuple

from cvmfsexec.errors import PublishError
from cvmfsexec.format.names import ROOT
from cvmfsexec.publish.scan import (
    MARKER,
    NO_INODE,
    SourceDirectory,
    SourceEntry,
    SourceTree,
)

_MARKER_MODE = stat.S_IFREG | 0o644

_TOKEN = re.compile(rb"\\([*?\\])|([*?])|([^*?\\]+)", re.DOTALL)


class Dirtab(NamedTuple):
    """The patterns of a ``.cvmfsdirtab``.

    Attributes:
        positive: A directory matching one of them begins a nested catalog,
        negative: unless it matches one of these.
    """

    positive: tuple[re.Pattern[bytes], ...] = ()
    negative: tuple[re.Pattern[bytes], ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> "Dirtab":
        """Read the file.

        Raises:
            PublishError: One line is wrong, or a pattern both wanted and excluded:
                the original then ignores the whole file, which nobody notices.
        """
        wanted: dict[bytes, re.Pattern[bytes]] = {}
        excluded: dict[bytes, re.Pattern[bytes]] = {}
        for number, line in enumerate(text.split(b"\n"), 1):
            rule = line.lstrip(b" \t")
            if not rule or rule.startswith(b"#"):
                continue
            try:
                if rule.startswith(b"!"):
                    pattern = _normalize(rule[1:].lstrip(b" \t"))
                    excluded[pattern] = _compile(pattern, crosses_slash=True)
                else:
                    pattern = _absolute(_normalize(rule))
                    wanted[pattern] = _compile(pattern, crosses_slash=False)
            except ValueError as error:
                raise PublishError(
                    f"line {number} of /.cvmfsdirtab: {error}: {rule[:80]!r}"
                ) from error
        for pattern in wanted:
            if pattern in excluded:
                raise PublishError(
                    f"/.cvmfsdirtab both names and excludes {pattern[:80]!r}"
                )
        return cls(tuple(wanted.values()), tuple(excluded.values()))

    def matches(self, path: bytes) -> bool:
        """Whether the directory at an absolute path begins a nested catalog."""
        return _any_matches(self.positive, path) and not _any_matches(
            self.negative, path
        )


def transition_points(tree: SourceTree, dirtab: Dirtab) -> frozenset[bytes]:
    """Return the directories with a catalog of their own, without the root."""
    return frozenset(
        path
        for path, directory in tree.directories.items()
        if path != ROOT and (directory.has_marker or dirtab.matches(path))
    )


def with_markers(tree: SourceTree, points: frozenset[bytes]) -> SourceTree:
    """Return the tree with a marker in each transition point that has none."""
    directories = dict(tree.directories)
    for path in points:
        directory = directories[path]
        if not directory.has_marker:
            entries = (_marker(directory), *directory.entries)
            directories[path] = directory._replace(entries=entries)
    return tree._replace(directories=directories)


def _marker(directory: SourceDirectory) -> SourceEntry:
    """Make a marker that depends on nothing but the directory.

    So publishing the same again does not change the catalog.
    """
    top = directory.entry
    return SourceEntry(
        path=top.path + b"/" + MARKER,
        name=MARKER,
        mode=_MARKER_MODE,
        size=0,
        mtime_ns=top.mtime_ns,
        uid=top.uid,
        gid=top.gid,
        device=0,
        inode=NO_INODE,
        link_count=1,
        rdev=0,
        symlink=b"",
        xattr=None,
    )


def _any_matches(patterns: Iterable[re.Pattern[bytes]], path: bytes) -> bool:
    return any(pattern.fullmatch(path) for pattern in patterns)


def _normalize(pattern: bytes) -> bytes:
    """Drop doubled and trailing slashes, which have no meaning in a pattern."""
    elements = [element for element in pattern.split(b"/") if element]
    if not elements:
        raise ValueError("an empty pattern")
    joined = b"/".join(elements)
    return b"/" + joined if pattern.startswith(b"/") else joined


def _absolute(pattern: bytes) -> bytes:
    if not pattern.startswith(b"/"):
        raise ValueError("a pattern that is not excluded begins with '/'")
    return pattern


def _compile(pattern: bytes, *, crosses_slash: bool) -> re.Pattern[bytes]:
    """Translate a pattern, so that a match takes no more than quadratic time.

    What stands between two stars is taken where it comes first, and for good (an
    atomic group): the second star can take whatever lies before a later place.
    """
    one = b"." if crosses_slash else b"[^/]"
    first, *others = _between_stars(pattern, one)
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    inner = b"".join(b"(?>%b*?%b)" % (one, part) for part in middle if part)
    return re.compile(b"%b%b%b*%b" % (first, inner, one, last), re.DOTALL)


def _between_stars(pattern: bytes, one: bytes) -> list[bytes]:
    """Return what stands before, between and after the stars, as expressions.

    Args:
        pattern: May hold ``*``, ``?``, and backslashes before them.
        one: What a ``?`` stands for.
    """
    parts = [b""]
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise ValueError("a backslash protects only '*', '?' and itself")
        escaped, wildcard, plain = token.groups()
        if wildcard == b"*":
            parts.append(b"")
        else:
            parts[-1] += one if wildcard else re.escape(escaped or plain)
        at = token.end()
    return parts
