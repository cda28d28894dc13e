"""Write the content of files of a repository to stdout."""

import argparse
import os
import sys

from cvmfsexec.cli.environment import find, open_client
from cvmfsexec.cli.options import add_repository, repository_path
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.cli.stat_cmd import NOT_FOUND, no_such_entry
from cvmfsexec.client.assembly import Client
from cvmfsexec.format.names import normalize_path, parent_path
from cvmfsexec.repository.lookup import Location

_COPY_BYTES = 1 << 20
_LINKS_MAX = 40  # as the kernel's


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+")


def run(arguments: argparse.Namespace) -> int:
    """Write the files that the arguments name, one after the other."""
    status = 0
    with open_client(arguments.fqrn, arguments.dist) as client:
        for typed in arguments.paths:
            path = repository_path(typed)
            location = _follow(client, path)
            if location is None:
                status = no_such_entry(path)
            elif not location.entry.is_regular:
                kind = "a directory" if location.entry.is_directory else "no file"
                print(f"cvmfs: {typed}: is {kind}", file=sys.stderr)
                status = NOT_FOUND
            else:
                _copy(client, location)
    return status


def _follow(client: Client, path: bytes) -> Location | None:
    """Find a file, following links that stay inside of the repository."""
    for _ in range(_LINKS_MAX):
        location = find(client, path)
        if location is None or not location.entry.is_symlink:
            return location
        target = client.presentation.link_target(location.entry)
        inside = _resolve(parent_path(path), target, client.fqrn)
        if inside is None:
            return None
        path = inside
    return None


def _resolve(directory: bytes, target: bytes, fqrn: str) -> bytes | None:
    """Return the repository path that a link leads to; ``None`` if out of it."""
    top = b"/cvmfs/" + fqrn.encode()
    absolute = target if target.startswith(b"/") else top + directory + b"/" + target
    clean = os.path.normpath(absolute)
    if clean != top and not clean.startswith(top + b"/"):
        return None
    return normalize_path(clean[len(top) :])


def _copy(client: Client, file: Location) -> None:
    requests = client.lookup.content_requests(file)
    entry = file.entry
    with progress_bar(entry.size, "bytes", entry.name, beside_output=True) as progress:
        for request in requests:
            descriptor = client.fetcher.open(request)
            os.lseek(descriptor, 0, os.SEEK_SET)
            with open(descriptor, "rb", buffering=0) as source:
                while block := source.read(_COPY_BYTES):
                    sys.stdout.buffer.write(block)
                    progress(len(block))
