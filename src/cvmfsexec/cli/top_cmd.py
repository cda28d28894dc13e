"""See live what the file servers of this user do, on this node."""

import argparse
import os
import signal
import sys
import time

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.mounts import sockets_of_repository
from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.client.talk_socket import talk
from cvmfsexec.configuration.evaluate import complete_name, site_repositories
from cvmfsexec.errors import ConfigurationError, CvmfsError
from cvmfsexec.format.gauges import parse_gauges
from cvmfsexec.namespaces.join import list_sessions
from cvmfsexec.reporting.screen import Watched, screen_of

INTERVAL_DEFAULT_S = 2.0
_INTERVAL_MIN_S = 0.1
_INTERVAL_MAX_S = 3600.0
_PATIENCE_S = 2.0

# What terminals have understood for forty years: another screen, home, clear.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "repositories",
        metavar="FQRN",
        nargs="*",
        help="watch these (default: all that sessions of this user have mounted)",
    )
    parser.add_argument(
        "-d",
        "--delay",
        metavar="SECONDS",
        type=_interval,
        default=INTERVAL_DEFAULT_S,
        help="time between two looks (default: %(default)s)",
    )
    parser.add_argument(
        "-n",
        "--count",
        metavar="N",
        type=_looks,
        default=0,
        help="end after so many looks (default: with Ctrl-C; 1 if not on a terminal)",
    )
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show what happens until interrupted."""
    is_screen = sys.stdout.isatty() and not arguments.json
    looks = arguments.count or (0 if is_screen else 1)
    if not is_screen:
        _show_lines(arguments, looks)
        return exit_codes.OK
    # The screen has to be given back before the process ends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.stdout.write(_ENTER)
    try:
        _show_screens(arguments, looks)
    except KeyboardInterrupt:
        pass  # that is how one leaves
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
    return exit_codes.OK


def _show_screens(arguments: argparse.Namespace, looks: int) -> None:
    before: Watched = {}
    while True:
        now = _look(arguments)
        width, height = os.get_terminal_size(sys.stdout.fileno())
        lines = [line[: width - 1] for line in screen_of(before, now)[: height - 1]]
        text = "".join(f"{line}{_END_OF_LINE}\n" for line in lines)
        sys.stdout.write(f"{_HOME}{text}{_END_OF_SCREEN}")
        sys.stdout.flush()
        before, looks = now, looks - 1
        if looks == 0:
            return
        time.sleep(arguments.delay)


def _show_lines(arguments: argparse.Namespace, looks: int) -> None:
    before: Watched = {}
    for number in range(looks):
        if number:
            time.sleep(arguments.delay)
        now = _look(arguments)
        if arguments.json:
            for gauges in now.values():
                print(gauges.serialize().decode(), flush=True)
        else:
            print("\n".join(screen_of(before, now)), flush=True)
        before = now


def _look(arguments: argparse.Namespace) -> Watched:
    """Ask each file server what it has counted; one that does not answer is left out.

    Raises:
        CvmfsError: A repository that was named is not configured.
    """
    watched: Watched = {}
    for fqrn in _wanted(arguments):
        for path in sockets_of_repository(fqrn, arguments.dist).alive:
            try:
                answer, pid = talk(path, b"gauges", _PATIENCE_S)
                # What it calls itself is its number in the session's namespace.
                watched[path, pid] = parse_gauges(answer)._replace(pid=pid)
            except CvmfsError:
                continue  # it has ended meanwhile, or is stopped
    return watched


def _wanted(arguments: argparse.Namespace) -> list[str]:
    try:
        root = configuration_root(arguments.dist)
    except ConfigurationError:
        if arguments.repositories or arguments.dist is not None:
            raise
        return []
    if arguments.repositories:
        named = (complete_name(one, root, os.environ) for one in arguments.repositories)
        return list(dict.fromkeys(named))
    cards = (session.card for session in list_sessions())
    names = {name for card in cards if card for name in card.repositories.split()}
    return sorted(names.union(site_repositories(root, os.environ)))


def _interval(text: str) -> float:
    seconds = float(text)  # argparse tells of a ValueError
    if not _INTERVAL_MIN_S <= seconds <= _INTERVAL_MAX_S:
        raise argparse.ArgumentTypeError("not between 0.1 and 3600 seconds")
    return seconds


def _looks(text: str) -> int:
    looks = int(text)
    if looks < 1:
        raise argparse.ArgumentTypeError("not a number of looks")
    return looks


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
