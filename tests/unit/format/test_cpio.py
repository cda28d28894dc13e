import pytest

from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import ENTRY_COUNT_MAX, ArchiveEntry, EntryKind
from cvmfsexec.format.cpio import parse_cpio

FILE, PROGRAM, DIRECTORY, LINK = 0o100644, 0o100755, 0o40755, 0o120777


def entry(
    name: bytes, mode: int, content: bytes = b"", *, inode: int = 1, links: int = 1
) -> bytes:
    numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % number for number in numbers)
    text = head + name + b"\0"
    text += bytes(-len(text) % 4) + content
    return text + bytes(-len(text) % 4)


END = entry(b"TRAILER!!!", 0)


def test_files_directories_and_links_are_read() -> None:
    data = entry(b"./d", DIRECTORY) + entry(b"./d/f", FILE, b"abc")
    data += entry(b"./d/p", PROGRAM, b"#!") + entry(b"./l", LINK, b"d/f")
    assert parse_cpio(data + END + b"anything") == (
        ArchiveEntry(b"d", EntryKind.DIRECTORY),
        ArchiveEntry(b"d/f", EntryKind.FILE, b"abc"),
        ArchiveEntry(b"d/p", EntryKind.FILE, b"#!", is_executable=True),
        ArchiveEntry(b"l", EntryKind.LINK, target=b"d/f"),
    )


def test_names_of_one_file_have_its_content() -> None:
    data = entry(b"a", FILE, inode=7, links=2) + entry(b"x", FILE, b"x", inode=8)
    data += entry(b"b", FILE, b"abc", inode=7, links=2)
    assert [one.content for one in parse_cpio(data + END)] == [b"abc", b"x", b"abc"]


@pytest.mark.parametrize("mode", [0o020644, 0o060644, 0o010644, 0o140644, 0])
def test_devices_and_the_like_are_refused(mode: int) -> None:
    with pytest.raises(FormatError, match="a device or the like"):
        parse_cpio(entry(b"dev", mode) + END)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"070701",
        entry(b"a", FILE, b"abc"),
        entry(b"a", FILE, b"abc")[:-3],
        entry(b"a", FILE).replace(b"070701", b"07070X") + END,
        entry(b"a", FILE).replace(b"000081a4", b"+00081a4") + END,
        entry(b"", FILE) + END,
        entry(b".", FILE) + END,
        entry(b"../a", FILE) + END,
        entry(b"/a", FILE) + END,
        entry(b"a", FILE) * 2 + END,
        entry(b"a", LINK, b"/etc") + entry(b"a/b", FILE) + END,
        entry(b"n" * 5000, FILE) + END,
    ],
)
def test_malformed_archives_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_cpio(data)


def test_endless_entries_are_refused() -> None:
    with pytest.raises(FormatError, match="more than"):
        parse_cpio(entry(b"d", DIRECTORY) * (ENTRY_COUNT_MAX + 1) + END)
