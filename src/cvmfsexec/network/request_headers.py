"""What requests tell servers and proxies about who asks, where a site wants that.

==========================  ==========================================================
``CVMFS_SEND_INFO_HEADER``  ``cvmfs-info``: path of the file, or what else is fetched
``CVMFS_HTTP_TRACING``      ``X-CVMFS-PID``, ``-GID``, ``-UID``: of the process that
                            waits; none if nobody does
``…_TRACING_HEADERS``       with that, ``X-CVMFS-NAME: VALUE`` for each ``NAME:VALUE``
==========================  ==========================================================

They are for the logs of a site, and nothing is decided by them. Where no parameter asks
for them, this module is not imported.

Paths come from repositories, so they are escaped as in URLs, and cut: servers refuse
requests with lines that are too long. What a path is, is asked for when the request is
made, in the thread that makes it.

Threads: any.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import callers
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.url_path import escape_path

if TYPE_CHECKING:
    from cvmfsexec.format.parameters import Parameters

INFO_CHARACTERS_MAX = 2_000
"""nginx takes 8 KiB for a line, many others 4; a path can have 4,096 bytes, and three
characters for each."""

TEXT_CHARACTERS_MAX = 1_000  # the original's number

_CUSTOM = "CVMFS_HTTP_TRACING_HEADERS"
_PAIR = re.compile(r" *([A-Za-z0-9]+) *: *([!-9;-~](?:[ -9;-~]*[!-9;-~])?) *")
_OURS = frozenset({"PID", "GID", "UID"})
_BROKEN_ESCAPE = re.compile("%.?$")


class Disclosure(NamedTuple):
    """What is to be told.

    Attributes:
        tells_path: For which file it is.
        tells_asker: For which process and user it is.
        custom: Lines that are the same for all requests.
    """

    tells_path: bool
    tells_asker: bool
    custom: tuple[str, ...] = ()


def disclosure(parameters: "Parameters") -> Disclosure:
    """Read what is to be told.

    Raises:
        ConfigurationError: The headers of the site are malformed.
    """
    tells_path = parameters.boolean("CVMFS_SEND_INFO_HEADER", default=False)
    if not parameters.boolean("CVMFS_HTTP_TRACING", default=False):
        return Disclosure(tells_path, tells_asker=False)
    return Disclosure(tells_path, tells_asker=True, custom=_custom_headers(parameters))


def _custom_headers(parameters: "Parameters") -> tuple[str, ...]:
    text = parameters.get(_CUSTOM)
    if len(text) > TEXT_CHARACTERS_MAX:
        complaint = f"has more than {TEXT_CHARACTERS_MAX} characters"
        raise parameters.error(_CUSTOM, complaint)
    lines = []
    for pair in text.split("|") if text else ():
        match = _PAIR.fullmatch(pair)
        if match is None:
            raise parameters.error(
                _CUSTOM,
                "is not a list of name:value, separated by |",
                hint="names have letters and digits, values no ':' and plain "
                "characters; for instance site:CERN|cluster:batch 7",
            )
        name, value = match.groups()
        if name.upper() in _OURS:
            raise parameters.error(_CUSTOM, f"names {name}, which is told anyway")
        lines.append(f"X-CVMFS-{name}: {value}")
    return tuple(lines)


class RequestHeaders:
    """Makes the lines of a request.

    Attributes:
        path_of: Returns where an inode is in the repository.
        number_outside: Returns for the numbers of a user and a group in a mount those
            that they have outside of our namespaces.
    """

    def __init__(self, told: Disclosure) -> None:
        """Tell nothing of inodes until ``path_of`` is known."""
        self._told = told
        self.path_of: Callable[[int], bytes] | None = None
        self.number_outside: Callable[[int, int], tuple[int, int]] = lambda u, g: (u, g)

    def lines(self, label: Callable[[], str] | None = None) -> tuple[str, ...]:
        """Return the headers of a request that the calling thread makes.

        Args:
            label: Returns what is asked for; an empty text if that is the content of
                the file that a kernel reads. ``None`` for what has no name.
        """
        caller = callers.current()
        asker = None if caller is None else caller.asker()
        lines = self._told.custom
        if self._told.tells_asker and asker is not None:
            uid, gid = self.number_outside(asker.uid, asker.gid)
            pid = (f"X-CVMFS-PID: {asker.pid}",) if asker.pid else ()
            lines += (*pid, f"X-CVMFS-GID: {gid}", f"X-CVMFS-UID: {uid}")
        if self._told.tells_path and label is not None:
            info = label() or self._path(asker)
            lines += (f"cvmfs-info: {_escaped(info)}",) if info else ()
        return lines

    def _path(self, asker: callers.Asker | None) -> str:
        if asker is None or self.path_of is None:
            return ""
        try:
            path = self.path_of(asker.inode)
        except CvmfsError:
            return ""
        return path.decode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    escaped = escape_path(text)
    if len(escaped) <= INFO_CHARACTERS_MAX:
        return escaped
    return _BROKEN_ESCAPE.sub("", escaped[:INFO_CHARACTERS_MAX])
