import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError, IntegrityError
from cvmfsexec.format.rpm import parse_rpm
from tests.support.packages import RPM_PAYLOADS, build_rpm

FILES = {"/etc/cvmfs/default.d/50-x.conf": b"X=1\n", "/etc/cvmfs/empty": b""}


@pytest.mark.parametrize("payload", RPM_PAYLOADS)
def test_what_rpmbuild_builds_is_read(payload: str) -> None:
    links = {"/etc/cvmfs/link": "default.d"}
    package = parse_rpm(build_rpm("x", FILES, payload=payload, links=links))
    assert (package.name, package.version) == ("x", "2.1-1")
    entries = {entry.path: entry for entry in package.entries}
    assert entries[b"etc/cvmfs/default.d/50-x.conf"].content == b"X=1\n"
    assert entries[b"etc/cvmfs/link"].target == b"default.d"
    assert package.signatures == ()


def header(tags: dict[int, tuple[int, int, bytes]]) -> bytes:
    """Return a header of tags: type, count and value by number."""
    index, store = b"", b""
    for number, (kind, count, value) in tags.items():
        index += struct.pack(">IIII", number, kind, len(store), count)
        store += value
    start = b"\x8e\xad\xe8\x01" + struct.pack(">III", 0, len(tags), len(store))
    return start + index + store


def old_rpm(signatures: dict[int, bytes], *, has_md5: bool = True) -> bytes:
    """Return a package as rpm 4.11 writes it: no digest of the payload alone."""
    texts = {1000: b"x\0", 1001: b"1.0\0", 1002: b"2\0"}
    main = header({number: (6, 1, text) for number, text in texts.items()})
    payload = build_rpm("x", FILES, payload="none")
    payload = payload[payload.index(b"070701") :]
    first = {number: (7, len(value), value) for number, value in signatures.items()}
    if has_md5:
        first[1004] = (
            7,
            16,
            hashlib.md5(main + payload, usedforsecurity=False).digest(),
        )
    signature = header(first)
    signature += bytes(-len(signature) % 8)
    return b"\xed\xab\xee\xdb" + bytes(92) + signature + main + payload


def test_packages_of_older_tools_are_read() -> None:
    package = parse_rpm(old_rpm({}))
    assert (package.name, package.version) == ("x", "1.0-2")
    assert b"etc/cvmfs/empty" in {entry.path for entry in package.entries}
    with pytest.raises(IntegrityError, match="md5"):
        parse_rpm(old_rpm({}) + b"more")


def test_without_a_digest_of_the_payload_it_is_refused() -> None:
    with pytest.raises(FormatError, match="no digest of its payload"):
        parse_rpm(old_rpm({}, has_md5=False))


def test_a_signature_of_the_header_does_not_speak_for_a_payload_beside_it() -> None:
    signatures = parse_rpm(old_rpm({268: b"header", 1002: b"whole"})).signatures
    assert [one.signature for one in signatures] == [b"whole"]
    assert signatures[0].signed.endswith(bytes(4))


def test_a_package_cut_anywhere_is_refused() -> None:
    package = build_rpm("x", FILES)
    for length in range(0, len(package) - 1, 31):
        with pytest.raises((FormatError, IntegrityError)):
            parse_rpm(package[:length])


@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_changed_byte_changes_nothing_of_what_is_read(
    place: float, change: int
) -> None:
    package = bytearray(build_rpm("x", FILES))
    expected = parse_rpm(bytes(package))
    package[int(place * len(package))] ^= change
    try:
        found = parse_rpm(bytes(package))
    except (FormatError, IntegrityError):
        return
    # It was in the lead, in padding, or in a part of the signature that is not used.
    assert (found.name, found.version) == (expected.name, expected.version)
    assert found.entries == expected.entries


def test_a_damaged_payload_is_told_by_its_digest() -> None:
    package = bytearray(build_rpm("x", FILES))
    package[-10] ^= 1
    with pytest.raises(IntegrityError, match="sha256 of its payload"):
        parse_rpm(bytes(package))


def test_a_changed_header_is_told_by_its_digest() -> None:
    package = build_rpm("x", FILES)
    with pytest.raises(IntegrityError, match="of its header"):
        parse_rpm(package.replace(b"noarch", b"noarcx"))
