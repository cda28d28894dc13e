"""Clients for commands that read repositories without mounting them."""

import os

from cvmfsexec import log
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.progress import waiting
from cvmfsexec.client.assembly import Client, User
from cvmfsexec.client.configuration_repository import extract_configuration
from cvmfsexec.configuration.evaluate import Configuration, begin, complete_name
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.pinned_name import parse_pinned_name
from cvmfsexec.repository.lookup import Location


def load_parameters(fqrn: str, dist: str | None) -> Configuration:
    """Return the effective parameters of a repository.

    If there is a configuration repository, it is opened and verified, and its files
    are read from a copy in the cache. If it cannot be had, that is a warning, unless
    it is required.

    Args:
        fqrn: Its name, complete or short, with ``@REVISION`` if it is not the newest.
        dist: What ``--dist`` said, if it was given.

    Raises:
        CvmfsError: It cannot be configured.
    """
    root = configuration_root(dist)
    name, pin = parse_pinned_name(fqrn)
    evaluation = begin(complete_name(name, root, os.environ), root, os.environ)
    first = evaluation.config_repository
    if first is None:
        return evaluation.finish(None, pin)
    try:
        directory = _extracted(begin(first, root, os.environ).finish(None))
    except CvmfsError as error:
        log.warning("%s: %s", first, error)
        directory = None
    return evaluation.finish(directory, pin)


def open_client(
    fqrn: str, dist: str | None, store: ObjectStore | None = None
) -> Client:
    """Return a client of a repository, which gives up in time; the caller closes it.

    Args:
        fqrn: Its name, complete or short, with ``@REVISION`` if it is not the newest.
        dist: What ``--dist`` said, if it was given.
        store: Where objects are kept; the configured cache if ``None``.

    Raises:
        CvmfsError: It cannot be configured, reached, or believed.
    """
    configuration = load_parameters(fqrn, dist)
    with waiting(f"opening {configuration.fqrn}"):
        return Client(configuration, _user(), store, is_endless=False)


def find(client: Client, path: bytes) -> Location | None:
    """Return the entry at a normalized path, which may take a catalog or two."""
    with waiting("looking it up"):
        return client.lookup.find(path)


def _extracted(configuration: Configuration) -> str:
    with (
        waiting(f"reading {configuration.fqrn}"),
        Client(configuration, _user()) as client,
    ):
        return extract_configuration(client)


def _user() -> User:
    return User.of_this_process(os.environ)
