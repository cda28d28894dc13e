import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind
from cvmfsexec.format.tar import parse_tar

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
formats = pytest.mark.parametrize("kind", FORMATS)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    """Return an archive of one entry, without its end."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info.tobuf(tarfile.GNU_FORMAT)


def archive(kind: int, files: dict[str, bytes], links: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return stream.getvalue()


END = bytes(1024)


@formats
@given(
    contents=st.dictionaries(
        st.from_regex(r"[a-z]{1,90}(/[a-zé]{1,40}){0,3}", fullmatch=True).map(
            lambda name: "top/" + name.replace("/", "_/")
        ),
        st.binary(max_size=1500),
        max_size=1,
    )
)
def test_what_python_writes_is_read(kind: int, contents: dict[str, bytes]) -> None:
    try:
        data = archive(kind, contents, {})
    except ValueError:  # too long for ustar
        return
    found = {entry.path.decode(): entry.content for entry in parse_tar(data)}
    assert found == contents


@pytest.mark.parametrize("kind", FORMATS[1:])
def test_long_names_and_targets_are_read(kind: int) -> None:
    name, target = "./d/" + "n" * 200, "t/" * 100 + "t"
    data = archive(kind, {name: b"abc"}, {"./l": target})
    assert parse_tar(data) == (
        ArchiveEntry(name[2:].encode(), EntryKind.FILE, b"abc"),
        ArchiveEntry(b"l", EntryKind.LINK, target=target.encode()),
    )


def test_a_hard_link_is_the_file_again() -> None:
    data = archive(tarfile.GNU_FORMAT, {"./a": b"abc"}, {})[:1024]
    entries = parse_tar(data + member("./b", tarfile.LNKTYPE, "./a") + END)
    assert [(entry.path, entry.content) for entry in entries] == [
        (b"a", b"abc"),
        (b"b", b"abc"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(511),
        member("a"),
        member("a").replace(b"a", b"b", 1) + END,
        member("../a") + END,
        member("/a") + END,
        member("a") * 2 + END,
        member("a", tarfile.LNKTYPE, "missing") + END,
        member("a", tarfile.LNKTYPE, "/etc/passwd") + END,
        member("a", tarfile.CHRTYPE) + END,
        member("a", tarfile.FIFOTYPE) + END,
        member("a", tarfile.GNUTYPE_SPARSE) + END,
        member("a", tarfile.SYMTYPE, "/etc") + member("a/b") + END,
        archive(tarfile.PAX_FORMAT, {"é" * 90: b""}, {}).replace(b" path=", b" path_"),
    ],
)
def test_malformed_archives_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_tar(data)
