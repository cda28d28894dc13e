"""Tell what a trace says that a job touched."""

import argparse
import json
import os
from collections.abc import Iterable

from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.cli.output import printable, write_line
from cvmfsexec.cli.traces import read_trace
from cvmfsexec.format.trace import MOUNT_DIRECTORY, Event, TraceRecord

_CODES = frozenset(map(int, Event))


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="as 'cvmfsexec --trace FILE' writes it"
    )
    parser.add_argument(
        "--replay",
        action="store_true",
        help="fetch it into the cache, as 'cvmfs prefetch --replay FILE'",
    )
    parser.add_argument(
        "--repository",
        dest="fqrn",
        metavar="FQRN",
        help="of which repository it is, if it does not tell",
    )
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List what was touched, each path once; or fetch it."""
    if arguments.replay:
        from cvmfsexec.cli import prefetch_cmd

        arguments.replay, arguments.paths = arguments.files, []
        arguments.connections = prefetch_cmd.CONNECTIONS
        return prefetch_cmd.run(arguments)
    touched = _by_path(
        record for path in arguments.files for record in read_trace(path)
    )
    if arguments.json:
        print(json.dumps([_as_json(one) for one in touched.values()], indent=1))
        return 0
    for path in touched:
        write_line(printable(path))
    return 0


class _Touched:
    """A path, and how it was touched."""

    def __init__(self, record: TraceRecord) -> None:
        self.first = record
        self.codes = {record.code}
        self.count = 1

    def add(self, record: TraceRecord) -> None:
        self.codes.add(record.code)
        self.count += 1


def _by_path(records: Iterable[TraceRecord]) -> dict[bytes, _Touched]:
    touched: dict[bytes, _Touched] = {}
    for record in records:
        if record.code not in _CODES:
            continue  # such as the notes of the original about its buffer
        top = MOUNT_DIRECTORY + record.fqrn.encode() if record.fqrn else b""
        path = top + record.path or b"/"
        if path in touched:
            touched[path].add(record)
        else:
            touched[path] = _Touched(record)
    return touched


def _as_json(touched: _Touched) -> dict[str, object]:
    record = touched.first
    return {
        "repository": record.fqrn or None,
        "path": os.fsdecode(record.path) or "/",
        "at": record.at_us / 1e6,
        "events": [Event(code).name.lower() for code in sorted(touched.codes)],
        "count": touched.count,
    }
