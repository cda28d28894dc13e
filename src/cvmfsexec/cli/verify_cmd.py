"""Check signatures, catalogs, and every object on request.

Nothing is taken from the cache and nothing is put into it: what is checked is what the
servers deliver now. A local breadcrumb still counts against roll-back.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_json, add_repository
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.client.assembly import Client
from cvmfsexec.errors import CvmfsError, FormatError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.repository.catalog_tree import Slot
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
        requests = _check_catalogs(client, report)
        if arguments.objects:
            _check_objects(client, requests, report)
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


def _check_catalogs(
    client: Client, report: _Report
) -> Callable[[], Iterator[ObjectRequest]]:
    """Read every row of every catalog; return what yields the objects they name.

    It ends at the first catalog that is not sound; the objects of those before it can
    still be checked.
    """
    slots: list[Slot] = []
    place = b""
    entry_count = 0
    with progress_bar(None, "entries", "catalogs") as progress:
        try:
            for slot in client.tree.slots_below(client.tree.root):
                place = slot.mountpoint
                for _ in _requests_of(client, slot):
                    pass
                count = sum(1 for _ in client.tree.catalog(slot).walk())
                slots.append(slot)
                entry_count += count
                progress(count)
        except CvmfsError as error:
            where = place.decode(errors="replace") or "/"
            report.bad(f"the catalogs are sound, at or below {where}", error)
        else:
            report.good(
                f"the catalogs are sound ({len(slots)} catalogs, {entry_count} rows)"
            )
    return lambda: (r for slot in slots for r in _requests_of(client, slot))


def _requests_of(client: Client, slot: Slot) -> Iterator[ObjectRequest]:
    catalog = client.tree.catalog(slot)
    for entry in catalog.walk():
        if entry.is_regular:
            try:
                yield from content_requests(catalog, entry, b"/" + entry.name)
            except FormatError as error:
                raise FormatError(f"{entry.name!r}: {error}") from error


def _check_objects(
    client: Client, requests: Callable[[], Iterator[ObjectRequest]], report: _Report
) -> None:
    wanted = {(r.content_hash, r.kind): r for r in requests() if not r.external_path}
    wrong = 0

    def check(request: ObjectRequest) -> CvmfsError | None:
        try:
            os.close(client.fetcher.open(request))
            client.store.remove(request.content_hash)
        except CvmfsError as error:
            return error
        return None

    with (
        progress_bar(len(wanted), "objects", "objects") as progress,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        for error in pool.map(check, wanted.values()):
            progress(1)
            if error is not None:
                wrong += 1
                report.bad("an object is what its name says", error)
    if not wrong:
        report.good(f"every object is what its name says ({len(wanted)} objects)")
