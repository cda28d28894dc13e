"""Options and arguments that several ``cvmfs`` commands share."""

import argparse
import os
import re
from collections.abc import Callable

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.names import normalize_path

_NUMBER = re.compile(r"[0-9]{1,9}")


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


def number_up_to(most: int) -> Callable[[str], int]:
    """Return what reads a number from 1 on, as a ``type`` of an option."""

    def number(text: str) -> int:
        if _NUMBER.fullmatch(text) and 0 < int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {most}")

    return number


def repository_path(typed: str) -> bytes:
    """Return the path that catalogs use for one that was typed.

    Raises:
        ConfigurationError: It leads out of the repository, or is empty: that is a
            variable without a value, and does not mean everything.
    """
    if not typed:
        raise ConfigurationError("a path is empty", hint="/ is the whole repository")
    return normalize_path(os.fsencode(typed))
