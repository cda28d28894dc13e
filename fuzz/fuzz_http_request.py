"""Any bytes are a request whose range lies within the file, or refused."""

from cvmfsexec.errors import FormatError
from cvmfsexec.publish.http_message import parse_request

FILE_BYTES = 1000


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        request = parse_request(data)
    except FormatError:
        return
    part = request.byte_range(FILE_BYTES)
    if part is not None and part.length:
        assert 0 <= part.start < part.start + part.length <= FILE_BYTES
    assert request.keeps_connection in (True, False)
