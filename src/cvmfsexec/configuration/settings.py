"""Typed settings of one repository's client, read off its parameters.

Defaults are those that the original has built in; packages bring a ``default.conf``
that says more. Two are that file's: ownership is claimed and permissions are checked,
since a mount without root cannot show other owners (docs/adr/0003). What the network
needs is read by ``cvmfsexec.network`` itself.

Source: docs/reference/client-behaviour.md, "Parameters".
"""

import os
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.configuration.blacklists import blacklist_paths
from cvmfsexec.configuration.cache_instances import (
    DEFAULT,
    CacheInstance,
    StoreKind,
    StoreSettings,
)
from cvmfsexec.configuration.id_map import IdMap
from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.log import LogPlaces

if TYPE_CHECKING:
    from cvmfsexec.configuration.evaluate import Configuration


_GID_DIGITS_MAX = 10  # 32 bits


class MagicXattrVisibility(Enum):
    """Where magic attributes are listed; reading one by name works everywhere."""

    ALWAYS = "always"
    ROOT_ONLY = "rootonly"
    NEVER = "never"


class CacheSettings(NamedTuple):
    """Where and how much to cache.

    Attributes:
        directory: Local directory of this repository's cache.
        is_shared: Whether other repositories use the same directory.
        store: How objects are kept, in that directory or elsewhere.
        workspace: Directory for what is not an object: breadcrumbs, locks.
        quota_limit_mb: Limit for what this client stores, in MiB; 0 for none.
        shared_directory: Directory for what concerns all repositories of the user.
    """

    directory: str
    is_shared: bool
    store: StoreSettings
    workspace: str
    quota_limit_mb: int
    shared_directory: str


class ViewSettings(NamedTuple):
    """How entries look.

    Attributes:
        claim_ownership: Everything belongs to the user of the client.
        check_permissions: The kernel checks modes.
        world_readable: Files and directories are readable by all.
        uid_map, gid_map: How owners are mapped, unless ownership is claimed.
        magic_xattrs: Where magic attributes are listed.
        protected_xattrs: Full names of magic attributes that not everybody may read.
        privileged_gids: The groups that may, besides root's.
        kernel_timeout_s: How long a kernel may keep names of a changing repository.
    """

    claim_ownership: bool
    check_permissions: bool
    world_readable: bool
    uid_map: IdMap | None
    gid_map: IdMap | None
    magic_xattrs: MagicXattrVisibility
    kernel_timeout_s: int
    protected_xattrs: tuple[str, ...] = ()
    privileged_gids: tuple[int, ...] = ()


class RevisionSettings(NamedTuple):
    """Which revision is shown. The first of the three pins that is set counts.

    Attributes:
        root_hash: Root catalog that is to be used, without any manifest.
        tag: Name of a tag; empty for none.
        date_s: The newest revision not younger than this time; ``None`` for any.
        auto_update: Follow new revisions while mounted; never when pinned.
        max_ttl_s: Look for a new revision at least this often; ``None``: as the
            repository says.
        alt_root_path: Fetch root catalog and certificate by their alternative paths.
    """

    root_hash: ContentHash | None
    tag: str
    date_s: int | None
    auto_update: bool
    max_ttl_s: int | None
    alt_root_path: bool

    @property
    def is_pinned(self) -> bool:
        """Whether one revision was chosen for good."""
        return self.root_hash is not None or bool(self.tag) or self.date_s is not None


class ClientSettings(NamedTuple):
    """All that the client of one repository needs, apart from the network and keys.

    Attributes:
        blacklist_paths: Local files that may exist.
    """

    cache: CacheSettings
    view: ViewSettings
    revision: RevisionSettings
    blacklist_paths: tuple[str, ...]

    @classmethod
    def from_configuration(cls, configuration: "Configuration") -> "ClientSettings":
        """Read the settings; files of id maps are read, too.

        Nothing is created, except a user's own cache directory if it has to stand in
        for that of a read-only dist.

        Raises:
            ConfigurationError: A value is not understood; the message names it, its
                parameter and its file.
        """
        return cls(
            cache=_cache_settings(configuration),
            view=_view_settings(configuration),
            revision=_revision_settings(configuration),
            blacklist_paths=blacklist_paths(configuration),
        )


def _cache_settings(configuration: "Configuration") -> CacheSettings:
    primary = CacheInstance.primary(configuration)
    store = primary.settings()
    # What keeps its objects elsewhere has the default's directory for all the rest.
    own = CacheInstance(configuration, DEFAULT)
    if store.kind in (StoreKind.POSIX, StoreKind.PACKED):
        own = primary
    directory = own.directory()
    has_own_place = bool(configuration.get(own.parameter("DIR")))
    return CacheSettings(
        directory=directory,
        is_shared=own.is_shared() and not has_own_place,
        store=store,
        workspace=configuration.path("CVMFS_WORKSPACE") or directory,
        quota_limit_mb=store.managed_limit_bytes >> 20,
        shared_directory=directory if has_own_place else os.path.dirname(directory),
    )


def _view_settings(configuration: "Configuration") -> ViewSettings:
    return ViewSettings(
        claim_ownership=configuration.boolean("CVMFS_CLAIM_OWNERSHIP", default=True),
        check_permissions=configuration.boolean(
            "CVMFS_CHECK_PERMISSIONS", default=True
        ),
        world_readable=configuration.boolean("CVMFS_WORLD_READABLE", default=False),
        uid_map=_id_map(configuration, "CVMFS_UID_MAP"),
        gid_map=_id_map(configuration, "CVMFS_GID_MAP"),
        magic_xattrs=_magic_xattrs(configuration),
        kernel_timeout_s=max(configuration.integer("CVMFS_KCACHE_TIMEOUT", 60), 0),
        protected_xattrs=tuple(
            name if "." in name else f"user.{name}"
            for name in _words(configuration, "CVMFS_XATTR_PROTECTED_XATTRS")
        ),
        privileged_gids=_privileged_gids(configuration),
    )


def _words(configuration: "Configuration", name: str) -> list[str]:
    return configuration.get(name).replace(",", " ").split()


def _privileged_gids(configuration: "Configuration") -> tuple[int, ...]:
    name = "CVMFS_XATTR_PRIVILEGED_GIDS"
    words = _words(configuration, name)
    for word in words:
        if not (word.isascii() and word.isdecimal() and len(word) <= _GID_DIGITS_MAX):
            raise configuration.error(
                name, f"has {word[:80]!r} in it, which is no group's number"
            )
    return tuple(map(int, words))


def _id_map(configuration: "Configuration", name: str) -> IdMap | None:
    path = configuration.path(name)
    if not path:
        return None
    try:
        with open(path, encoding="ascii", errors="replace", newline="\n") as stream:
            return IdMap.parse(stream.read(), path)
    except OSError as error:
        raise configuration.error(name, f"cannot be read: {error.strerror}") from error


def _magic_xattrs(configuration: "Configuration") -> MagicXattrVisibility:
    """Decide by two parameters, of which the newer one overrides the older."""
    name = "CVMFS_MAGIC_XATTRS_VISIBILITY"
    text = configuration.get(name)
    if text:
        try:
            return MagicXattrVisibility(text.lower())
        except ValueError as error:
            raise configuration.error(
                name, "is none of always, rootonly, never"
            ) from error
    if not configuration.get("CVMFS_HIDE_MAGIC_XATTRS"):
        return MagicXattrVisibility.ROOT_ONLY
    if configuration.boolean("CVMFS_HIDE_MAGIC_XATTRS", default=False):
        return MagicXattrVisibility.NEVER
    return MagicXattrVisibility.ALWAYS


def _revision_settings(configuration: "Configuration") -> RevisionSettings:
    settings = RevisionSettings(
        root_hash=_root_hash(configuration),
        tag=configuration.get("CVMFS_REPOSITORY_TAG"),
        date_s=_date_s(configuration),
        auto_update=configuration.boolean("CVMFS_AUTO_UPDATE", default=True),
        max_ttl_s=configuration.integer("CVMFS_MAX_TTL", 0, minimum=0) * 60 or None,
        alt_root_path=configuration.boolean("CVMFS_ALT_ROOT_PATH", default=False),
    )
    return settings._replace(auto_update=False) if settings.is_pinned else settings


def _root_hash(configuration: "Configuration") -> ContentHash | None:
    name = "CVMFS_ROOT_HASH"
    text = configuration.get(name)
    if not text:
        return None
    try:
        return ContentHash.parse(text)
    except FormatError as error:
        raise configuration.error(name, "is not a content hash") from error


def _date_s(configuration: "Configuration") -> int | None:
    name = "CVMFS_REPOSITORY_DATE"
    text = configuration.get(name)
    if not text:
        return None
    from cvmfsexec.format.pinned_name import parse_date

    seconds = parse_date(text)
    if seconds is None:
        raise configuration.error(
            name, "is not a date", hint="a date looks like 2026-01-31T23:59:59Z"
        )
    return seconds


def log_places(configuration: "Configuration") -> LogPlaces:
    """Return where the messages of a file server are kept.

    Source: docs/reference/parameters.md.

    Raises:
        ConfigurationError: A value is not understood.
    """
    file = configuration.path("CVMFS_USYSLOG")
    facility = configuration.integer("CVMFS_SYSLOG_FACILITY", -1, minimum=-1, maximum=7)
    level = configuration.integer("CVMFS_SYSLOG_LEVEL", 0, minimum=0, maximum=2)
    return LogPlaces(
        label=configuration.get("CVMFS_SYSLOG_PREFIX", configuration.fqrn),
        file=file,
        debug_file=configuration.path("CVMFS_DEBUGLOG"),
        syslog_facility=None if file else _LOG_USER if facility < 0 else 16 + facility,
        syslog_priority=_SYSLOG_PRIORITIES[level],
    )


_LOG_USER = 1
_SYSLOG_PRIORITIES = ("notice", "debug", "info")
