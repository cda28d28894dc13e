"""Whose the files are: published owners, as they can be shown to this user.

An ordinary user's mount knows one user and one group only, the user's own: the kernel
shows every other number as "nobody". Claiming ownership, the default here, therefore
shows all files as the user's own; published numbers are shown on request, as far as
that is possible.

Source: docs/reference/client-behaviour.md, "Ownership".
"""

from collections.abc import Callable
from typing import NamedTuple

UNMAPPED_ID = 65534
"""Shown for owners that the mount's user namespace has no number for."""


class Identity(NamedTuple):
    """The user's number on the host, and in the user namespace of the mount.

    Attributes:
        host: As published owners count.
        namespace: What stands for the user in the namespace; the same outside of one.
        is_confined: Whether the namespace has no other number.
    """

    host: int
    namespace: int
    is_confined: bool

    @classmethod
    def outside(cls, number: int) -> "Identity":
        """Return the identity of a process that is in no user namespace."""
        return cls(number, number, is_confined=False)


def shown_id(
    identity: Identity, wanted: Callable[[int], int] | None, *, claims: bool
) -> Callable[[int], int]:
    """Return the function from published to shown numbers.

    Args:
        identity: The user's.
        wanted: Maps published numbers as configured; ``None`` leaves them.
        claims: Whether everything belongs to the user.
    """
    if claims:
        return lambda _published: identity.namespace

    def shown(published: int) -> int:
        number = published if wanted is None else wanted(published)
        if number == identity.host:
            return identity.namespace
        return UNMAPPED_ID if identity.is_confined else number

    return shown
