"""Counters of what was downloaded, for the magic attributes and ``cvmfs`` tools."""

from typing import NamedTuple


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
