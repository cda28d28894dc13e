"""List what is mounted, where, and by which process."""

import argparse
import json

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.mounts import live_mounts, wanted_names
from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.cli.report import write_message
from cvmfsexec.errors import CvmfsError
from cvmfsexec.log import harmless

UNHEALTHY = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "fqrns", metavar="FQRN", nargs="*", help="only these repositories"
    )
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List all mounts that answer, and complain of the others."""
    rows: list[dict[str, object]] = []
    status = exit_codes.OK
    for fqrn in wanted_names(arguments.fqrns, arguments.dist):
        try:
            alive, troubles = live_mounts(fqrn, arguments.dist)
        except CvmfsError as error:
            if not arguments.fqrns:
                continue  # of another dist, for example
            alive, troubles = [], [f"{fqrn}: {error}"]
        rows += [one._asdict() for one in alive]
        for trouble in troubles:
            write_message("cvmfs", trouble)
            status = UNHEALTHY
        if arguments.fqrns and not alive and not troubles:
            write_message("cvmfs", f"{fqrn} not mounted")
            status = UNHEALTHY
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return status
    for row in rows:
        place = harmless(str(row["mountpoint"]))
        print(f"{row['fqrn']} mounted on {place} with pid {row['pid']}")
    return status
