"""The environment as the user gave it, whatever stood between the user and us.

What stands between leaves traces:

* A shell hands on only what can be variables of its own. ``dash`` so loses functions
  that ``bash`` has exported (``BASH_FUNC_module%%``), and each shell sets variables
  that were not there (``PWD``, ``SHLVL``, ``_``). The launcher is a shell script, so it
  passes on what the kernel remembers of its start (``scripts/launch``), unless that is
  too much for one string (about 95 KB).
* In the C locale, Python sets ``LC_CTYPE`` for itself (PEP 538). The kernel remembers
  how that was, too. A console script of the wheel has only this between.
"""

import os
from contextlib import suppress

LISTING = "_CVMFSEXEC_GIVEN"
"""Variable in which the launcher passes its own ``/proc/self/environ``, in base64."""


def given_environment() -> dict[str, str]:
    """Return the environment of the user."""
    environment: dict[str, str] = {}
    for entry in _listing().split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals:
            environment.setdefault(os.fsdecode(name), os.fsdecode(value))
    return environment or dict(os.environ)


def _listing() -> bytes:
    encoded = os.environ.pop(LISTING, "")
    if encoded:
        from binascii import a2b_base64

        return a2b_base64(encoded)
    with suppress(OSError), open("/proc/self/environ", "rb") as own:
        return own.read()
    return b""
