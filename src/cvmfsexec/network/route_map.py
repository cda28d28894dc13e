"""The routes of a client at one moment, as people are shown them: without passwords."""

from typing import NamedTuple


class ShownProxy(NamedTuple):
    """A proxy as people see it, without user and password.

    Attributes:
        url: By its address.
        named: As the configuration has it.
        is_unresolved: Whether no address was found for the name.
    """

    url: str
    named: str
    is_unresolved: bool


class RouteMap(NamedTuple):
    """All routes of a client at one moment, without any password.

    Attributes:
        servers: In the order of preference.
        active_server: The one that is asked first.
        groups: Proxy groups in order, the fallback ones last.
        active_proxy: The one that is asked first.
        active_group: Number of its group.
        addresses_valid_s: For how long the addresses are not looked up again.
    """

    servers: tuple[str, ...]
    active_server: str
    groups: tuple[tuple[ShownProxy, ...], ...]
    active_proxy: str
    active_group: int
    addresses_valid_s: float
