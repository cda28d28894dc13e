"""Which caches a command is about: by directory, by repository, or all there are."""

import argparse
import os

from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.options import add_dist
from cvmfsexec.cli.report import write_message
from cvmfsexec.client.cache_places import (
    CachePlace,
    all_places,
    place_at,
    places_of,
)
from cvmfsexec.configuration.evaluate import complete_name
from cvmfsexec.errors import CacheError
from cvmfsexec.format.names import check_fqrn


def add_cache_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose caches."""
    parser.add_argument(
        "--dir",
        action="append",
        default=[],
        metavar="DIR",
        help="the cache in this directory; may be given several times",
    )
    parser.add_argument(
        "--repository",
        action="append",
        default=[],
        metavar="FQRN",
        help="the cache of this repository; may be given several times",
    )
    add_dist(parser)


def chosen_places(
    arguments: argparse.Namespace, *, is_alien: bool = False
) -> list[CachePlace]:
    """Return the caches that the arguments choose; all if they choose none.

    Args:
        arguments: With ``dir``, ``repository`` and ``dist``.
        is_alien: Whether directories that are named hold alien caches.

    Raises:
        CacheError: A directory is not there, or is no cache.
        ConfigurationError: There is no configuration, or it makes no sense.
    """
    places = [_named(directory, is_alien=is_alien) for directory in arguments.dir]
    if arguments.repository or not places:
        root = configuration_root(arguments.dist)
        if arguments.repository:
            places += places_of(arguments.repository, root, os.environ)
        else:
            places = all_places(root, os.environ)
    by_directory = {os.path.realpath(one.directory): one for one in places}
    return [one for one in by_directory.values() if os.path.isdir(one.directory)]


def tell_that_nothing_is_cached(arguments: argparse.Namespace) -> None:
    """Say that there is no cache of those that were chosen; that is no error."""
    of_whom = f" of {', '.join(arguments.repository)}" if arguments.repository else ""
    write_message("cvmfs", f"nothing{of_whom} is cached yet")


def complete(arguments: argparse.Namespace, name: str) -> str:
    """Return the complete name of a repository; as it is where caches are named.

    Raises:
        ConfigurationError: It is none, or there is no configuration.
    """
    if arguments.dir:
        return check_fqrn(name)
    return complete_name(name, configuration_root(arguments.dist), os.environ)


def _named(directory: str, *, is_alien: bool) -> CachePlace:
    path = os.path.abspath(directory)
    if not os.path.isdir(path):
        raise CacheError(f"{directory} is not a directory")
    try:
        os.scandir(path).close()
    except OSError as error:
        raise CacheError(f"cannot look into {directory}: {error.strerror}") from error
    place = place_at(path, is_alien=is_alien)
    if place is None:
        raise CacheError(
            f"{directory} is not a cache",
            hint="name the directory that holds the directories 00 to ff",
        )
    return place
