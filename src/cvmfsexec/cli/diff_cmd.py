"""Tell what changed between two revisions of a repository."""

import argparse
import json
import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_json, add_repository
from cvmfsexec.cli.output import printable, write_line
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.counters import NAMES, total
from cvmfsexec.errors import TagNotFoundError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.dirent import DirectoryEntry
from cvmfsexec.format.pinned_name import DATE, ROOT_HASH, TAG, parse_date, parse_pin
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.difference import Aspect, Change, ChangeKind, differences

PREVIOUS, HEAD = "trunk-previous", "trunk"
DIFFERENT = 1

_LETTERS = {
    Aspect.LINK_COUNT: "I",
    Aspect.SIZE: "S",
    Aspect.MODE: "M",
    Aspect.TIMESTAMP: "T",
    Aspect.SYMLINK_TARGET: "L",
    Aspect.CONTENT: "C",
    Aspect.HARDLINK_GROUP: "G",
    Aspect.NESTED_CATALOG: "N",
    Aspect.CHUNKED_FILE: "P",
    Aspect.XATTRS: "X",
    Aspect.EXTERNAL_FILE: "E",
    Aspect.BIND_MOUNTPOINT: "B",
    Aspect.HIDDEN: "H",
    Aspect.DIRECT_IO: "D",
    Aspect.OWNER: "O",
}
_OPERATIONS = {
    ChangeKind.ADDED: "A",
    ChangeKind.REMOVED: "R",
    ChangeKind.MODIFIED: "M",
}
_HEADING = (
    "# line descriptor: A - add, R - remove, M - modify, S - statistics; "
    "modify flags: S - size, M - mode, T - timestamp, C - content, "
    "L - symlink target; entry types: F - regular file, S - symbolic link, "
    "D - directory, N - nested catalog"
)
"""As the original writes it, word for word: scripts skip it."""


class _Side(NamedTuple):
    """One of the two revisions.

    Attributes:
        name: Of its tag, or what was typed.
        tree: Its catalogs.
    """

    name: str
    tree: CatalogTree

    @property
    def counters(self) -> dict[str, int]:
        """Numbers of entries, in all catalogs."""
        counters = self.tree.catalog(self.tree.root).counters()
        return {name: total(counters, name) for name in NAMES}

    @property
    def title(self) -> str:
        """Name, number and time."""
        root = self.tree.catalog(self.tree.root)
        return f"{self.name}/r{root.revision} ({_moment(root.last_modified_s)})"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    revision = "tag, date or root hash"
    parser.add_argument(
        "old", metavar="FROM", nargs="?", default=PREVIOUS, help=f"{revision}, earlier"
    )
    parser.add_argument(
        "new", metavar="TO", nargs="?", default=HEAD, help=f"{revision}, later"
    )
    parser.add_argument(
        "-m",
        "--machine-readable",
        action="store_true",
        help="write lines as 'cvmfs_server diff --machine-readable' does",
    )
    parser.add_argument("--header", action="store_true", help="say what is compared")
    parser.add_argument(
        "--ignore-timediff", action="store_true", help="times alone are no change"
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="status 1 if anything differs"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare what the arguments name."""
    with open_client(arguments.fqrn, arguments.dist) as client:
        sides = _side(client, arguments.old), _side(client, arguments.new)
        writer = _writer(arguments)
        writer.begin(*sides)
        is_different = False
        with progress_bar(None, "changes", beside_output=True) as progress:
            for change in _wanted(arguments, *sides):
                progress(1)
                is_different = True
                writer.tell(change)
        writer.end()
    return DIFFERENT if is_different and arguments.exit_code else exit_codes.OK


def _side(client: Client, typed: str) -> _Side:
    pin = parse_pin(typed)
    wanted = client.settings.revision._replace(
        root_hash=ContentHash.parse(pin.value) if pin.parameter == ROOT_HASH else None,
        tag=pin.value if pin.parameter == TAG else "",
        date_s=parse_date(pin.value) if pin.parameter == DATE else None,
    )
    try:
        revision = client.selector.select(wanted)
    except TagNotFoundError:
        if typed != HEAD:
            raise
        revision = client.revision  # older publishers write no such tag
    tree = CatalogTree(
        client.fetcher,
        revision.root_catalog,
        revision.root_catalog_size,
        has_alternative_path=revision.has_alternative_path,
    )
    return _Side(revision.tag or typed, tree)


def _wanted(arguments: argparse.Namespace, old: _Side, new: _Side) -> Iterator[Change]:
    for change in differences(old.tree, new.tree):
        if arguments.ignore_timediff and change.aspects:
            aspects = [one for one in change.aspects if one is not Aspect.TIMESTAMP]
            if not aspects:
                continue
            change = change._replace(aspects=tuple(aspects))  # noqa: PLW2901
        yield change


# -- what is written -------------------------------------------------------------------


class _People:
    """Lines for people, as the original has them."""

    def __init__(self, *, has_heading: bool) -> None:
        self._has_heading = has_heading

    def begin(self, old: _Side, new: _Side) -> None:
        if self._has_heading:
            print(f"DELTA: {old.title} --> {new.title}")
        for what, number in _delta(old, new).items():
            print(f"d(# {what.replace('_', ' ')}): {number}")

    def tell(self, change: Change) -> None:
        path = printable(change.path or b"/")
        what = f" {change.kind.value} {'->'.join(_types(change))}"
        if change.kind is ChangeKind.MODIFIED:
            what += f" [{', '.join(one.value for one in change.aspects)}]"
        else:
            what += f" {_signed_size(change)} bytes"
        write_line(path + what.encode())

    def end(self) -> None:
        pass


class _Programs:
    """Lines for programs, as the original has them."""

    def __init__(self, *, has_heading: bool) -> None:
        self._has_heading = has_heading

    def begin(self, old: _Side, new: _Side) -> None:
        if self._has_heading:
            print(_HEADING)
        for letter, number in zip("FSDN", _delta(old, new).values(), strict=True):
            print(f"S {letter} {number}")

    def tell(self, change: Change) -> None:
        path = printable(change.path or b"/")
        types = "".join(_TYPE_LETTERS[one] for one in _types(change))
        line = _OPERATIONS[change.kind]
        if change.kind is ChangeKind.MODIFIED:
            line += f"[{''.join(_LETTERS[one] for one in change.aspects)}] {types} "
            write_line(line.encode() + path)
        else:
            size = f" {_signed_size(change)}"
            write_line(f"{line} {types} ".encode() + path + size.encode())

    def end(self) -> None:
        pass


class _Json:
    """One object, with all changes in a list."""

    def __init__(self) -> None:
        self._told: dict[str, object] = {}
        self._changes: list[dict[str, object]] = []

    def begin(self, old: _Side, new: _Side) -> None:
        self._told = {
            "from": _side_row(old),
            "to": _side_row(new),
            "statistics": _delta(old, new),
        }

    def tell(self, change: Change) -> None:
        self._changes.append(
            {
                "path": os.fsdecode(change.path) or "/",
                "change": change.kind.value,
                "type": _types(change)[-1],
                "old_type": _types(change)[0],
                "aspects": [one.value for one in change.aspects],
                "old_size": change.old.size if change.old else None,
                "new_size": change.new.size if change.new else None,
            }
        )

    def end(self) -> None:
        print(json.dumps({**self._told, "changes": self._changes}, indent=1))


def _writer(arguments: argparse.Namespace) -> _People | _Programs | _Json:
    if arguments.json:
        return _Json()
    if arguments.machine_readable:
        return _Programs(has_heading=arguments.header)
    return _People(has_heading=arguments.header)


def _side_row(side: _Side) -> dict[str, object]:
    root = side.tree.catalog(side.tree.root)
    return {
        "name": side.name,
        "revision": root.revision,
        "root_catalog": str(side.tree.root.content_hash),
        "timestamp_s": root.last_modified_s,
    }


def _delta(old: _Side, new: _Side) -> dict[str, int]:
    """Return how many more there are now; a nested catalog's directory counts once."""
    before, now = old.counters, new.counters
    more = {name: now[name] - before[name] for name in NAMES}
    return {
        "regular_files": more["regular"],
        "symlinks": more["symlink"],
        "directories": more["dir"] - more["nested"],
        "catalogs": more["nested"],
    }


def _types(change: Change) -> tuple[str, ...]:
    """Return the type of an entry; of one that has another type now, both."""
    found = tuple(_type(one) for one in (change.old, change.new) if one is not None)
    return tuple(dict.fromkeys(found))


def _type(entry: DirectoryEntry) -> str:
    if entry.is_regular:
        return "file"
    if entry.is_symlink:
        return "symlink"
    return "directory" if entry.is_directory else "unknown"


_TYPE_LETTERS = {"file": "F", "symlink": "S", "directory": "D", "unknown": "U"}


def _signed_size(change: Change) -> str:
    entry, sign = (change.new, "+") if change.new else (change.old, "-")
    return f"{sign}{entry.size if entry else 0}"


def _moment(seconds: int) -> str:
    """Return a time as the original writes it, in UTC."""
    try:
        at = time.gmtime(seconds)
    except (OverflowError, ValueError, OSError):
        return str(seconds)
    return f"{at.tm_mday} {time.strftime('%b %Y %H:%M:%S', at)}"
