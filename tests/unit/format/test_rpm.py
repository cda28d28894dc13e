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
