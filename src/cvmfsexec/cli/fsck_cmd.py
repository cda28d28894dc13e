"""Check caches, and repair them.

Options and exit status are those of ``cvmfs_fsck``; see docs/reference/cvmfs.md.
"""

import argparse
import json
import os
from contextlib import closing
from itertools import chain

from cvmfsexec.cache.faults import Fault, Remedy, Tally
from cvmfsexec.cache.inspectors import PROCESSES_MAX, inspect_all
from cvmfsexec.cache.pack_inspection import inspect_packs
from cvmfsexec.cli.cache_choice import (
    add_cache_choice,
    chosen_places,
    tell_that_nothing_is_cached,
)
from cvmfsexec.cli.options import add_json, number_up_to
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.cli.report import report_error
from cvmfsexec.client.cache_contents import CacheContents, packed_bytes
from cvmfsexec.client.cache_places import CachePlace
from cvmfsexec.configuration.cache_instances import StoreKind
from cvmfsexec.errors import CvmfsError
from cvmfsexec.log import harmless

FIXED, NOT_FIXED, FAILED = 1, 4, 8
"""Bits of the exit status."""

USAGE_STATUS = 16

OUTPUT_LOST_STATUS = FAILED
"""What was found could not be told: as good as not done."""

_PROCESSES_DEFAULT = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "directories",
        metavar="DIR",
        nargs="*",
        default=[],
        help="cache directories",
    )
    add_cache_choice(parser)
    parser.add_argument(
        "-p", "--repair", action="store_true", help="repair what can be repaired"
    )
    parser.add_argument(
        "--quarantine",
        action="store_true",
        help="move corrupt objects to quarantaine/ instead of removing them",
    )
    parser.add_argument(
        "-f", "--force", action="store_true", help="count the bytes anew in any case"
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=number_up_to(PROCESSES_MAX),
        default=min(len(os.sched_getaffinity(0)), _PROCESSES_DEFAULT),
        metavar="N",
        help="use N processes (default: one for each processor, 8 at most)",
    )
    parser.add_argument(
        "--alien", action="store_true", help="directories that are named are alien"
    )
    parser.add_argument(
        "-v", action="count", dest="verbose", help="name what is no cache's, too"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the caches that the arguments choose; return the bits."""
    arguments.dir = [*arguments.dir, *arguments.directories]
    try:
        places = chosen_places(arguments, is_alien=arguments.alien)
    except CvmfsError as error:
        report_error("cvmfs", error)
        return FAILED
    status = 0
    reports: list[dict[str, object]] = []
    if not places:
        tell_that_nothing_is_cached(arguments)
    for place in places:
        report = _Report(place, arguments)
        try:
            report.inspect()
        except CvmfsError as error:
            report_error("cvmfs", error)
            status |= FAILED
        status |= report.status
        reports.append(report.as_json())
    if arguments.json:
        print(json.dumps(reports, indent=1))
    return status


class _Report:
    """What is found in one cache."""

    def __init__(self, place: CachePlace, arguments: argparse.Namespace) -> None:
        self._place = place
        self._arguments = arguments
        self._object_count = 0
        self._total_bytes = 0
        self._faults: list[Fault] = []
        self._foreign: list[str] = []
        self.status = 0

    def inspect(self) -> None:
        """Look at everything.

        Raises:
            CacheError: It is not possible.
        """
        place = self._place
        remedy = Remedy(
            repairs=self._arguments.repair,
            keeps_corrupt=self._arguments.quarantine,
            is_shared=place.kind is StoreKind.ALIEN,
        )
        with closing(CacheContents.open(place, is_trusted=False)) as contents:
            before = contents.counted()
            tallies = inspect_all(
                place.directory, remedy, contents.in_use(), self._arguments.jobs
            )
            total_bytes = contents.scan().total_bytes
            if not place.is_files:
                total_bytes = packed_bytes(place)
            self._add(next(tallies))  # from then on there may be threads
            with progress_bar(total_bytes, "bytes") as progress:
                for tally in chain(tallies, inspect_packs(place.directory, remedy)):
                    progress(tally.total_bytes)
                    self._add(tally)
            fault = contents.check_count(
                before, self._total_bytes, repairs=remedy.repairs
            )
            if fault is not None:
                self._tell(fault)
            self._conclude()
            if self._arguments.force or (remedy.repairs and contents.is_writable):
                contents.recount()

    def as_json(self) -> dict[str, object]:
        """Return everything in values that JSON has."""
        return {
            "directory": self._place.directory,
            "objects": self._object_count,
            "bytes": self._total_bytes,
            "faults": [
                {
                    "path": fault.path,
                    "problem": fault.problem.name.lower(),
                    "detail": fault.detail,
                    "fixed": fault.is_fixed,
                    "in_use": fault.is_in_use,
                }
                for fault in self._faults
            ],
            "foreign": self._foreign,
        }

    def _add(self, tally: Tally) -> None:
        self._object_count += tally.object_count
        self._total_bytes += tally.total_bytes
        self._foreign += tally.foreign
        for fault in tally.faults:
            self._tell(fault)
        if self._arguments.verbose and not self._arguments.json:
            for path in tally.foreign:
                print(f"{self._path(path)}: not of a cache")

    def _tell(self, fault: Fault) -> None:
        self._faults.append(fault)
        self.status |= FIXED if fault.is_fixed else NOT_FIXED
        if self._arguments.json:
            return
        detail = f" ({harmless(fault.detail)})" if fault.detail else ""
        ending = ": fixed" if fault.is_fixed else ""
        if fault.is_in_use:
            ending += "; a session has it open, and goes on with it until it ends"
        print(f"{self._path(fault.path)}: {fault.problem.value}{detail}{ending}")

    def _path(self, path: str) -> str:
        return harmless(f"{self._place.directory}/{path}")

    def _conclude(self) -> None:
        if self._arguments.json:
            return
        fixed = sum(fault.is_fixed for fault in self._faults)
        print(
            f"{harmless(self._place.directory)}: {self._object_count} objects, "
            f"{self._total_bytes} bytes, {len(self._faults)} faults, {fixed} fixed"
        )
