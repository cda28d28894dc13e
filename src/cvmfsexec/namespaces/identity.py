"""Who a process is, seen from inside a user namespace.

Facts about user namespaces, as far as they matter here:

* Whoever creates one has every capability in it, but only over what belongs to it:
  its mount and pid namespaces, and inodes of the ids that are mapped into it.
* Without privilege outside, exactly one uid and one gid can be mapped: one's own. For
  the gid the kernel first wants ``setgroups`` to be given up, because dropping a group
  could *open* a file that denies access to that group. So supplementary groups stay
  in force, and are shown as 65534 (nogroup).
* The ids inside are free. The session is built as uid 0, since programs like to see
  root where there are capabilities. The payload gets a second namespace inside the
  first, where the same id has its true number again.
* ``exec`` by a uid other than 0 drops all capabilities. So the payload has none, not
  even in its own namespace, and cannot touch the mounts of the first in any case: to
  change a mount namespace takes CAP_SYS_ADMIN in the user namespace that owns it.
"""

import os
from typing import NamedTuple

from cvmfsexec.namespaces.syscalls import refusal


class Identity(NamedTuple):
    """A uid and a gid that belong together."""

    uid: int
    gid: int


ROOT = Identity(0, 0)


def current_identity() -> Identity:
    """Return the effective ids: those that the kernel lets a process map."""
    return Identity(os.geteuid(), os.getegid())


def map_identity(*, inside: Identity, outside: Identity) -> None:
    """Say who this process is in the user namespace that it has just created.

    Args:
        inside: Ids in the new namespace.
        outside: The same ids in the namespace that it was created from.

    Raises:
        NamespaceError: A map was refused.
    """
    try:
        _write("setgroups", "deny")
    except FileNotFoundError:
        pass  # Linux before 3.19 had neither the file nor the need for it
    except OSError as error:
        raise _refused("setgroups", error) from error
    for name, inner, outer in (
        ("uid_map", inside.uid, outside.uid),
        ("gid_map", inside.gid, outside.gid),
    ):
        try:
            _write(name, f"{inner} {outer} 1")
        except OSError as error:
            raise _refused(name, error) from error


def _write(name: str, text: str) -> None:
    # One write: the kernel takes a map whole and only once.
    descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _refused(name: str, error: OSError) -> Exception:
    return refusal(name, error.errno or 0, f"write /proc/self/{name}")
