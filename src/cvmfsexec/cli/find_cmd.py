"""List a tree of a repository."""

import argparse
import fnmatch
import json
import os
from collections.abc import Iterator

from cvmfsexec.cli.environment import find, open_client
from cvmfsexec.cli.options import add_repository, repository_path
from cvmfsexec.cli.output import printable, write_line
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.cli.stat_cmd import description, no_such_entry
from cvmfsexec.format.dirent import DirectoryEntry
from cvmfsexec.repository.lookup import Location, PathLookup

_TYPES = {"f": "is_regular", "d": "is_directory", "l": "is_symlink", "s": "is_special"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", default="/")
    parser.add_argument("--type", choices=sorted(_TYPES), help="only this kind")
    parser.add_argument("--name", metavar="GLOB", help="only names that match")
    parser.add_argument(
        "--json", action="store_true", help="write a JSON object a line"
    )


def run(arguments: argparse.Namespace) -> int:
    """List what lies below the path that the arguments name."""
    with open_client(arguments.fqrn, arguments.dist) as client:
        path = repository_path(arguments.path)
        top = find(client, path)
        if top is None:
            return no_such_entry(path)
        with progress_bar(None, "entries", beside_output=True) as progress:
            for location in walk(client.lookup, top):
                progress(1)
                if not _is_wanted(location.entry, arguments):
                    continue
                if arguments.json:
                    print(json.dumps(description(client, location)))
                else:
                    write_line(printable(location.path or b"/"))
    return 0


def walk(lookup: PathLookup, top: Location) -> Iterator[Location]:
    """Yield an entry and everything below it, a directory before its content."""
    pending = [top]
    while pending:
        location = pending.pop()
        yield location
        if location.entry.is_directory:
            children = sorted(lookup.list_(location), reverse=True)
            pending.extend(children)


def _is_wanted(entry: DirectoryEntry, arguments: argparse.Namespace) -> bool:
    if arguments.type and not getattr(entry, _TYPES[arguments.type]):
        return False
    return not arguments.name or fnmatch.fnmatchcase(
        os.fsdecode(entry.name), arguments.name
    )
