"""What was downloaded and what failed, for magic attributes and ``cvmfs`` tools."""

from typing import NamedTuple


class RouteFailure(NamedTuple):
    """An attempt that brought nothing of use.

    Attributes:
        at_s: When it failed, in seconds since 1970.
        host: Base URL of the server, without user and password.
        proxy: The way to it, likewise, or ``DIRECT``.
        text: What happened.
    """

    at_s: float
    host: str
    proxy: str
    text: str


class TransferStatistics(NamedTuple):
    """Sums since the client was made.

    Attributes:
        downloads: Requests that brought what they asked for.
        received_bytes: Bytes of all bodies, also of those that were no use.
        seconds: Time spent waiting for answers, summed over parallel transfers.
        failed_attempts: Attempts that were followed by another one, or by an error.
    """

    downloads: int = 0
    received_bytes: int = 0
    seconds: float = 0.0
    failed_attempts: int = 0
