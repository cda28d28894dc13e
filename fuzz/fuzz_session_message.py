"""Any bytes are a message between processes, which is the same again, or refused."""

from cvmfsexec.errors import FormatError
from cvmfsexec.namespaces.messages import PIPE_BUF, decode, encode

LENGTH_BYTES = 2


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        message = decode(data)
    except FormatError:
        return
    written = encode(message)
    assert len(written) <= PIPE_BUF
    assert decode(written[LENGTH_BYTES:]).topic is message.topic
