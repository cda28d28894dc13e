"""Check signatures, catalogs, and every object on request.

Nothing is taken from the cache and nothing is put into it: what is checked is what the
servers deliver now. A local breadcrumb still counts against roll-back.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_json, add_repository
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.client.assembly import Client
from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.repository.lookup import content_requests
from cvmfsexec.trust.chain import Step, verification_steps

_PARALLEL = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    parser.add_argument(
        "--objects", action="store_true", help="download and check every object too"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the repository; return 0 if all is well."""
    with open_client(arguments.fqrn, arguments.dist, MemoryStore()) as client:
        report = _Report(is_quiet=arguments.json)
        if not client.revision.is_fixed:
            _check_chain(client, report)
        _check_contents(client, report, with_objects=arguments.objects)
    if arguments.json:
        print(json.dumps(report.as_json(client), indent=1))
    else:
        word = "FAILED" if report.errors else "ok"
        print(f"{client.fqrn} revision {client.revision.number}: {word}")
    return report.status


class _Report:
    """What was found so far."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self.passed: list[str] = []
        self.errors: list[str] = []
        self.status = exit_codes.OK

    def good(self, claim: str) -> None:
        self.passed.append(claim)
        if not self._is_quiet:
            print(f"  ok      {claim}")

    def bad(self, claim: str, error: CvmfsError) -> None:
        self.errors.append(f"{claim}: {error}")
        self.status = self.status or exit_codes.exit_status_of(error)
        if not self._is_quiet:
            sys.stdout.flush()
            print(f"  FAILED  {claim}: {error}", file=sys.stderr)

    def as_json(self, client: Client) -> dict[str, object]:
        return {
            "fqrn": client.fqrn,
            "revision": client.revision.number,
            "root_catalog": str(client.revision.root_catalog),
            "passed": self.passed,
            "errors": self.errors,
        }


def _check_chain(client: Client, report: _Report) -> None:
    documents = client.selector.signed_documents()
    step: Step | None = None
    try:
        for following in verification_steps(
            *documents, client.trust, watermark=None, now_s=time.time()
        ):
            if step is not None:
                report.good(step.value)
            step = following
    except CvmfsError as error:
        report.bad(step.value if step else "the manifest", error)
    else:
        if step is not None:
            report.good(step.value)


def _check_contents(client: Client, report: _Report, *, with_objects: bool) -> None:
    """Read every row of every catalog, and perhaps each object that they name.

    One catalog after the other, so that no more than a few are in memory. It ends at
    the first that is not sound.
    """
    objects = _ObjectCheck(client, report)
    place = b""
    catalog_count = entry_count = 0
    unit = "objects" if with_objects else "entries"
    with progress_bar(None, unit) as progress:
        try:
            for slot in client.tree.slots_below(client.tree.root):
                place = slot.mountpoint
                count, requests = _read_catalog(client.tree.catalog(slot))
                client.store.remove(slot.content_hash)
                catalog_count += 1
                entry_count += count
                if with_objects:
                    objects.check(requests, progress)
                else:
                    progress(count)
        except CvmfsError as error:
            where = place.decode(errors="replace") or "/"
            report.bad(f"the catalogs are sound, at or below {where}", error)
        else:
            report.good(
                f"the catalogs are sound ({catalog_count} catalogs, {entry_count} rows)"
            )
    if with_objects:
        objects.conclude()


def _read_catalog(catalog: Catalog) -> tuple[int, list[ObjectRequest]]:
    """Return how many rows there are, and what they name."""
    count = 0
    requests: list[ObjectRequest] = []
    for entry in catalog.walk():
        count += 1
        if entry.is_regular:
            try:
                requests += content_requests(catalog, entry, b"/" + entry.name)
            except FormatError as error:
                raise FormatError(f"{entry.name!r}: {error}") from error
    return count, requests


class _ObjectCheck:
    """Downloads objects, each once, and keeps none.

    External files are not objects of the repository: they are left out, and counted.
    """

    def __init__(self, client: Client, report: _Report) -> None:
        self._client = client
        self._report = report
        self._checked: set[str] = set()
        self._external_count = 0
        self._wrong_count = 0

    def check(
        self, requests: list[ObjectRequest], progress: Callable[[int], object]
    ) -> None:
        wanted = {one.path: one for one in requests if not one.external_path}
        self._external_count += sum(1 for one in requests if one.external_path)
        new = [one for path, one in wanted.items() if path not in self._checked]
        self._checked.update(wanted)
        with ThreadPoolExecutor(_PARALLEL) as pool:
            for error in pool.map(self._error_of, new):
                progress(1)
                if error is not None:
                    self._wrong_count += 1
                    self._report.bad("an object is what its name says", error)

    def conclude(self) -> None:
        if self._wrong_count:
            return
        count = f"{len(self._checked)} objects"
        if self._external_count:
            count += f"; {self._external_count} external ones were not asked for"
        self._report.good(f"every object is what its name says ({count})")

    def _error_of(self, request: ObjectRequest) -> CvmfsError | None:
        try:
            os.close(self._client.fetcher.open(request))
            self._client.store.remove(request.content_hash)
        except CvmfsError as error:
            return error
        return None
