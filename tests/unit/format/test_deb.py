import pytest

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import EntryKind
from cvmfsexec.format.deb import MAGIC, parse_deb
from tests.support.packages import DEB_COMPRESSIONS, build_deb

FILES = {"/etc/cvmfs/default.d/50-x.conf": b"X=1\n"}


@pytest.mark.parametrize("compression", DEB_COMPRESSIONS)
def test_what_dpkg_builds_is_read(compression: str) -> None:
    links = {"/etc/cvmfs/link": "default.d"}
    package = parse_deb(build_deb("x", FILES, compression=compression, links=links))
    assert (package.name, package.version) == ("x", "2.1-1")
    entries = {entry.path: entry for entry in package.entries}
    assert entries[b"etc/cvmfs/default.d/50-x.conf"].content == b"X=1\n"
    assert entries[b"etc/cvmfs/link"].target == b"default.d"
    assert entries[b"etc/cvmfs"].kind is EntryKind.DIRECTORY


def ar_member(name: bytes, content: bytes) -> bytes:
    head = b"%-16s%-12s%-6s%-6s%-8s%-10d`\n" % (name, b"0", b"0", b"0", b"0", 0)
    head = head.replace(b"0         `", b"%-10d`" % len(content))
    return head + content + b"\n" * (len(content) % 2)


BINARY = ar_member(b"debian-binary", b"2.0\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        MAGIC + BINARY,
        MAGIC + BINARY * 2,
        MAGIC + ar_member(b"debian-binary", b"3.0\n"),
        MAGIC + BINARY[:-1] + b"x",
        MAGIC + BINARY.replace(b"`\n", b"``"),
        MAGIC + BINARY.replace(b"4  ", b"-4 "),
        MAGIC + BINARY.replace(b"4  ", b"44 "),
        MAGIC + BINARY + ar_member(b"control.tar", bytes(1024)),
    ],
)
def test_malformed_packages_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_deb(data)


def test_a_package_cut_anywhere_is_refused() -> None:
    package = build_deb("x", FILES)
    for length in range(0, len(package) - 1, 7):
        with pytest.raises(FormatError):
            parse_deb(package[:length])
