"""What proxy discovery found, remembered for other processes and for worse days.

Two things are remembered, in files that only the user can read (proxy lists may hold
passwords) and that replace one another by a rename:

* ``proxies.discovered``, in the directory of all caches: what the files of this
  network said in the last minutes. Two hundred jobs of a node, or twenty repositories
  of a session, then download and run them once; a lock lets the others wait for the
  first. That nothing was found is remembered, too, but for a shorter time.
* ``proxies.<fqrn>-<fqrn>``, in the workspace of a repository: the last complete proxy
  list, for when discovery finds nothing. The name is the original's.

Nothing here is an error: who cannot remember asks again. A file of another user, or
one that others can write, counts as none.

Source: docs/reference/client-behaviour.md, "Proxy auto-discovery".
"""

import contextlib
import fcntl
import hashlib
import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.errors import FormatError
from cvmfsexec.format.proxy_groups import (
    ProxyGroup,
    format_proxy_list,
    parse_proxy_list,
)
from cvmfsexec.network.private_files import (
    is_private,
    read_private_file,
    replace_private_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FOUND_VALID_S = 300
NOTHING_VALID_S = 60
LOCK_PATIENCE_S = 20.0
_ENTRIES_MAX = 64
_NOTE_CHARACTERS_MAX = 500
_NOTHING = "-"
_POLL_S = 0.02

_LINE = re.compile(r"([0-9a-f]{64}) ([0-9]{1,12}) ([!-~]+) ?([ -~]*)")


class Finding(NamedTuple):
    """What was found in one place at one time.

    Attributes:
        key: Stands for everything that the answer depends on.
        found_at_s: Seconds since 1970.
        groups: Proxies; none if nothing was found.
        note: Where, or why not, for people.
    """

    key: str
    found_at_s: int
    groups: tuple[ProxyGroup, ...]
    note: str

    def is_valid(self, now_s: float) -> bool:
        """Whether it is young enough to be used."""
        valid_s = FOUND_VALID_S if self.groups else NOTHING_VALID_S
        return 0 <= now_s - self.found_at_s < valid_s


def parse_findings(text: str) -> list[Finding]:
    """Read the content of ``proxies.discovered``; lines that make no sense are none."""
    found = (_parse_line(line) for line in text.split("\n")[:_ENTRIES_MAX])
    return [finding for finding in found if finding is not None]


def format_findings(findings: "Sequence[Finding]") -> str:
    """Write findings; they parse back to the same."""
    return "".join(
        f"{one.key} {one.found_at_s} {format_proxy_list(one.groups) or _NOTHING}"
        f" {_printable(one.note)}\n"
        for one in findings[:_ENTRIES_MAX]
    )


def key_of(texts: "Sequence[str]") -> str:
    """Return a key for everything that an answer depends on."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def recall(directory: str, key: str) -> Finding | None:
    """Return what was found lately, if it is still good."""
    now_s = time.time()
    for finding in parse_findings(read_private_file(_findings_path(directory)) or ""):
        if finding.key == key and finding.is_valid(now_s):
            return finding
    return None


def remember(directory: str, finding: Finding) -> None:
    """Keep a finding for others; called with the lock held."""
    now_s = time.time()
    path = _findings_path(directory)
    known = parse_findings(read_private_file(path) or "")
    kept = [one for one in known if one.key != finding.key and one.is_valid(now_s)]
    replace_private_file(path, format_findings([finding, *kept]))


@contextlib.contextmanager
def turn(directory: str) -> "Iterator[None]":
    """Wait until no other process of this user is looking for proxies.

    Goes on without the lock if there can be none, or after a while.
    """
    descriptor = _open_lock(directory)
    try:
        if descriptor is not None:
            _wait_for(descriptor)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def recall_list(path: str) -> tuple[tuple[ProxyGroup, ...], int]:
    """Return the remembered list and since when (s since 1970); no groups if none."""
    try:
        groups = parse_proxy_list((read_private_file(path) or "").strip())
        found_at_s = int(os.stat(path).st_mtime) if groups else 0
    except (FormatError, OSError) as error:
        log.debug("%s: %s", path, error)
        return (), 0
    return tuple(group for group in groups if not group.is_auto), found_at_s


def remember_list(path: str, groups: tuple[ProxyGroup, ...]) -> None:
    """Keep a complete list, if it is another one than before."""
    text = format_proxy_list(groups) + "\n"
    if read_private_file(path) != text:
        replace_private_file(path, text)


def _parse_line(line: str) -> Finding | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    try:
        groups = () if match[3] == _NOTHING else parse_proxy_list(match[3])
    except FormatError:
        return None
    if any(group.is_auto for group in groups) or (not groups and match[3] != _NOTHING):
        return None
    return Finding(match[1], int(match[2]), groups, match[4])


def _printable(note: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in note[:_NOTE_CHARACTERS_MAX])


def _findings_path(directory: str) -> str:
    return f"{directory}/proxies.discovered"


def _open_lock(directory: str) -> int | None:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        descriptor = os.open(f"{directory}/proxies.lock", flags, 0o600)
    except OSError as error:
        log.debug("no lock for discovery in %s: %s", directory, error.strerror)
        return None
    if is_private(os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)  # whoever owns it could hold it for ever
    return None


def _wait_for(descriptor: int) -> None:
    deadline_s = time.monotonic() + LOCK_PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S)
        except OSError:
            return  # a file system without locks
        else:
            return
