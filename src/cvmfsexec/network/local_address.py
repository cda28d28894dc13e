"""Which address this machine has, as seen from where a packet would go.

A datagram socket that is connected has an address of its own, chosen by the routing
table; nothing is sent.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
OUTSIDE = ("192.0.2.1", "2001:db8::1")
"""Addresses for examples, that are routed like most of the world."""

_ANY_PORT = 9


def address_towards(targets: "Iterable[str]") -> str:
    """Return the first address that is not loopback, or loopback.

    Args:
        targets: Addresses; those that are none, or have no route, are passed over.
    """
    for target in targets:
        address = _address_towards(target)
        if address and not address.startswith("127.") and address != "::1":
            return address
    return LOOPBACK


def _address_towards(target: str) -> str:
    import _socket  # the module socket takes 8 ms more

    family = _socket.AF_INET6 if ":" in target else _socket.AF_INET
    try:
        _socket.inet_pton(family, target)
        link = _socket.socket(family, _socket.SOCK_DGRAM)
    except (OSError, ValueError):
        return ""
    try:
        link.connect((target, _ANY_PORT))
        return str(link.getsockname()[0])
    except OSError:
        return ""
    finally:
        link.close()
