"""PEM: a labelled block of base64 within any text.

Keys and certificates come in it. The first block with a wanted label counts; text
around it and blocks with other labels are passed over, as OpenSSL does. A block that
has headers of its own is encrypted and counts as text.

Source: RFC 7468.
"""

import binascii
import re
from collections.abc import Collection
from typing import NamedTuple

from cvmfsexec.errors import FormatError

PEM_BYTES_MAX = 64 * 1024  # real ones have 1 to 3 KiB

_BLOCK = re.compile(
    rb"^-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]++)-----END \1-----",
    re.MULTILINE,
)


class PemBlock(NamedTuple):
    """One block.

    Attributes:
        label: What it says that it is, e.g. ``PUBLIC KEY``.
        content: The bytes in it, decoded.
    """

    label: bytes
    content: bytes


def parse_pem(text: bytes, labels: Collection[bytes]) -> PemBlock:
    """Return the first block with one of these labels.

    Raises:
        FormatError: There is none, its base64 is wrong, or the text is too long.
    """
    if len(text) > PEM_BYTES_MAX:
        raise FormatError(f"a PEM text of {len(text)} bytes is too long")
    for label, body in _BLOCK.findall(text):
        if label in labels:
            return PemBlock(label, _decode(body))
    wanted = " or ".join(label.decode() for label in labels)
    raise FormatError(f"no PEM block with the label {wanted}")


def _decode(body: bytes) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
    except binascii.Error as error:
        raise FormatError(f"a PEM block is not base64: {error}") from error
