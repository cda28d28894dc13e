"""What the user's process was like before we took it over.

The payload is to find all of it again, as if it had been started in our place.
"""

from typing import NamedTuple

from cvmfsexec.namespaces import descriptors, signals
from cvmfsexec.namespaces.identity import Identity, current_identity
from cvmfsexec.namespaces.signals import SignalState


class Origin(NamedTuple):
    """What the payload gets back.

    Attributes:
        identity: Its uid and gid outside.
        signals: Mask and ignored signals.
        inherited: Descriptors beyond the standard streams.
    """

    identity: Identity
    signals: SignalState
    inherited: tuple[int, ...]


def take_over() -> Origin:
    """Remember how this process was started, and block the session's signals."""
    descriptors.occupy_closed_streams()
    inherited = descriptors.find_inherited()
    return Origin(current_identity(), signals.take_over(), inherited)
