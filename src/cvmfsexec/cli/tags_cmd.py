"""List the named revisions of a repository."""

import argparse
import json

from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_json, add_repository
from cvmfsexec.cli.output import utc_time
from cvmfsexec.cli.progress import waiting
from cvmfsexec.log import harmless


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List all tags, newest first."""
    with (
        open_client(arguments.fqrn, arguments.dist) as client,
        waiting("reading the tags"),
    ):
        tags = sorted(client.tags(), key=lambda tag: (-tag.revision, tag.name))
    if arguments.json:
        rows = [
            {**tag._asdict(), "root_catalog": str(tag.root_catalog)} for tag in tags
        ]
        print(json.dumps(rows, indent=1))
        return 0
    width = max((len(harmless(tag.name)) for tag in tags), default=4)
    print(
        f"{'NAME':{width}}  REVISION  TIME                  ROOT CATALOG  DESCRIPTION"
    )
    for tag in tags:
        name, description = harmless(tag.name), harmless(tag.description)
        short = str(tag.root_catalog)[:12]
        print(
            f"{name:{width}}  {tag.revision:8}  {utc_time(tag.timestamp_s)}  "
            f"{short}  {description}"
        )
    return 0
