"""Tell what a trace says that a job touched."""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.cli.output import printable, write_line
from cvmfsexec.cli.report import write_message
from cvmfsexec.cli.traces import read_trace
from cvmfsexec.format.touched_paths import TouchedPaths
from cvmfsexec.format.trace import EVENT_CODES, MOUNT_DIRECTORY, Event, TraceRecord


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
    records = (one for path in arguments.files for one in _told_by(path, arguments))
    if arguments.json:
        _print_json(_by_path(records))
        return 0
    for path in _each_once(records):
        write_line(printable(path))
    return 0


def _told_by(path: str, arguments: argparse.Namespace) -> Iterator[TraceRecord]:
    """Yield what was touched."""
    record = None
    for record in read_trace(path, beside_output=not arguments.json):
        if record.code in EVENT_CODES:
            yield record
    if record is None:
        write_message("cvmfs", f"{path} tells nothing")


def _each_once(records: Iterable[TraceRecord]) -> Iterator[bytes]:
    """Yield paths when they come for the first time."""
    seen: dict[str, TouchedPaths] = defaultdict(TouchedPaths)
    for record in records:
        if seen[record.fqrn].add(record.path):
            top = MOUNT_DIRECTORY + record.fqrn.encode() if record.fqrn else b""
            yield top + record.path or b"/"


class _Touched:
    """A path, and how it was touched."""

    __slots__ = ("at_us", "codes", "count")

    def __init__(self, at_us: int) -> None:
        self.at_us = at_us
        self.codes = 0  # bit 1 for the code 1
        self.count = 0


def _by_path(
    records: Iterable[TraceRecord],
) -> dict[tuple[str, bytes], _Touched]:
    touched: dict[tuple[str, bytes], _Touched] = {}
    for record in records:
        one = touched.get((record.fqrn, record.path))
        if one is None:
            one = touched[record.fqrn, record.path] = _Touched(record.at_us)
        one.codes |= 1 << record.code
        one.count += 1
    return touched


def _print_json(touched: dict[tuple[str, bytes], _Touched]) -> None:
    """Print one object after the other: the text is larger than what it tells."""
    lead = "["
    for (fqrn, path), one in touched.items():
        events = [event.name.lower() for event in Event if one.codes >> event & 1]
        told = {
            "repository": fqrn or None,
            "path": os.fsdecode(path) or "/",
            "at": one.at_us / 1e6,
            "events": events,
            "count": one.count,
        }
        print(f"{lead}\n{json.dumps(told)}", end="")
        lead = ","
    print("\n]" if touched else "[]")
