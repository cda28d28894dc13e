"""Fill the cache with what a job will need."""

import argparse
import json
import os
from collections.abc import Iterator
from itertools import groupby

from cvmfsexec import log
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_dist, add_json, repository_path
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.cli.report import write_message
from cvmfsexec.cli.stat_cmd import NOT_FOUND, no_such_entry
from cvmfsexec.cli.traces import read_trace
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.warming import Failure, Warmth, Wishes, warm
from cvmfsexec.configuration.cache_instances import StoreKind
from cvmfsexec.errors import ConfigurationError, CvmfsError
from cvmfsexec.format.trace import TraceRecord

CONNECTIONS = 16
"""How many objects are fetched at a time, unless an option says otherwise."""

_FAILURES_TOLD_MAX = 20

Wanted = list[bytes] | list[TraceRecord]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("fqrn", metavar="FQRN", nargs="?", help="repository")
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="files, directories with all that is below, or patterns: '/lib/*.so'",
    )
    add_dist(parser)
    parser.add_argument(
        "--replay",
        action="append",
        default=[],
        metavar="FILE",
        help="what a trace tells, of 'cvmfsexec --trace'; FQRN is needed if it does "
        "not name its repository",
    )
    parser.add_argument(
        "--connections",
        type=int,
        choices=range(1, 65),
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
        records = [one for path in arguments.replay for one in read_trace(path)]
        named = [_named(record, arguments.fqrn) for record in records]
        named.sort(key=lambda record: record.fqrn)  # stable: events keep their order
        for fqrn, own in groupby(named, lambda record: record.fqrn):
            yield fqrn, list(own)
        return
    if not arguments.fqrn or not arguments.paths:
        raise ConfigurationError(
            "nothing to prefetch",
            hint="name a repository and paths in it, / for everything, or a trace "
            "with --replay",
        )
    yield arguments.fqrn, [repository_path(typed) for typed in arguments.paths]


def _named(record: TraceRecord, fqrn: str | None) -> TraceRecord:
    if record.fqrn:
        return record
    if not fqrn:
        raise ConfigurationError(
            "the trace does not tell of which repository it is",
            hint="name it: cvmfs prefetch FQRN --replay FILE",
        )
    return record._replace(fqrn=fqrn)


def _prefetch(
    fqrn: str, wanted: Wanted, arguments: argparse.Namespace
) -> tuple[dict[str, object], int]:
    with open_client(fqrn, arguments.dist) as client:
        if client.settings.cache.store.kind is StoreKind.RAM:
            log.warning("the cache is in memory, and ends with the last session")
        wishes = _look_up(client, wanted)
        label = f"{client.fqrn}: {len(wishes.wanted)} objects"
        with progress_bar(wishes.total_bytes, "bytes", label) as progress:
            warmth = warm(client, wishes.wanted, arguments.connections, progress)
        failures = (*wishes.failures, *warmth.failures)
        status = _tell_failures(wishes, failures, is_replay=bool(arguments.replay))
        if not arguments.json:
            _tell(client, wishes, warmth)
        return _as_json(client, wishes, warmth, failures), status


def _look_up(client: Client, wanted: Wanted) -> Wishes:
    with progress_bar(None, "entries", client.fqrn) as progress:
        wishes = Wishes(client, progress)
        records = [one for one in wanted if isinstance(one, TraceRecord)]
        wishes.add_trace(records)
        for path in wanted:
            if isinstance(path, bytes):
                wishes.add_path(path)
    return wishes


def _tell_failures(
    wishes: Wishes, failures: tuple[Failure, ...], *, is_replay: bool
) -> int:
    """Say what could not be had; return the exit status for it.

    What a trace names and this revision does not have is no failure.
    """
    status = exit_codes.OK
    for path in () if is_replay else wishes.missing:
        status = no_such_entry(path) or NOT_FOUND
    for failure in failures[:_FAILURES_TOLD_MAX]:
        where = os.fsdecode(failure.path) or "/"
        write_message("cvmfs", f"{where}: {failure.error}", failure.error.hint)
    if len(failures) > _FAILURES_TOLD_MAX:
        more = len(failures) - _FAILURES_TOLD_MAX
        write_message("cvmfs", f"{more} more objects could not be had")
    if failures:
        status = exit_codes.exit_status_of(failures[0].error)
    return status


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
