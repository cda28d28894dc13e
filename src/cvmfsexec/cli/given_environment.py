"""The environment as the user gave it, whatever stood between the user and us.

What stands between leaves traces:

* A shell hands on only what can be variables of its own. ``dash`` so loses functions
  that ``bash`` has exported (``BASH_FUNC_module%%``), and each shell sets variables
  that were not there (``PWD``, ``SHLVL``, ``_``). The launcher is a shell script, so it
  passes on what the kernel remembers of its start (``scripts/launch``).
* In the C locale, Python sets ``LC_CTYPE`` for itself (PEP 538). The kernel remembers
  how that was, too. A console script of the wheel has only this between.
"""

import os
from contextlib import suppress

END_OF_LISTING = "--"
"""Follows the launcher's listing, before the words of the user."""


def split_listing(words: list[str]) -> tuple[bytes, list[str]]:
    """Return the launcher's listing of the environment, and the user's words.

    Args:
        words: Base64 of the listing in pieces, as no single argument may be long;
            ``--``; and the words. Without any piece, the listing is empty.
    """
    from binascii import a2b_base64

    border = words.index(END_OF_LISTING)
    return a2b_base64("".join(words[:border])), words[border + 1 :]


def given_environment(listing: bytes = b"") -> dict[str, str]:
    """Return the environment of the user.

    Args:
        listing: What the launcher found; empty if it could not tell, or if there
            was none.
    """
    if not listing:
        with suppress(OSError), open("/proc/self/environ", "rb") as own:
            listing = own.read()
    if not listing:
        return dict(os.environ)
    environment: dict[str, str] = {}
    for entry in listing.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals:
            environment.setdefault(os.fsdecode(name), os.fsdecode(value))
    return environment
