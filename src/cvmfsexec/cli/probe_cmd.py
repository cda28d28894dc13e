"""See whether repositories can be reached and are believed, past the cache."""

import argparse
import json
import os

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.cli.report import report_error
from cvmfsexec.configuration.evaluate import complete_name, site_repositories
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError, CvmfsError
from cvmfsexec.log import harmless

FAILED = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "fqrns",
        metavar="FQRN",
        nargs="*",
        help="repository; those of CVMFS_REPOSITORIES if none is given",
    )
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open each repository by the configured routes, and say how that went."""
    root = configuration_root(arguments.dist)
    wanted = arguments.fqrns or site_repositories(root, os.environ)
    if not wanted:
        raise ConfigurationError(
            "no repository to probe", hint="name one, or set CVMFS_REPOSITORIES"
        )
    rows = []
    for name in wanted:
        fqrn = _full_name(name, root)
        if not arguments.json:
            print(f"Probing /cvmfs/{fqrn}... ", end="", flush=True)
        row, error = _probe(fqrn, arguments.dist)
        rows.append(row)
        if not arguments.json:
            print("Failed!" if error else "OK", flush=True)
        if error is not None:
            report_error("cvmfs", error)
    if arguments.json:
        print(json.dumps(rows, indent=1))
    return exit_codes.OK if all(row["ok"] for row in rows) else FAILED


def _full_name(name: str, root: ConfigurationRoot) -> str:
    """Return the full name if there is one; else the short one, which fails later."""
    try:
        return complete_name(name, root, os.environ)
    except CvmfsError:
        return harmless(name)


def _probe(fqrn: str, dist: str | None) -> tuple[dict[str, object], CvmfsError | None]:
    """Return what is to be told of one repository, and what is wrong with it."""
    try:
        with open_client(fqrn, dist, MemoryStore()) as client:
            row: dict[str, object] = {
                "repository": fqrn,
                "ok": True,
                "revision": client.revision.number,
                "server": client.http.routes.active_host,
                "proxy": client.http.routes.active_proxy,
            }
            return row, None
    except CvmfsError as error:
        return {"repository": fqrn, "ok": False, "error": str(error)}, error
