"""Extended attributes: published ones, magic ones, pages, and who sees them."""

import stat
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.dirent import Compression, DirectoryEntry, Flag
from cvmfsexec.format.names import ROOT
from cvmfsexec.format.xattr import serialize_xattrs
from cvmfsexec.repository.lookup import Location, PathLookup
from cvmfsexec.repository.slot import Slot
from cvmfsexec.vfs.extended_attributes import (
    PAGE_BYTES,
    ExtendedAttributes,
    Protection,
    Sources,
)
from tests.support.catalog_files import HASH_TEXT, Cells, directory, entry, link
from tests.support.catalog_repository import CatalogRepository

STORED = {b"user.mine": b"1", b"security.capability": b"\0\xff", b"user.hash": b"fake"}
LONG = "".join(f"line {number}\n" for number in range(10_000))
CHUNK_LIST = [("aa", 0, 10), ("bb", 10, 5)]

SOURCES = Sources(
    chunk_list=lambda _: CHUNK_LIST,
    cached_hash=lambda location: HASH_TEXT if location.entry.size else None,
    catalog_counters=lambda location: f"counters of {location.path.decode()}",
    external_url=lambda location: f"http://e{location.path.decode()}",
)
MOUNT: dict[bytes, Callable[[], str]] = {
    b"user.fqrn": lambda: "repo.example.org",
    b"user.long": lambda: LONG,
    b"user.empty": lambda: "",
}


def attributes(
    lists_magic: Callable[[Location], bool] = lambda _: False,
) -> ExtendedAttributes:
    return ExtendedAttributes(MOUNT, SOURCES, lists_magic)


Locate = Callable[[Cells], Location]


@pytest.fixture
def locate(made: CatalogRepository) -> Locate:
    """Return a function that publishes the cells of ``/x`` and finds them."""

    def publish(cells: Cells) -> Location:
        found = PathLookup(made.tree(made.add_catalog(catalog=[cells]))).find(b"/x")
        assert found is not None
        return found

    return publish


def file(**cells: object) -> Cells:
    return entry(b"/x", **{"xattr": None, **cells})


# Published attributes


def test_published_attributes_are_read(locate: Locate) -> None:
    found = locate(file(xattr=serialize_xattrs(STORED)))
    view = attributes()
    assert view.find(found, b"user.mine") == b"1"
    assert view.find(found, b"security.capability") == b"\0\xff"
    assert view.find(found, b"user.other") is None
    assert view.find(found, b"security.selinux") is None
    assert sorted(view.names(found)) == sorted(STORED)


def test_a_magic_attribute_wins_over_a_published_one(locate: Locate) -> None:
    found = locate(file(xattr=serialize_xattrs(STORED)))
    assert attributes().find(found, b"user.hash") == HASH_TEXT.encode()


@pytest.mark.parametrize(
    "blob", [b"", b"\1", b"\1\5\1\1ab", b"\2\1\1\1ab", b"\xff" * 9]
)
def test_damaged_attributes_are_none(locate: Locate, blob: bytes) -> None:
    found = locate(file(xattr=blob))
    assert attributes().names(found) == []
    assert attributes().find(found, b"user.mine") is None
    assert attributes().find(found, b"user.fqrn") == b"repo.example.org"


def test_a_published_name_may_look_like_a_page(locate: Locate) -> None:
    stored = {b"user.mine~3": b"three", b"user.a@b": b"at", b"user.~": b"tilde"}
    found = locate(file(xattr=serialize_xattrs(stored)))
    for name, value in stored.items():
        assert attributes().find(found, name) == value


# Pages


def test_pages_are_the_whole_value(locate: Locate) -> None:
    found = locate(file())
    pages: list[bytes] = []
    while (page := attributes().find(found, b"user.long~%d" % len(pages))) is not None:
        assert 0 < len(page) <= PAGE_BYTES
        pages.append(page)
    assert b"".join(pages) == LONG.encode()
    assert len(pages) > 1
    assert attributes().find(found, b"user.long~?") == b"num_pages, %d" % len(pages)


@pytest.mark.parametrize("name", [b"user.long", b"user.long~0", b"user.long~00"])
def test_the_first_page_needs_no_number(locate: Locate, name: bytes) -> None:
    assert attributes().find(locate(file()), name) == LONG.encode()[:PAGE_BYTES]


def test_pages_for_people_have_a_heading(locate: Locate) -> None:
    page = attributes().find(locate(file()), b"user.long@1")
    assert page is not None
    heading, _, rest = page.partition(b"\n")
    assert heading == b"# Access page at idx: 1 of 3"
    assert rest == LONG.encode()[PAGE_BYTES : 2 * PAGE_BYTES]


def test_a_short_value_has_one_page(locate: Locate) -> None:
    found = locate(file())
    view = attributes()
    assert view.find(found, b"user.fqrn~?") == b"num_pages, 1"
    assert view.find(found, b"user.empty~?") == b"num_pages, 1"
    assert view.find(found, b"user.empty") == b""


@pytest.mark.parametrize(
    "name",
    [
        b"user.long~99",
        b"user.fqrn~1",
        b"user.fqrn~-1",
        b"user.fqrn~x",
        b"user.fqrn@?",
        b"user.fqrn~1234567",
        b"user.fqrn~0~0",
        b"user.",
        b"user.~0",
        b"user",
        b"",
        b"xfsroot.nothing",
        b"trusted.fqrn",
    ],
)
def test_what_is_no_page_is_not_there(locate: Locate, name: bytes) -> None:
    assert attributes().find(locate(file()), name) is None


ROOT_SLOT = Slot(1, ROOT, ROOT, ContentHash(bytes(20)), 0, 0, is_bind=False)
PLAIN_FILE = DirectoryEntry(
    *(1, b"x", 10, stat.S_IFREG | 0o644, 0, 0, Flag.FILE, 1, 0, 0),
    *(b"", bytes(range(20)), serialize_xattrs(STORED), 0, 0, 0, 0),
)


@given(
    name=st.one_of(st.binary(max_size=40), st.text("user.fqnlog~@?019").map(str.encode))
)
def test_any_name_can_be_asked_for(name: bytes) -> None:
    location = Location(b"/x", ROOT_SLOT, PLAIN_FILE)
    value = attributes().find(location, name)
    assert value is None or len(value) <= PAGE_BYTES + 100


# Attributes of entries

CHUNKED = Flag.FILE | Flag.CHUNKED
PLAIN = Compression.NONE << 11
LINK = link(b"/x", b"$(HOME)/y")
DIRECTORY = directory(b"/x")


@pytest.mark.parametrize(
    ("cells", "name", "value"),
    [
        (file(), "hash", HASH_TEXT),
        (file(flags=Flag.FILE | 0x200), "hash", HASH_TEXT + "-shake128"),
        (file(hash=None, flags=CHUNKED), "hash", None),
        (DIRECTORY, "hash", None),
        (file(), "lhash", HASH_TEXT),
        (file(size=0), "lhash", "Not in cache"),
        (file(flags=CHUNKED), "lhash", "Not in cache"),
        (file(), "chunks", "2"),
        (DIRECTORY, "chunks", None),
        (LINK, "chunks", None),
        (file(), "chunk_list", "hash,offset,size\naa,0,10\nbb,10,5\n"),
        (file(), "compression", "zlib"),
        (file(flags=Flag.FILE | PLAIN), "compression", "none"),
        (DIRECTORY, "compression", None),
        (file(), "direct_io", "0"),
        (file(flags=Flag.FILE | Flag.DIRECT_IO), "direct_io", "1"),
        (file(), "external_file", "0"),
        (file(flags=Flag.FILE | Flag.EXTERNAL), "external_file", "1"),
        (file(), "external_url", None),
        (file(flags=Flag.FILE | Flag.EXTERNAL), "external_url", "http://e/x"),
        (LINK, "rawlink", "$(HOME)/y"),
        (file(), "rawlink", None),
        (DIRECTORY, "catalog_counters", "counters of /x"),
        (file(), "fqrn", "repo.example.org"),
        (LINK, "fqrn", "repo.example.org"),
    ],
)
def test_entries_have_the_attributes_of_their_kind(
    locate: Locate, cells: Cells, name: str, value: str | None
) -> None:
    found = attributes().find(locate(cells), b"user." + name.encode())
    assert found == (None if value is None else value.encode())


def test_links_answer_under_a_name_that_the_kernel_lets_through(
    locate: Locate,
) -> None:
    raw = b"\xff/$(HOME)"
    found = locate(link(b"/x", raw))
    assert attributes().find(found, b"xfsroot.rawlink") == raw


def test_an_unknown_algorithm_is_an_error_and_no_absence(locate: Locate) -> None:
    found = locate(file(flags=Flag.FILE | 0x700))
    with pytest.raises(FormatError):
        attributes().find(found, b"user.hash")
    with pytest.raises(FormatError):
        attributes(lambda _: True).names(found)


# Listing


def test_magic_attributes_are_listed_where_the_rule_says(locate: Locate) -> None:
    view = attributes(lambda location: not location.path)
    found = locate(file(xattr=serialize_xattrs(STORED)))
    assert set(view.names(found)) == set(STORED)
    assert set(view.names(found._replace(path=ROOT))) == {
        *STORED,
        *MOUNT,
        *(b"user." + name for name in FILE_NAMES),
    }


FILE_NAMES = (
    b"catalog_counters",
    b"hash",
    b"lhash",
    b"chunks",
    b"chunk_list",
    b"compression",
    b"direct_io",
    b"external_file",
)


def test_each_name_is_listed_once(locate: Locate) -> None:
    names = attributes(lambda _: True).names(
        locate(file(xattr=serialize_xattrs({**STORED, b"user.fqrn": b"fake"})))
    )
    assert len(names) == len(set(names))


@pytest.mark.parametrize("cells", [file(), DIRECTORY, LINK])
def test_what_is_listed_can_be_read(locate: Locate, cells: Cells) -> None:
    view = attributes(lambda _: True)
    found = locate(cells)
    assert [name for name in view.names(found) if view.find(found, name) is None] == []


# Who may read them


@pytest.mark.parametrize(("gid", "value"), [(0, b""), (7, b""), (8, None)])
@pytest.mark.parametrize("name", [b"user.empty", b"user.empty~0", b"user.empty@0"])
def test_a_protected_attribute_is_for_some_groups(
    locate: Locate, gid: int, value: bytes | None, name: bytes
) -> None:
    protection = Protection(frozenset({b"user.empty"}), frozenset({0, 7}))
    view = ExtendedAttributes(MOUNT, SOURCES, lambda _: True, protection)
    found = locate(file())
    told = view.find(found, name, gid)
    assert (told is None) == (value is None)
    assert view.find(found, b"user.fqrn", gid) == b"repo.example.org"
    assert b"user.empty" in view.names(found)


def test_entries_attributes_can_be_protected_too(locate: Locate) -> None:
    protection = Protection(frozenset({b"user.hash"}), frozenset({0}))
    view = ExtendedAttributes(MOUNT, SOURCES, lambda _: True, protection)
    found = locate(file())
    assert view.find(found, b"user.hash", 0) == HASH_TEXT.encode()
    assert view.find(found, b"user.hash", 1) is None


def test_what_members_have_to_show_is_told(locate: Locate) -> None:
    found = locate(file())
    sources = SOURCES._replace(membership=lambda: "x509%/cms")
    view = ExtendedAttributes(MOUNT, sources, lambda _: True)
    assert view.find(found, b"user.authz") == b"x509%/cms"
    assert b"user.authz" in view.names(found)
    assert attributes().find(found, b"user.authz") is None
    assert b"user.authz" not in attributes(lambda _: True).names(found)
