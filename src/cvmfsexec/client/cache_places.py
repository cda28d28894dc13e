"""Which caches there are: those that a configuration names, and those that are there.

Nothing is asked of a server: a configuration repository, if there is one, is left out.
A directory is believed to be a cache if it holds what only caches hold.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.cache.pack_writer import DIRECTORY as PACKS
from cvmfsexec.cache.ram import place_of
from cvmfsexec.configuration.cache_instances import StoreKind, StoreSettings
from cvmfsexec.configuration.evaluate import begin, complete_name
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.configuration.settings import CacheSettings, ClientSettings
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.names import check_fqrn

_BREADCRUMB = "cvmfschecksum."
_MARKS = frozenset(
    {"cvmfsexec.ledger", "cvmfsexec.claims", PACKS, ".cvmfscache", "cachedb"}
)
_OBJECTS = re.compile(r"[0-9a-f]{2}")

_NOBODY = "cache.invalid"
"""Stands for a repository of which nothing is configured."""


class CachePlace(NamedTuple):
    """One directory of objects.

    Attributes:
        directory: Where the objects are.
        workspace: Where breadcrumbs are.
        kind: How objects are kept.
        limit_bytes: As configured, the lowest of all repositories; 0 for none.
        repositories: Those known to be cached there.
    """

    directory: str
    workspace: str
    kind: StoreKind
    limit_bytes: int
    repositories: tuple[str, ...]

    @property
    def is_files(self) -> bool:
        """Whether each object is a file, not part of one."""
        return self.kind is not StoreKind.PACKED


def places_of(
    names: Iterable[str], root: ConfigurationRoot, environment: Mapping[str, str]
) -> list[CachePlace]:
    """Return the caches that are configured for repositories, each once.

    Raises:
        ConfigurationError: One of them cannot be configured.
    """
    found: dict[str, CachePlace] = {}
    for name in names:
        fqrn = complete_name(name, root, environment)
        cache = _settings(fqrn, root, environment)
        for store in _directories(cache.store):
            known = found.get(store.directory)
            others = known.repositories if known else ()
            limits = (store.limit_bytes, known.limit_bytes if known else 0)
            found[store.directory] = CachePlace(
                store.directory,
                cache.workspace,
                store.kind,
                min(filter(None, limits), default=0),
                (*others, fqrn),
            )
    return list(found.values())


def all_places(
    root: ConfigurationRoot, environment: Mapping[str, str]
) -> list[CachePlace]:
    """Return the caches that are there, where sessions of this user put them.

    Raises:
        ConfigurationError: The configuration makes no sense.
    """
    base = _settings(_NOBODY, root, environment).shared_directory
    found: dict[str, CachePlace] = {}
    for name in _names_in(base):
        place = place_at(os.path.join(base, name))
        if place is None:
            continue
        for one in _configured(place, root, environment):
            if os.path.isdir(one.directory):
                found.setdefault(one.directory, one)
    return list(found.values())


def _configured(
    place: CachePlace, root: ConfigurationRoot, environment: Mapping[str, str]
) -> list[CachePlace]:
    """Return what is configured for the repositories of a place; itself for none."""
    if not place.repositories:
        return [place]
    try:
        return places_of(place.repositories, root, environment)
    except ConfigurationError as error:
        log.warning("%s: %s", place.directory, error)
        return [place]


def place_at(directory: str, *, is_alien: bool = False) -> CachePlace | None:
    """Return the cache in a directory, if it is one."""
    names = _names_in(directory)
    repositories = tuple(
        name.removeprefix(_BREADCRUMB)
        for name in names
        if name.startswith(_BREADCRUMB) and _is_name(name.removeprefix(_BREADCRUMB))
    )
    is_cache = repositories or any(
        name in _MARKS or _OBJECTS.fullmatch(name) for name in names
    )
    if not is_cache:
        return None
    kind = StoreKind.ALIEN if is_alien else StoreKind.POSIX
    if PACKS in names:
        kind = StoreKind.PACKED
    return CachePlace(directory, directory, kind, 0, repositories)


def _settings(
    fqrn: str, root: ConfigurationRoot, environment: Mapping[str, str]
) -> CacheSettings:
    configuration = begin(fqrn, root, environment).finish(None)
    return ClientSettings.from_configuration(configuration).cache


def _directories(store: StoreSettings) -> list[StoreSettings]:
    if store.upper is not None and store.lower is not None:
        return _directories(store.upper) + _directories(store.lower)
    if store.kind is StoreKind.RAM:
        return [store._replace(directory=place_of(os.geteuid()))]
    return [store] if store.directory else []


def _names_in(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _is_name(text: str) -> bool:
    try:
        check_fqrn(text)
    except ConfigurationError:
        return False
    return True
