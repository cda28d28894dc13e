"""List the named revisions of a repository."""

import argparse
import json
import time

from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_json, add_repository


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List all tags, newest first."""
    with open_client(arguments.fqrn, arguments.dist) as client:
        tags = sorted(client.tags(), key=lambda tag: (-tag.revision, tag.name))
    if arguments.json:
        rows = [
            {**tag._asdict(), "root_catalog": str(tag.root_catalog)} for tag in tags
        ]
        print(json.dumps(rows, indent=1))
        return 0
    width = max((len(tag.name) for tag in tags), default=4)
    print(
        f"{'NAME':{width}}  REVISION  TIME                  ROOT CATALOG  DESCRIPTION"
    )
    for tag in tags:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(tag.timestamp_s))
        short = str(tag.root_catalog)[:12]
        print(
            f"{tag.name:{width}}  {tag.revision:8}  {when}  {short}  {tag.description}"
        )
    return 0
