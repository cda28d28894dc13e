"""Fill the cache with what a job will need."""

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

from cvmfsexec import log
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_dist, add_json, number_up_to, repository_path
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.cli.report import write_message
from cvmfsexec.cli.stat_cmd import NOT_FOUND, no_such_entry
from cvmfsexec.cli.traces import read_trace
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.warming import Failure, Room, Warmth, Wishes, warm, with_room
from cvmfsexec.configuration.cache_instances import StoreKind
from cvmfsexec.configuration.evaluate import complete_name
from cvmfsexec.errors import CacheError, ConfigurationError, CvmfsError
from cvmfsexec.format.pinned_name import parse_pinned_name
from cvmfsexec.format.touched_paths import TouchedPaths
from cvmfsexec.format.trace import EVENT_CODES, Event, TraceRecord

CONNECTIONS = 16
"""How many objects are fetched at a time, unless an option says otherwise."""

_CONNECTIONS_MAX = 64
_FAILURES_TOLD_MAX = 20

Wanted = list[bytes] | TouchedPaths


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("fqrn", metavar="FQRN", nargs="?", help="repository")
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        default=[],
        help="files, directories with all that is below, or patterns: '/lib/*.so'",
    )
    add_dist(parser)
    parser.add_argument(
        "--replay",
        action="append",
        default=[],
        metavar="FILE",
        help="what a trace tells, of 'cvmfsexec --trace'; with FQRN: of that "
        "repository, which is needed if the trace does not name it",
    )
    parser.add_argument(
        "--connections",
        type=number_up_to(_CONNECTIONS_MAX),
        default=CONNECTIONS,
        metavar="N",
        help="how many objects to fetch at a time (default: 16)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fetch what the arguments name; return 0 if all of it is in the cache then."""
    status = exit_codes.OK
    reports: list[dict[str, object]] = []
    for fqrn, wanted in _wanted(arguments):
        try:
            report, own_status = _prefetch(fqrn, wanted, arguments)
        except CvmfsError as error:
            write_message("cvmfs", f"{fqrn}: {error}", error.hint)
            own_status = exit_codes.exit_status_of(error)
            report = {"repository": fqrn, "error": str(error)}
        status = status or own_status
        reports.append(report)
    if arguments.json:
        print(json.dumps(reports, indent=1))
    return status


def _wanted(arguments: argparse.Namespace) -> Iterator[tuple[str, Wanted]]:
    """Yield repositories, and what is wanted of each."""
    if arguments.replay:
        if arguments.paths:
            raise ConfigurationError("--replay tells the paths itself")
        yield from _touched(arguments).items()
        return
    if not arguments.fqrn or not arguments.paths:
        raise ConfigurationError(
            "nothing to prefetch",
            hint="name a repository and paths in it, / for everything, or a trace "
            "with --replay",
        )
    yield arguments.fqrn, [repository_path(typed) for typed in arguments.paths]


def _touched(arguments: argparse.Namespace) -> dict[str, TouchedPaths]:
    """Return what the traces tell, by repository."""
    touched: dict[str, TouchedPaths] = defaultdict(TouchedPaths)
    for path in arguments.replay:
        record = None
        for record in _told_by(path, arguments):
            extent = (record.offset, record.size_bytes)
            was_read = record.code == Event.OPEN
            touched[record.fqrn].add(record.path, extent if was_read else None)
        if record is None:
            of_whom = f" of {arguments.fqrn}" if arguments.fqrn else ""
            told = f"{path} tells nothing{of_whom}, so nothing is fetched"
            write_message("cvmfs", told)
    return touched


def _told_by(path: str, arguments: argparse.Namespace) -> Iterator[TraceRecord]:
    """Yield what a trace tells, each event with its repository."""
    name = arguments.fqrn and _complete(arguments.fqrn, arguments.dist)
    for record in read_trace(path):
        if record.code not in EVENT_CODES:
            continue
        if not name and not record.fqrn:
            raise ConfigurationError(
                f"{path} does not tell of which repository it is",
                hint=f"name it: cvmfs prefetch FQRN --replay {path}",
            )
        if not name:
            yield record
        elif record.fqrn in ("", name):
            yield record._replace(fqrn=arguments.fqrn)


def _complete(fqrn: str, dist: str | None) -> str:
    name, _ = parse_pinned_name(fqrn)
    return complete_name(name, configuration_root(dist), os.environ)


def _prefetch(
    fqrn: str, wanted: Wanted, arguments: argparse.Namespace
) -> tuple[dict[str, object], int]:
    with open_client(fqrn, arguments.dist) as client:
        warn_of_memory(client.settings.cache.store.kind)
        wishes = _look_up(client, wanted, arguments.connections)
        room = with_room(client.store, wishes.wanted)
        total_bytes = sum(wish.request.size_bytes or 0 for wish in room.kept)
        label = f"{client.fqrn}: {len(room.kept)} objects"
        with progress_bar(total_bytes, "bytes", label) as progress:
            warmth = warm(client, room.kept, arguments.connections, progress)
        failures = (*wishes.failures, *warmth.failures)
        status = tell_failures(failures)
        if room.left_out_count:
            status = _tell_left_out(client, wishes, room) or status
        if not arguments.replay:  # an older revision may have had it
            status = tell_missing(wishes) or status
        if not arguments.json:
            _tell(client, wishes, warmth)
        report = _as_json(client, wishes, warmth, failures)
        return {**report, "left_out": room.left_out_count}, status


def _look_up(client: Client, wanted: Wanted, connections: int) -> Wishes:
    count = wanted.path_count if isinstance(wanted, TouchedPaths) else None
    with progress_bar(count, "entries", client.fqrn) as progress:
        wishes = Wishes(client, progress)
        if isinstance(wanted, TouchedPaths):
            wishes.add_trace(wanted, connections)
        else:
            wishes.add_paths(wanted)
    return wishes


def _tell_left_out(client: Client, wishes: Wishes, room: Room) -> int:
    """Say that the cache is too small; return the exit status for it."""
    error = CacheError(
        f"{client.fqrn}: {room.left_out_count} of {len(wishes.wanted)} objects are "
        f"left out: the cache holds {_megabytes(room.limit_bytes)} MB, and they all "
        f"have {_megabytes(wishes.total_bytes)} MB",
        hint="raise CVMFS_QUOTA_LIMIT to twice of that",
    )
    write_message("cvmfs", str(error), error.hint)
    return exit_codes.exit_status_of(error)


def _megabytes(size_bytes: int) -> int:
    return -(-size_bytes >> 20)


def warn_of_memory(kind: StoreKind) -> None:
    """Say so if what is fetched now is gone before a session can use it."""
    if kind is StoreKind.RAM:
        log.warning("the cache is in memory, and ends with the last session")


def tell_missing(wishes: Wishes) -> int:
    """Say which paths are not there; return the exit status for it."""
    for path in wishes.missing:
        no_such_entry(path)
    return NOT_FOUND if wishes.missing else exit_codes.OK


def tell_failures(failures: Sequence[Failure]) -> int:
    """Say what could not be had, up to a point; return the exit status for it."""
    for failure in failures[:_FAILURES_TOLD_MAX]:
        where = os.fsdecode(failure.path) or "/"
        write_message("cvmfs", f"{where}: {failure.error}", failure.error.hint)
    if len(failures) > _FAILURES_TOLD_MAX:
        more = len(failures) - _FAILURES_TOLD_MAX
        write_message("cvmfs", f"{more} more objects could not be had")
    return exit_codes.exit_status_of(failures[0].error) if failures else exit_codes.OK


def _tell(client: Client, wishes: Wishes, warmth: Warmth) -> None:
    print(
        f"{client.fqrn} revision {client.revision.number}: {wishes.file_count} files, "
        f"{len(wishes.wanted)} objects of {wishes.total_bytes} bytes; "
        f"{warmth.present_count} were there, {warmth.fetched_count} fetched "
        f"({warmth.fetched_bytes} bytes), {len(warmth.failures)} failed"
    )


def _as_json(
    client: Client, wishes: Wishes, warmth: Warmth, failures: tuple[Failure, ...]
) -> dict[str, object]:
    return {
        "repository": client.fqrn,
        "revision": client.revision.number,
        "files": wishes.file_count,
        "objects": len(wishes.wanted),
        "bytes": wishes.total_bytes,
        "present": warmth.present_count,
        "fetched": warmth.fetched_count,
        "fetched_bytes": warmth.fetched_bytes,
        "missing": [os.fsdecode(path) or "/" for path in wishes.missing],
        "failed": [
            {"path": os.fsdecode(one.path) or "/", "error": str(one.error)}
            for one in failures
        ],
    }
