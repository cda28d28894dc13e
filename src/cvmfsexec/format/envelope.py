"""The frame of signed documents: text, ``--``, hash of the text, signature.

Manifest and whitelist come in it. The *letter* is everything before the separator;
the hash line covers the letter, and the signature covers the text of the hash line
(never the letter itself). The signature is binary and runs to the end.

Source: docs/reference/repository-format.md, "Signed letters".
"""

from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash

SEPARATOR = b"--\n"


class SignedLetter(NamedTuple):
    """A signed document taken apart; nothing about it has been checked yet.

    Attributes:
        letter: The text, up to and including the newline before the separator.
        hash_text: The hash line without its newline; this is what is signed.
        signature: Raw bytes of the RSA signature.
    """

    letter: bytes
    hash_text: bytes
    signature: bytes


def parse_letter(blob: bytes) -> SignedLetter:
    """Take a signed document apart at its first line that is exactly ``--``.

    Raises:
        FormatError: No separator, a hash line that is no content hash, or nothing
            after it.
    """
    # A newline in front makes an empty letter the same case as any other.
    letter, separator, rest = (b"\n" + blob).partition(b"\n" + SEPARATOR)
    hash_text, newline, signature = rest.partition(b"\n")
    if not separator or not newline:
        raise FormatError("a signed document is cut short before its signature")
    if not signature:
        raise FormatError("a signed document has no signature")
    _parse_hash(hash_text)
    return SignedLetter(letter[1:] + b"\n" if letter else b"", hash_text, signature)


def letter_hash_matches(signed: SignedLetter) -> bool:
    """Whether the letter hashes to its hash line, by the line's own algorithm.

    Raises:
        FormatError: The hash line is no content hash.
    """
    stated = _parse_hash(signed.hash_text)
    return ContentHash.of(signed.letter, stated.algorithm) == stated


def compose_letter(letter: bytes, hash_text: bytes, signature: bytes) -> bytes:
    """Put a signed document together; the reverse of :func:`parse_letter`.

    Raises:
        FormatError: A reader would take it apart differently.
    """
    framed = b"\n" + letter
    if not framed.endswith(b"\n") or b"\n" + SEPARATOR in framed:
        raise FormatError("a signed text must be whole lines, and none of them '--'")
    _parse_hash(hash_text)
    return b"".join((letter, SEPARATOR, hash_text, b"\n", signature))


def _parse_hash(hash_text: bytes) -> ContentHash:
    return ContentHash.parse(hash_text.decode("ascii", "replace"))
