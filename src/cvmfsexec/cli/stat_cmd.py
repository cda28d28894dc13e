"""Tell everything about entries of a repository, or how its mounts fare."""

import argparse
import json
import os
import stat
import sys

from cvmfsexec.cli.environment import find, open_client
from cvmfsexec.cli.options import add_dist, add_json, repository_path
from cvmfsexec.cli.report import write_message
from cvmfsexec.client.assembly import Client
from cvmfsexec.format.xattr import parse_xattrs
from cvmfsexec.log import harmless
from cvmfsexec.repository.lookup import Location

NOT_FOUND = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "fqrn",
        metavar="FQRN",
        nargs="?",
        help="repository; all that are mounted if none is given",
    )
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", help="without any, its mounts are told of"
    )
    parser.add_argument(
        "-v", "--long", action="store_true", help="a line for each value"
    )
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Describe what the arguments name."""
    if not arguments.paths:
        return _tell_of_mounts(arguments)
    status = 0
    found: list[dict[str, object]] = []
    with open_client(arguments.fqrn, arguments.dist) as client:
        for typed in arguments.paths:
            path = repository_path(typed)
            location = find(client, path)
            if location is None:
                status = no_such_entry(path)
            else:
                found.append(description(client, location))
    if arguments.json:
        print(json.dumps(found, indent=1))
        return status
    for one in found:
        width = max(len(key) for key in one)
        for key, value in one.items():
            text = value if isinstance(value, str) else json.dumps(value)
            print(f"{key:>{width}}: {harmless(text)}")
        print()
    return status


def _tell_of_mounts(arguments: argparse.Namespace) -> int:
    """Tell how mounts fare, in the columns of ``cvmfs_config stat``."""
    from cvmfsexec.cli.mount_statistics import statistics_of, table_of, text_of
    from cvmfsexec.cli.mounts import live_mounts, wanted_names

    typed = [arguments.fqrn] if arguments.fqrn else []
    status = 0
    told: list[dict[str, object]] = []
    for fqrn in wanted_names(typed, arguments.dist):
        alive, troubles = live_mounts(fqrn, arguments.dist)
        for trouble in troubles:
            write_message("cvmfs", trouble)
            status = NOT_FOUND
        if typed and not alive and not troubles:
            print(f"{fqrn} not mounted", file=sys.stderr)
            status = NOT_FOUND
        for mount in alive:
            values = statistics_of(mount, arguments.dist)
            told.append({"repository": fqrn, "socket": mount.socket, **values})
            if arguments.json:
                continue
            if arguments.long:
                print(text_of(fqrn, values))
            else:
                print(*([f"{fqrn}:"] * (not typed)), *table_of(values), sep="\n")
    if arguments.json:
        print(json.dumps(told, indent=1))
    return status


def no_such_entry(path: bytes) -> int:
    """Tell that a path does not exist, and return the status for it."""
    text = path.decode(errors="backslashreplace")
    write_message("cvmfs", f"{text or '/'}: no such file or directory")
    return NOT_FOUND


def description(client: Client, location: Location) -> dict[str, object]:
    """Return what a catalog knows about an entry, in values that JSON has."""
    entry = location.entry
    attributes = client.presentation.attributes(entry, 0)
    result: dict[str, object] = {
        "path": _text(location.path) or "/",
        "type": _TYPES.get(stat.S_IFMT(entry.mode), "unknown"),
        "mode": f"{stat.S_IMODE(attributes.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": attributes.size,
        "mtime": entry.mtime_s,
        "mtime_ns": entry.mtime_ns,
        "nlink": attributes.nlink,
    }
    if entry.is_symlink:
        result["target"] = _text(client.presentation.link_target(entry))
        result["rawlink"] = _text(entry.symlink)
    if stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode):
        result["rdev"] = [os.major(entry.size), os.minor(entry.size)]
    if entry.is_regular:
        requests = client.lookup.content_requests(location)
        result["compression"] = entry.compression.name.lower()
        result["external"] = entry.is_external
        result["chunks"] = len(requests)
    if entry.content_hash is not None:
        result["hash"] = str(entry.content_hash)
    xattrs = parse_xattrs(entry.xattr)
    if xattrs:
        result["xattrs_hex"] = {_text(k): v.hex() for k, v in xattrs.items()}
    result["catalog"] = str(location.slot.content_hash)
    return result


def _text(name: bytes) -> str:
    return os.fsdecode(name)


_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "sock",
    stat.S_IFCHR: "chr",
    stat.S_IFBLK: "blk",
}
