"""Options and arguments that several ``cvmfs`` commands share."""

import argparse
import os

from cvmfsexec.format.names import normalize_path


def add_repository(parser: argparse.ArgumentParser) -> None:
    """Add the repository's name and where its configuration is."""
    parser.add_argument("fqrn", metavar="FQRN", help="repository, e.g. atlas.cern.ch")
    add_dist(parser)


def add_dist(parser: argparse.ArgumentParser) -> None:
    """Add where the configuration is."""
    parser.add_argument(
        "--dist",
        metavar="DIR",
        help="DIR/etc/cvmfs is the configuration (default: $CVMFSEXEC_DIST, then "
        "dist/ beside this command)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the switch for output that programs read."""
    parser.add_argument("--json", action="store_true", help="write JSON")


def repository_path(typed: str) -> bytes:
    """Return the path that catalogs use for one that was typed."""
    return normalize_path(os.fsencode(typed))
