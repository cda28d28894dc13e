"""Where the configuration lies: a directory, the *dist*, that holds ``etc/cvmfs``.

The dist stands for the root of a machine on which an administrator has installed
CernVM-FS, so ``DIST/etc/cvmfs`` is what ``/etc/cvmfs`` would be there, and
``DIST/var/lib/cvmfs`` is the place of the cache. ``--dist /`` therefore uses the
machine's own configuration.

Nothing here reads the environment: what matters of it is given.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DIST_CARD = ".cvmfsexecdist"
"""What makedist notes of a dist, in its top directory."""

ORIGINAL_CLIENT = b"client: original"
_CARD_BYTES_MAX = 4096

_HINT = (
    "make it with makedist, or by hand (docs/how-to/run-at-a-site.md), or name a "
    "directory that holds etc/cvmfs with --dist or $CVMFSEXEC_DIST (/ uses the "
    "configuration of this machine)"
)


class ConfigurationRoot(NamedTuple):
    """A dist, and where to write if it is read-only.

    Attributes:
        dist: Absolute path of the directory that holds ``etc/cvmfs``.
        user_directories: Absolute paths, best first, in which this user may keep a
            cache and logs when the dist cannot be written.
        scratch_cache: Where caches go unless ``default.local`` says otherwise, if a
            scratch image takes them.
        given_cache: What ``/var/lib/cvmfs`` means instead of a directory of the dist.
        given_logs: What ``/var/log/cvmfs`` means instead of a directory beside it.
        given_site_defaults: File that is read instead of ``default.local``.
        wants_debug_logs: Everything is logged, unless ``default.local`` says where.
        given_trace: File in which file servers write down what is touched, whatever
            ``CVMFS_TRACEFILE`` says; empty for none.
    """

    dist: str
    user_directories: tuple[str, ...] = ()
    scratch_cache: str = ""
    given_cache: str = ""
    given_logs: str = ""
    given_site_defaults: str = ""
    wants_debug_logs: bool = False
    given_trace: str = ""

    @property
    def etc(self) -> str:
        """The directory of the configuration files."""
        return os.path.join(self.dist, "etc/cvmfs")

    @property
    def site_defaults(self) -> str:
        """The file in which a site or user writes its settings."""
        return self.given_site_defaults or os.path.join(self.etc, "default.local")

    @property
    def wants_original_client(self) -> bool:
        """Whether the dist was made for the original client: ``makedist --client``."""
        try:
            with open(os.path.join(self.dist, DIST_CARD), "rb") as stream:
                return ORIGINAL_CLIENT in stream.read(_CARD_BYTES_MAX).splitlines()
        except OSError:
            return False

    @property
    def cache_base(self) -> str:
        """Where caches go unless configured otherwise; may be read-only."""
        return self.given_cache or os.path.join(self.dist, "var/lib/cvmfs")

    @property
    def log_directory(self) -> str:
        """Where logs go, beside the dist; may be read-only."""
        if self.given_logs:
            return self.given_logs
        if self.dist == "/":
            return "/var/log/cvmfs"
        return os.path.join(os.path.dirname(self.dist), "log")


def locate(
    *,
    dist_option: str | None = None,
    dist_variable: str | None = None,
    command_directory: str,
    user_directories: tuple[str, ...] = (),
) -> ConfigurationRoot:
    """Decide which dist is used: the option's, the variable's, the command's.

    Args:
        dist_option: Argument of ``--dist``, if given.
        dist_variable: Value of ``$CVMFSEXEC_DIST``, if set.
        command_directory: Where the command lies, links resolved; its ``dist`` is
            the default.
        user_directories: See ``ConfigurationRoot``.

    Raises:
        ConfigurationError: The directory has no ``etc/cvmfs``. What was asked for and
            is not there is an error, never replaced by the next choice.
    """
    if dist_option is not None:
        dist, said_by = dist_option, "--dist"
    elif dist_variable:
        dist, said_by = dist_variable, "$CVMFSEXEC_DIST"
    else:
        dist, said_by = os.path.join(command_directory, "dist"), ""
    if not dist:
        raise ConfigurationError(f"{said_by} names no directory", hint=_HINT)
    dist = os.path.abspath(dist)
    etc = os.path.join(dist, "etc/cvmfs")
    if not os.path.isdir(etc):
        reason = f", as {said_by} says" if said_by else ""
        raise ConfigurationError(
            f"no configuration: there is no directory {etc}{reason}",
            hint=_HINT,
        )
    return ConfigurationRoot(dist, user_directories)


def user_directories(environment: "Mapping[str, str]", uid: int) -> tuple[str, ...]:
    """Return where a user may keep things when the install directory is read-only.

    ``$XDG_CACHE_HOME/cvmfsexec``, ``~/.cache/cvmfsexec``, ``$TMPDIR/cvmfsexec-UID``,
    in this order. Relative values are ignored, as the XDG specification asks.
    """
    home = environment.get("HOME", "")
    candidates = (
        _below(environment.get("XDG_CACHE_HOME", ""), "cvmfsexec"),
        _below(home, ".cache/cvmfsexec"),
        _below(environment.get("TMPDIR") or "/tmp", f"cvmfsexec-{uid}"),  # noqa: S108
    )
    return tuple(dict.fromkeys(path for path in candidates if path))


def _below(directory: str, name: str) -> str:
    return os.path.join(directory, name) if directory.startswith("/") else ""
