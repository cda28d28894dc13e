"""Options and arguments that several ``cvmfs`` commands share."""

import argparse
import os
import sys

from cvmfsexec.format.names import normalize_path


def add_repository(parser: argparse.ArgumentParser) -> None:
    """Add the repository's name and where its configuration is."""
    parser.add_argument("fqrn", metavar="FQRN", help="repository, e.g. atlas.cern.ch")
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


def printable(name: bytes) -> bytes:
    """Return a name for stdout: raw for programs, harmless for a terminal."""
    if not sys.stdout.isatty():
        return name
    text = name.decode(errors="replace")
    return "".join(c if c.isprintable() else "?" for c in text).encode()


def write_line(line: bytes) -> None:
    """Write one line of bytes to stdout."""
    sys.stdout.buffer.write(line + b"\n")
