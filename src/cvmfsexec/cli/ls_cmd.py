"""List a directory of a repository."""

import argparse
import os
import stat

from cvmfsexec.cli.environment import find, open_client
from cvmfsexec.cli.options import add_json, add_repository, repository_path
from cvmfsexec.cli.output import local_time, printable, write_line
from cvmfsexec.cli.stat_cmd import description, no_such_entry
from cvmfsexec.client.assembly import Client
from cvmfsexec.repository.lookup import Location


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    parser.add_argument("path", metavar="PATH", nargs="?", default="/")
    parser.add_argument("-l", "--long", action="store_true", help="tell everything")
    parser.add_argument("-a", "--all", action="store_true", help="names with a dot too")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List what the arguments name."""
    with open_client(arguments.fqrn, arguments.dist) as client:
        path = repository_path(arguments.path)
        found = find(client, path)
        if found is None:
            return no_such_entry(path)
        is_directory = found.entry.is_directory
        shown = list(client.lookup.list_(found)) if is_directory else [found]
        if not (arguments.all or arguments.json):
            shown = [one for one in shown if not one.entry.name.startswith(b".")]
        shown.sort(key=lambda one: one.entry.name)
        if arguments.json:
            import json

            print(json.dumps([description(client, one) for one in shown], indent=1))
            return 0
        for one in shown:
            name = printable(one.entry.name)
            write_line(_long(client, one, name) if arguments.long else name)
    return 0


def _long(client: Client, location: Location, name: bytes) -> bytes:
    attributes = client.presentation.attributes(location.entry, 0)
    size = str(attributes.size)
    if stat.S_ISCHR(attributes.mode) or stat.S_ISBLK(attributes.mode):
        size = f"{os.major(location.entry.size)}, {os.minor(location.entry.size)}"
    line = (
        f"{stat.filemode(attributes.mode)} {attributes.nlink:3} "
        f"{location.entry.uid:5} {location.entry.gid:5} {size:>12} "
        f"{local_time(attributes.mtime_s)} "
    ).encode() + name
    if location.entry.is_symlink:
        line += b" -> " + printable(client.presentation.link_target(location.entry))
    return line
