"""Any bytes decompress to no more than was allowed, or there is a FormatError."""

import contextlib

from cvmfsexec.errors import FormatError
from cvmfsexec.format.compression import decompress

_LIMIT_BYTES = 1 << 16


def target(data: bytes) -> None:
    """Raise only on a finding."""
    with contextlib.suppress(FormatError):
        assert len(decompress(data, _LIMIT_BYTES)) <= _LIMIT_BYTES
