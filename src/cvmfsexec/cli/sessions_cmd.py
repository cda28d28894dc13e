"""List the sessions of this user on this node."""

import argparse
import json

from cvmfsexec.cli.options import add_json
from cvmfsexec.cli.output import local_time
from cvmfsexec.log import harmless
from cvmfsexec.namespaces.join import KnownSession, list_sessions

_COMMAND_CHARACTERS_MAX = 60


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List all, oldest first."""
    sessions = list_sessions()
    if arguments.json:
        print(json.dumps([_as_json(session) for session in sessions], indent=1))
        return 0
    width = max((len(session.name) for session in sessions), default=4)
    print(f"{'NAME':{width}}  PID      SINCE             REPOSITORIES  COMMAND")
    for session in sessions:
        pid = session.pid or "?"
        card = session.card
        if card is None:
            print(f"{session.name:{width}}  {pid:<7}  is starting")
            continue
        command = harmless(card.command[:_COMMAND_CHARACTERS_MAX])
        repositories = harmless(",".join(card.repositories.split())) or "-"
        since = local_time(card.since_s)
        print(f"{session.name:{width}}  {pid:<7}  {since}  {repositories}  {command}")
    return 0


def _as_json(session: KnownSession) -> dict[str, object]:
    card = session.card
    return {
        "name": session.name,
        "pid": session.pid or None,
        "is_ready": card is not None,
        "since": card.since_s if card else None,
        "repositories": card.repositories.split() if card else [],
        "command": card.command if card else None,
    }
