import stat

from cvmfsexec.catalog.counters import count, totals
from cvmfsexec.catalog.schema import COUNTER_NAMES
from cvmfsexec.format.dirent import DirectoryEntry, Flag


def entry(flags: int, size: int = 0, xattr: bytes | None = None) -> DirectoryEntry:
    mode = stat.S_IFREG | 0o644  # the flags alone decide
    return DirectoryEntry(
        1, b"x", size, mode, 0, 0, flags, 1, 0, 0, b"", None, xattr, 1, 2, 3, 4
    )


ENTRIES = [
    entry(Flag.DIRECTORY, 4096),
    entry(Flag.DIRECTORY | Flag.NESTED_MOUNTPOINT, 4096, b"blob"),
    entry(Flag.FILE, 10),
    entry(Flag.FILE | Flag.CHUNKED, 100, b"blob"),
    entry(Flag.FILE | Flag.EXTERNAL, 1000),
    entry(Flag.FILE | Flag.SYMLINK, 7),
    entry(Flag.FILE | Flag.SPECIAL, 259),
]


def test_every_kind_is_counted_once() -> None:
    counters = count(ENTRIES, chunk_count=3, nested=())
    assert set(counters) == set(COUNTER_NAMES)
    own = {
        name.removeprefix("self_"): value
        for name, value in counters.items()
        if name.startswith("self_")
    }
    assert own == {
        "regular": 3,
        "symlink": 1,
        "special": 1,
        "dir": 2,
        "nested": 0,
        "chunked": 1,
        "chunks": 3,
        "file_size": 1110,
        "chunked_size": 100,
        "xattr": 2,
        "external": 1,
        "external_file_size": 1000,
    }


def test_a_subtree_is_everything_below() -> None:
    leaf = count(ENTRIES, chunk_count=3, nested=())
    middle = count(ENTRIES[:1], chunk_count=0, nested=[leaf, leaf])
    top = count([], chunk_count=0, nested=[middle])
    assert middle["self_nested"] == 2
    assert middle["subtree_regular"] == 6
    assert middle["subtree_nested"] == 0
    assert top["subtree_regular"] == 6
    assert top["subtree_dir"] == 5
    assert top["subtree_nested"] == 2
    assert totals(middle)["dir"] == 5
