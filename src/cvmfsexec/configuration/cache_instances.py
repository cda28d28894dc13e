"""Which store keeps the objects: the cache instances of a configuration.

``CVMFS_CACHE_PRIMARY`` names the instance that is used. The one called ``default`` is
described by parameters without an instance in their name (``CVMFS_CACHE_BASE``,
``CVMFS_QUOTA_LIMIT``, ``CVMFS_ALIEN_CACHE``), any other by ``CVMFS_CACHE_<name>_…``.
A tiered instance refers to two others.

Source: docs/reference/parameters.md, "Cache instances"; docs/reference/
client-behaviour.md, "Cache directory" and "Quota".
"""

import os
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.configuration import storage
from cvmfsexec.errors import CacheSettingError

if TYPE_CHECKING:
    from cvmfsexec.configuration.evaluate import Configuration

DEFAULT = "default"
QUOTA_LIMIT_MB = 4000  # what the official configuration says
RAM_FRACTION = 32
"""Without a size, a RAM cache may take this part of the memory, as the original's."""

_MB_MAX = 1 << 40  # an exbibyte; sizes in bytes fit in 64 bits
_DEPTH_MAX = 4  # of tiers in tiers
_OF_DEFAULT = {
    "ALIEN": "CVMFS_ALIEN_CACHE",
    "ALIEN_LIMIT": "CVMFS_ALIEN_CACHE_LIMIT",
    "BASE": "CVMFS_CACHE_BASE",
    "DIR": "CVMFS_CACHE_DIR",
    "LOWER": "CVMFS_CACHE_LOWER",
    "LOWER_READONLY": "CVMFS_CACHE_LOWER_READONLY",
    "QUOTA_LIMIT": "CVMFS_QUOTA_LIMIT",
    "SHARED": "CVMFS_SHARED_CACHE",
    "SIZE": "CVMFS_CACHE_SIZE",
    "TYPE": "CVMFS_CACHE_TYPE",
    "UPPER": "CVMFS_CACHE_UPPER",
}


class StoreKind(Enum):
    """How objects are kept."""

    POSIX = "posix"
    """One file for each, in a directory of this user."""

    ALIEN = "alien"
    """The same, in a directory of several users and clients."""

    RAM = "ram"
    """In memory, as long as a session of the user runs."""

    PACKED = "packed"
    """Many in one file, for shared file systems."""

    TIERED = "tiered"
    """In an upper store; what that lacks is looked for in a lower one."""


class StoreSettings(NamedTuple):
    """One cache instance.

    Attributes:
        kind: How it keeps objects.
        directory: Where, except in memory and for tiers.
        limit_bytes: How much; 0 for no limit.
        upper: Of a tiered one, what is asked first, and written.
        lower: Of a tiered one, what is asked then.
        is_lower_written: Whether what is fetched is kept in the lower one, too.
    """

    kind: StoreKind
    directory: str = ""
    limit_bytes: int = 0
    upper: "StoreSettings | None" = None
    lower: "StoreSettings | None" = None
    is_lower_written: bool = False

    @property
    def managed_limit_bytes(self) -> int:
        """The limit that matters for what this client stores."""
        return self.upper.managed_limit_bytes if self.upper else self.limit_bytes


class CacheInstance:
    """One instance's parameters."""

    def __init__(self, configuration: "Configuration", name: str) -> None:
        self._configuration = configuration
        self._name = name

    @classmethod
    def primary(cls, configuration: "Configuration") -> "CacheInstance":
        """Return the instance that is used.

        Raises:
            CacheSettingError: Its name is none.
        """
        return cls.named(configuration, "CVMFS_CACHE_PRIMARY", DEFAULT)

    @classmethod
    def named(
        cls, configuration: "Configuration", parameter: str, default: str = ""
    ) -> "CacheInstance":
        """Return the instance that a parameter names.

        Raises:
            CacheSettingError: The parameter is not set, or is no name.
        """
        name = configuration.get(parameter, default)
        if not (name.isascii() and name.isalnum()):
            raise _error(configuration, parameter, "names no cache instance")
        return cls(configuration, name)

    def parameter(self, name: str) -> str:
        """Return what a parameter of the instance is called."""
        if self._name == DEFAULT:
            return _OF_DEFAULT[name]
        return f"CVMFS_CACHE_{self._name}_{name}"

    def is_shared(self) -> bool:
        """Whether all repositories share its directory."""
        return self._configuration.boolean(self.parameter("SHARED"), default=False)

    def directory(self) -> str:
        """Return the directory of a ``posix`` or ``packed`` instance.

        ``CVMFS_CACHE_DIR`` and ``CVMFS_CACHE_BASE`` exclude each other, except that a
        package's default of the latter does not keep a site from setting the former.

        Raises:
            CacheSettingError: Both are set in one file, or one is relative.
        """
        configuration = self._configuration
        exact, base = self.parameter("DIR"), self.parameter("BASE")
        if configuration.get(exact):
            if configuration.source(exact) == configuration.source(base):
                raise _error(configuration, exact, f"and {base} are mutually exclusive")
            return configuration.path(exact)
        default = configuration.path("CVMFS_CACHE_BASE", "/var/lib/cvmfs")
        directory = configuration.path(base) or default
        storage.prepare_stand_in(configuration.root, directory)
        name = "shared" if self.is_shared() else configuration.fqrn
        return f"{directory.rstrip('/')}/{name}"

    def settings(self, depth: int = 0) -> StoreSettings:
        """Return how the instance keeps objects.

        Raises:
            CacheSettingError: Its parameters make no sense together.
            ConfigurationError: One of them makes no sense.
        """
        parameter = self.parameter("TYPE")
        text = self._configuration.get(parameter)
        if not text and self._name != DEFAULT:
            raise _error(
                self._configuration,
                parameter,
                "is not set",
                hint="it is posix, ram, packed, or tiered",
            )
        if (text or "posix") == "posix":
            return self._posix()
        if text == "ram":
            return StoreSettings(StoreKind.RAM, limit_bytes=self._size_bytes())
        if text == "packed":
            return StoreSettings(
                StoreKind.PACKED, self.directory(), self._limit_bytes("QUOTA_LIMIT")
            )
        if text == "tiered" and depth < _DEPTH_MAX:
            return self._tiered(depth)
        raise self._unknown_kind(parameter, text)

    def _unknown_kind(self, parameter: str, text: str) -> CacheSettingError:
        if text == "external":
            complaint = "asks for a cache plug-in, and this client runs none"
        elif text == "tiered":
            complaint = "is tiered more often than makes sense"
        else:
            complaint = "is none of posix, ram, packed, tiered"
        return _error(
            self._configuration,
            parameter,
            complaint,
            hint="docs/how-to/choose-a-cache.md tells which one is for what",
        )

    def _posix(self) -> StoreSettings:
        alien = self._configuration.path(self.parameter("ALIEN"))
        limit_bytes = self._limit_bytes("QUOTA_LIMIT")
        if not alien:
            return StoreSettings(StoreKind.POSIX, self.directory(), limit_bytes)
        kept = StoreSettings(
            StoreKind.ALIEN, alien, self._limit_bytes("ALIEN_LIMIT", 0)
        )
        if os.path.isdir(alien) and not os.access(alien, os.W_OK):
            own = StoreSettings(StoreKind.POSIX, self.directory(), limit_bytes)
            return StoreSettings(StoreKind.TIERED, upper=own, lower=kept)
        self._check_alien(limit_bytes)
        return kept

    def _check_alien(self, limit_bytes: int) -> None:
        name = self.parameter("ALIEN")
        if self.is_shared():
            raise _error(
                self._configuration,
                name,
                "cannot go with a shared cache",
                hint=f"set {self.parameter('SHARED')}=no",
            )
        if limit_bytes:
            raise _error(
                self._configuration,
                name,
                "cannot go with a quota: quota management and alien cache are "
                "mutually exclusive",
                hint=f"set {self.parameter('QUOTA_LIMIT')}=-1; "
                f"{self.parameter('ALIEN_LIMIT')} limits an alien cache",
            )

    def _tiered(self, depth: int) -> StoreSettings:
        configuration = self._configuration
        tiers = [
            CacheInstance.named(configuration, self.parameter(name)).settings(depth + 1)
            for name in ("UPPER", "LOWER")
        ]
        upper, lower = tiers
        if upper.directory and upper.directory == lower.directory:
            raise _error(
                configuration,
                self.parameter("LOWER"),
                f"keeps its objects where the upper one does, in {lower.directory}",
            )
        is_read_only = configuration.boolean(
            self.parameter("LOWER_READONLY"), default=False
        )
        return StoreSettings(
            StoreKind.TIERED,
            upper=upper,
            lower=lower,
            is_lower_written=not is_read_only,
        )

    def _limit_bytes(self, name: str, default_mb: int = QUOTA_LIMIT_MB) -> int:
        parameter = self.parameter(name)
        limit_mb = self._configuration.integer(parameter, default_mb, maximum=_MB_MAX)
        return max(limit_mb, 0) << 20

    def _size_bytes(self) -> int:
        parameter = self.parameter("SIZE")
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        number, percent, rest = self._configuration.get(parameter).partition("%")
        if percent and number.isascii() and number.isdigit() and not rest:
            if int(number[:4]) not in range(1, 101):
                raise self._configuration.error(parameter, "is not 1% to 100%")
            return memory_bytes * int(number) // 100
        size_mb = self._configuration.integer(parameter, 0, minimum=0, maximum=_MB_MAX)
        return size_mb << 20 or memory_bytes // RAM_FRACTION


def _error(
    configuration: "Configuration", name: str, complaint: str, *, hint: str = ""
) -> CacheSettingError:
    error = configuration.error(name, complaint, hint=hint)
    return CacheSettingError(str(error), hint=error.hint)
