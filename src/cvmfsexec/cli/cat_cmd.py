"""Write the content of files of a repository to stdout."""

import argparse
import os
import sys

from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_repository, repository_path
from cvmfsexec.cli.progress import progress_bar, waiting
from cvmfsexec.cli.report import write_message
from cvmfsexec.cli.stat_cmd import NOT_FOUND, no_such_entry
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.links import follow
from cvmfsexec.repository.lookup import Location

_COPY_BYTES = 1 << 20


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
            with waiting("looking it up"):
                location = follow(client, path)
            if location is None:
                status = no_such_entry(path)
            elif not location.entry.is_regular:
                kind = "a directory" if location.entry.is_directory else "no file"
                write_message("cvmfs", f"{typed}: is {kind}")
                status = NOT_FOUND
            else:
                _copy(client, location)
    return status


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
