"""A repository by inode: every answer, and every memory that can be forgotten."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import (
    CvmfsError,
    FormatError,
    IntegrityError,
    NoRouteError,
    StaleInodeError,
    TransferError,
)
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression, Flag
from cvmfsexec.format.names import ROOT, path_hash
from cvmfsexec.repository import catalog_tree
from cvmfsexec.repository.lookup import Location
from cvmfsexec.vfs import file_system
from cvmfsexec.vfs.attributes import (
    FIRST_COOKIE,
    ROOT_INODE,
    Attributes,
    FilesystemStatistics,
)
from cvmfsexec.vfs.descriptors import DescriptorCache
from cvmfsexec.vfs.extended_attributes import ExtendedAttributes, Sources
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from cvmfsexec.vfs.presentation import Presentation
from tests.support.catalog_files import Cells, chunk, directory, entry, link, nested
from tests.support.catalog_repository import (
    BIND_POINT,
    NESTED_POINT,
    CatalogRepository,
)
from tests.support.descriptors import descriptor_count

CHUNKED = Flag.FILE | Flag.CHUNKED
LARGE = bytes(range(256)) * 40
"""Content of ``/large``, in chunks of odd sizes."""
CHUNK_ENDS = (1, 3, 1000, 1001, 5000, 9999, len(LARGE))
LONG_DIRECTORY = 60


def file_system_of(
    made: CatalogRepository, root: ContentHash, *, open_max: int = 8
) -> RepositoryFileSystem:
    no_sources = Sources(
        chunk_list=lambda _: [],
        cached_hash=lambda _: None,
        catalog_counters=lambda location: location.path.decode(),
        external_url=lambda _: "",
    )
    return RepositoryFileSystem(
        made.tree(root),
        DescriptorCache(made.open, open_max),
        Presentation(
            variables={"PLACE": "there"},
            shown_uid=lambda uid: uid,
            shown_gid=lambda gid: gid,
        ),
        ExtendedAttributes({b"user.fqrn": lambda: "x"}, no_sources, lists_nothing),
        lambda: FilesystemStatistics(1, 2, 3, 4),
    )


def lists_nothing(_location: Location) -> bool:
    return False


def file(
    made: CatalogRepository, path: bytes, content: bytes, **cells: object
) -> Cells:
    """Return the entry of a file whose content is on the server."""
    name = made.add_object(content)
    return entry(path, size=len(content), hash=name.digest, **cells)


def chunks_of(made: CatalogRepository, path: bytes) -> Iterator[Cells]:
    start = 0
    for end in CHUNK_ENDS:
        piece = LARGE[start:end]
        name = made.add_object(piece, ObjectKind.CHUNK)
        yield chunk(path, start, len(piece), name.digest)
        start = end


def publish(made: CatalogRepository) -> ContentHash:
    """Return the root of a repository that has one of everything."""
    group = 7 << 32
    innermost = made.add_catalog(
        b"/n/deep/m", catalog=[file(made, b"/n/deep/m/leaf", b"leaf\n")]
    )
    inner = made.add_catalog(
        b"/n",
        catalog=[
            directory(b"/n/deep"),
            directory(b"/n/deep/m", flags=NESTED_POINT),
            file(made, b"/n/one", b"twins\n", hardlinks=group | 2),
            file(made, b"/n/two", b"twins\n", hardlinks=group | 2),
        ],
        nested_catalogs=[nested(b"/n/deep/m", str(innermost), 0)],
    )
    snapshot = made.add_catalog(
        catalog=[
            file(made, b"/file", b"as it was\n"),
            directory(b"/sub"),
            file(made, b"/sub/x", b"x\n"),
        ]
    )
    return made.add_catalog(
        catalog=[
            file(made, b"/file", b"as it is\n"),
            entry(b"/large", size=len(LARGE), flags=CHUNKED, hash=None),
            file(made, b"/empty", b""),
            link(b"/link", b"$(PLACE)/x$(NO:-default)"),
            directory(b"/n", flags=NESTED_POINT),
            directory(b"/old", flags=BIND_POINT),
            directory(b"/.secret", flags=Flag.DIRECTORY | Flag.HIDDEN),
            file(made, b"/.secret/inside", b"inside\n"),
            directory(b"/long"),
            *(entry(b"/long/%02d" % number) for number in range(LONG_DIRECTORY)),
            directory(b"/a"),
            directory(b"/a/b"),
            directory(b"/a/b/c"),
            file(made, b"/a/b/c/d", b"d\n"),
        ],
        chunks=chunks_of(made, b"/large"),
        nested_catalogs=[nested(b"/n", str(inner), 0)],
        bind_mountpoints=[nested(b"/old", str(snapshot), 0)],
    )


@pytest.fixture
def files(made: CatalogRepository) -> RepositoryFileSystem:
    return file_system_of(made, publish(made))


@pytest.fixture(params=["remembering", "forgetful"])
def any_files(
    files: RepositoryFileSystem,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> RepositoryFileSystem:
    """Return a file system whose memories hold everything, or a single thing."""
    if request.param == "forgetful":
        for name in ("_DIRECTORIES_MAX", "_LAYOUTS_MAX"):
            monkeypatch.setattr(file_system, name, 1)
        monkeypatch.setattr(catalog_tree, "OPEN_MAX", 1)
    return files


def resolve(files: RepositoryFileSystem, path: bytes) -> Attributes:
    """Look a path up as the kernel does, name by name."""
    found = files.attributes(ROOT_INODE)
    assert found is not None
    for name in path.split(b"/")[1:]:
        found = files.lookup(found.inode, name)
        assert found is not None, path
    return found


def walk(
    files: RepositoryFileSystem, inode: int = ROOT_INODE, path: bytes = ROOT
) -> Iterator[tuple[bytes, Attributes]]:
    for _, name, attributes in list(files.list_(inode, 0)):
        yield path + b"/" + name, attributes
        if stat.S_ISDIR(attributes.mode):
            yield from walk(files, attributes.inode, path + b"/" + name)


def all_paths() -> list[bytes]:
    long_names = [b"/long/%02d" % number for number in range(LONG_DIRECTORY)]
    return sorted(
        [
            *(b"/file", b"/large", b"/empty", b"/link", b"/n", b"/old", b"/long"),
            *(b"/n/deep", b"/n/deep/m", b"/n/deep/m/leaf", b"/n/one", b"/n/two"),
            *(b"/old/file", b"/old/sub", b"/old/sub/x"),
            *(b"/a", b"/a/b", b"/a/b/c", b"/a/b/c/d"),
            *long_names,
        ]
    )


# Names, attributes, listings


def test_a_walk_meets_everything_that_is_not_hidden(
    any_files: RepositoryFileSystem,
) -> None:
    assert sorted(path for path, _ in walk(any_files)) == all_paths()


def test_listing_lookup_and_attributes_agree(
    any_files: RepositoryFileSystem,
) -> None:
    for path, listed in walk(any_files):
        assert resolve(any_files, path) == listed
        assert any_files.attributes(listed.inode) == listed


def test_each_inode_is_of_one_entry(files: RepositoryFileSystem) -> None:
    inodes = [found.inode for path, found in walk(files) if path != b"/n/two"]
    assert len(set(inodes)) == len(inodes)
    assert ROOT_INODE not in inodes


def test_the_root_is_inode_1(files: RepositoryFileSystem) -> None:
    root = files.attributes(ROOT_INODE)
    assert root is not None
    assert (root.inode, stat.S_ISDIR(root.mode)) == (ROOT_INODE, True)


@pytest.mark.parametrize(
    "path", [b"/no", b"/n/no", b"/n/deep/m/no", b"/old/n", b"/long/60"]
)
def test_what_is_not_there_is_none(files: RepositoryFileSystem, path: bytes) -> None:
    above, _, name = path.rpartition(b"/")
    assert files.lookup(resolve(files, above).inode, name) is None


def test_hidden_entries_are_not_listed_but_found(files: RepositoryFileSystem) -> None:
    assert b"/.secret" not in dict(walk(files))
    secret = resolve(files, b"/.secret")
    assert [name for _, name, _ in files.list_(secret.inode, 0)] == [b"inside"]
    inside = resolve(files, b"/.secret/inside")
    assert files.read(inside.inode, 0, 100) == b"inside\n"


def test_hardlinks_share_their_inode(any_files: RepositoryFileSystem) -> None:
    one, two = (resolve(any_files, path) for path in (b"/n/one", b"/n/two"))
    assert one == two
    assert one.nlink == 2
    listed = dict(walk(any_files))
    assert listed[b"/n/one"] == listed[b"/n/two"] == one


def test_bound_content_has_inodes_of_its_own(files: RepositoryFileSystem) -> None:
    now, then = resolve(files, b"/file"), resolve(files, b"/old/file")
    assert now.inode != then.inode
    assert files.read(now.inode, 0, 100) == b"as it is\n"
    assert files.read(then.inode, 0, 100) == b"as it was\n"


def test_link_targets_are_expanded(files: RepositoryFileSystem) -> None:
    found = resolve(files, b"/link")
    assert files.readlink(found.inode) == b"there/xdefault"
    assert found.size == len("there/xdefault")
    assert files.readlink(resolve(files, b"/file").inode) is None


def test_an_inode_means_the_same_for_the_life_of_the_mount(
    files: RepositoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(walk(files))
    monkeypatch.setattr(catalog_tree, "OPEN_MAX", 1)
    for found in reversed(before.values()):
        assert files.attributes(found.inode) == found
    assert dict(walk(files)) == before


# Listings in pieces


@pytest.mark.parametrize("batch", [1, 2, 7, LONG_DIRECTORY, 1000])
def test_a_listing_goes_on_after_any_cookie(
    files: RepositoryFileSystem, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(file_system, "_LIST_BATCH", batch)
    long = resolve(files, b"/long").inode
    whole = list(files.list_(long, 0))
    cookies = [cookie for cookie, _, _ in whole]
    assert len(whole) == LONG_DIRECTORY
    assert cookies == sorted(set(cookies))
    assert min(cookies) >= FIRST_COOKIE
    for position, cookie in enumerate(cookies):
        assert list(files.list_(long, cookie)) == whole[position + 1 :]


def test_the_first_cookies_are_those_of_the_dots(files: RepositoryFileSystem) -> None:
    whole = list(files.list_(ROOT_INODE, 0))
    for start in range(FIRST_COOKIE):
        assert list(files.list_(ROOT_INODE, start)) == whole


def test_a_listing_survives_the_loss_of_its_catalog(
    files: RepositoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_tree, "OPEN_MAX", 1)
    monkeypatch.setattr(file_system, "_LIST_BATCH", 5)
    listing = files.list_(resolve(files, b"/long").inode, 0)
    seen = [next(listing)]
    resolve(files, b"/n/deep/m/leaf")  # pushes the root catalog out
    seen += listing
    assert len(seen) == LONG_DIRECTORY


# Directories above


@pytest.mark.parametrize(
    ("path", "above"),
    [
        (ROOT, ROOT),
        (b"/a", ROOT),
        (b"/a/b", b"/a"),
        (b"/n", ROOT),
        (b"/n/deep", b"/n"),
        (b"/n/deep/m", b"/n/deep"),
        (b"/old", ROOT),
        (b"/old/sub", b"/old"),
    ],
)
def test_a_directory_knows_the_one_above(
    any_files: RepositoryFileSystem, path: bytes, above: bytes
) -> None:
    inode = resolve(any_files, path).inode
    assert any_files.parent(inode) == resolve(any_files, above).inode


def test_no_question_reads_all_that_a_catalog_refers_to(
    files: RepositoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There may be thousands, and each directory that is listed is asked.
    monkeypatch.setattr(Catalog, "nested", None)
    for inode, path in paths_by_inode(files).items():
        above = resolve(files, path.rpartition(b"/")[0]).inode
        assert files.parent(inode) == above


def paths_by_inode(files: RepositoryFileSystem) -> dict[int, bytes]:
    return {
        found.inode: path for path, found in walk(files) if stat.S_ISDIR(found.mode)
    }


def test_a_forgotten_path_is_put_together_again(
    made: CatalogRepository,
) -> None:
    root = publish(made)
    known = file_system_of(made, root)
    by_inode = paths_by_inode(known)
    # Slots are numbered as they are met, so this one must meet them in that order.
    fresh = file_system_of(made, root)
    assert paths_by_inode(fresh) == by_inode
    fresh._view.directories.clear()
    for inode, path in by_inode.items():
        assert fresh.getxattr(inode, b"user.catalog_counters") == path


# Reading


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (b"/file", b"as it is\n"),
        (b"/empty", b""),
        (b"/large", LARGE),
        (b"/n/two", b"twins\n"),
        (b"/n/deep/m/leaf", b"leaf\n"),
        (b"/old/sub/x", b"x\n"),
        (b"/a/b/c/d", b"d\n"),
    ],
)
def test_content_is_read(
    any_files: RepositoryFileSystem, path: bytes, content: bytes
) -> None:
    inode = resolve(any_files, path).inode
    for _ in range(2):
        assert any_files.read(inode, 0, 1 << 20) == content


@pytest.fixture(scope="module")
def shared_files(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RepositoryFileSystem]:
    made = CatalogRepository(tmp_path_factory.mktemp("shared"))
    yield file_system_of(made, publish(made), open_max=3)
    made.close()


NEAR_BORDERS = st.sampled_from(CHUNK_ENDS).flatmap(
    lambda end: st.integers(max(end - 2, 0), end + 2)
)
OFFSETS = st.one_of(NEAR_BORDERS, st.integers(0, len(LARGE) + 10))


@given(offset=OFFSETS, size=st.one_of(NEAR_BORDERS, st.integers(0, 1 << 20)))
def test_any_range_of_a_chunked_file_is_that_of_its_bytes(
    shared_files: RepositoryFileSystem, offset: int, size: int
) -> None:
    inode = resolve(shared_files, b"/large").inode
    assert shared_files.read(inode, offset, size) == LARGE[offset : offset + size]


@pytest.mark.parametrize("offset", [9, 10, 4096, 1 << 40, 2**63 - 1])
def test_past_the_end_there_is_nothing(
    files: RepositoryFileSystem, made: CatalogRepository, offset: int
) -> None:
    inode = resolve(files, b"/file").inode
    before = made.downloads()
    assert files.read(inode, offset, 4096) == b""
    assert made.downloads() == before


def test_only_the_chunks_that_are_read_are_fetched(
    files: RepositoryFileSystem, made: CatalogRepository
) -> None:
    inode = resolve(files, b"/large").inode
    before = made.downloads()
    files.read(inode, 1000, 1)
    assert made.downloads() == before + 1
    files.read(inode, 2, 2)  # the last byte of one and the first of the next
    assert made.downloads() == before + 3


def test_chunk_lists_that_are_remembered_are_bounded(
    made: CatalogRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 3 * len(CHUNK_ENDS)
    monkeypatch.setattr(file_system, "_LAYOUT_CHUNKS_MAX", limit)
    names = [b"/large%d" % number for number in range(8)]
    rows = [entry(n, size=len(LARGE), flags=CHUNKED, hash=None) for n in names]
    chunks = [one for name in names for one in chunks_of(made, name)]
    files = file_system_of(made, made.add_catalog(catalog=rows, chunks=chunks))
    for name in names:
        assert files.read(resolve(files, name).inode, 0, 1 << 20) == LARGE
        remembered = sum(len(layout.chunks) for layout in files._layouts.values())
        assert len(CHUNK_ENDS) <= remembered <= limit


def test_descriptors_are_bounded(
    made: CatalogRepository,
) -> None:
    files = file_system_of(made, publish(made), open_max=2)
    before = descriptor_count()
    for path, found in list(walk(files)):
        if stat.S_ISREG(found.mode) and not path.startswith(b"/long"):
            files.read(found.inode, 0, 1 << 20)
    catalogs = 4
    assert descriptor_count() <= before + 2 + catalogs


def test_external_files_are_read_by_path(made: CatalogRepository) -> None:
    flags = Flag.FILE | Flag.EXTERNAL | Compression.NONE << 11
    content = b"from elsewhere"
    name = made.add_object(content, compression=Compression.NONE)
    root = made.add_catalog(
        catalog=[
            directory(b"/d"),
            entry(b"/d/f", flags=flags, size=len(content), hash=name.digest),
        ]
    )
    files = file_system_of(made, root)
    inode = resolve(files, b"/d/f").inode
    with pytest.raises(NoRouteError):
        files.read(inode, 0, 100)
    made.fetcher._external_client = made.source
    made.source.answer("d/f", content)
    assert files.read(inode, 0, 100) == content
    assert made.source.requests[-1] == "d/f"


# Many at once


def test_many_threads_see_the_same(
    made: CatalogRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = file_system_of(made, publish(made), open_max=1)
    expected = dict(walk(files))
    contents = {
        path: files.read(found.inode, 0, 1 << 20)
        for path, found in expected.items()
        if stat.S_ISREG(found.mode) and not path.startswith(b"/long")
    }
    for name in ("_DIRECTORIES_MAX", "_LAYOUTS_MAX"):
        monkeypatch.setattr(file_system, name, 2)
    monkeypatch.setattr(catalog_tree, "OPEN_MAX", 2)

    def look(number: int) -> None:
        if number % 8 == 0:
            assert dict(walk(files)) == expected
        for path, content in contents.items():
            found = resolve(files, path)
            assert found == expected[path]
            assert files.read(found.inode, 0, 1 << 20) == content

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(40)))


# What fails


@pytest.mark.parametrize("inode", [0, 2, 99, 1 << 32 | 999_999, 77 << 32 | 1, -1])
def test_an_inode_that_never_was_is_stale(
    files: RepositoryFileSystem, inode: int
) -> None:
    assert files.attributes(inode) is None
    for ask in (
        lambda: files.lookup(inode, b"x"),
        lambda: list(files.list_(inode, 0)),
        lambda: files.readlink(inode),
        lambda: files.read(inode, 0, 1),
        lambda: files.getxattr(inode, b"user.fqrn"),
        lambda: files.listxattr(inode),
        lambda: files.parent(inode),
    ):
        with pytest.raises(StaleInodeError):
            ask()


def test_only_directories_are_listed_and_only_files_are_read(
    files: RepositoryFileSystem,
) -> None:
    file_inode = resolve(files, b"/file").inode
    with pytest.raises(FormatError, match="not a directory"):
        files.lookup(file_inode, b"x")
    with pytest.raises(FormatError, match="not a directory"):
        list(files.list_(file_inode, 0))
    for path in (b"/a", b"/link"):
        with pytest.raises(FormatError, match="not a regular file"):
            files.read(resolve(files, path).inode, 0, 1)


@pytest.mark.parametrize(
    ("cells", "rows"),
    [
        ({"hash": None}, []),
        ({"flags": CHUNKED}, []),
        ({"flags": CHUNKED}, [chunk(b"/f", 0, 4), chunk(b"/f", 5, 5)]),
        ({"flags": CHUNKED}, [chunk(b"/f", 0, 6), chunk(b"/f", 5, 5)]),
        ({"flags": CHUNKED}, [chunk(b"/f", 0, 9)]),
        ({"flags": CHUNKED}, [chunk(b"/f", 0, 10, None)]),
        ({"flags": CHUNKED}, [chunk(b"/f", 0, 2**62), chunk(b"/f", 2**62, 1)]),
        ({"flags": CHUNKED, "size": -1}, [chunk(b"/f", 0, 10)]),
    ],
    ids=["no hash", "none", "hole", "overlap", "short", "hashless", "huge", "negative"],
)
def test_a_file_without_sound_content_is_never_read(
    made: CatalogRepository, cells: dict[str, object], rows: list[Cells]
) -> None:
    root = made.add_catalog(catalog=[entry(b"/f", **cells)], chunks=rows)
    files = file_system_of(made, root)
    with pytest.raises(FormatError):
        files.read(resolve(files, b"/f").inode, 0, 1)
    assert made.downloads() == 1


@pytest.mark.parametrize("announced", [8, 10, 1000])
def test_content_of_another_size_than_announced_is_refused(
    made: CatalogRepository, announced: int
) -> None:
    name = made.add_object(b"nine byte")
    root = made.add_catalog(catalog=[entry(b"/f", size=announced, hash=name.digest)])
    files = file_system_of(made, root)
    with pytest.raises(IntegrityError):
        files.read(resolve(files, b"/f").inode, 0, 1)
    assert not made.store.has(name)


def test_a_file_that_is_nowhere_fails_and_the_rest_goes_on(
    made: CatalogRepository,
) -> None:
    root = made.add_catalog(
        catalog=[entry(b"/gone"), file(made, b"/there", b"there\n")]
    )
    files = file_system_of(made, root)
    with pytest.raises(TransferError):
        files.read(resolve(files, b"/gone").inode, 0, 1)
    assert files.read(resolve(files, b"/there").inode, 0, 10) == b"there\n"


def test_below_a_catalog_that_is_nowhere_nothing_is_known(
    made: CatalogRepository,
) -> None:
    root = made.add_catalog(
        catalog=[directory(b"/n", flags=NESTED_POINT), entry(b"/f")],
        nested_catalogs=[nested(b"/n", "ab" * 20, 0)],
    )
    files = file_system_of(made, root)
    point = resolve(files, b"/n")
    with pytest.raises(TransferError):
        files.lookup(point.inode, b"x")
    with pytest.raises(TransferError):
        list(files.list_(point.inode, 0))
    assert files.lookup(ROOT_INODE, b"f") is not None


def test_an_entry_under_another_name_than_its_hash_is_refused(
    made: CatalogRepository,
) -> None:
    liar = entry(b"/asked", name=b"told")
    files = file_system_of(made, made.add_catalog(catalog=[liar]))
    with pytest.raises(FormatError, match="stored under the name"):
        files.lookup(ROOT_INODE, b"asked")


def test_directories_that_hold_each_other_end_a_climb(
    made: CatalogRepository,
) -> None:
    one, two = path_hash(b"/one"), path_hash(b"/one/two")
    circle = directory(b"/one", parent_1=two.md5_1, parent_2=two.md5_2)
    below = directory(b"/one/two", parent_1=one.md5_1, parent_2=one.md5_2)
    files = file_system_of(made, made.add_catalog(catalog=[circle, below]))
    found = files.lookup(ROOT_INODE, b"one")
    assert found is not None
    files._view.directories.clear()
    with pytest.raises(FormatError, match="not connected"):
        files.lookup(found.inode, b"x")


def test_a_directory_that_hangs_in_the_air_ends_a_climb(
    made: CatalogRepository,
) -> None:
    stray = directory(b"/nowhere/stray")
    files = file_system_of(made, made.add_catalog(catalog=[stray]))
    inode = 1 << 32 | 2
    with pytest.raises(FormatError, match="not connected"):
        files.lookup(inode, b"x")


def test_a_hostile_hardlink_group_gives_wrong_answers_at_worst(
    made: CatalogRepository,
) -> None:
    group = 1 << 32 | 2
    root = made.add_catalog(
        catalog=[
            file(made, b"/file", b"content", hardlinks=group),
            directory(b"/d", hardlinks=group),
            file(made, b"/d/x", b"x"),
        ]
    )
    files = file_system_of(made, root)
    for name in (b"file", b"d"):
        found = files.lookup(ROOT_INODE, name)
        assert found is not None
        for ask in (
            lambda inode=found.inode: files.read(inode, 0, 10),
            lambda inode=found.inode: list(files.list_(inode, 0)),
        ):
            try:
                ask()
            except CvmfsError:
                continue


@pytest.mark.parametrize(
    ("path", "text"),
    [(ROOT, "'/'"), (b"/file", "'/file'"), (b"/n/deep/m/leaf", "'/n/deep/m/leaf'")],
)
def test_messages_call_an_inode_by_its_path(
    any_files: RepositoryFileSystem, path: bytes, text: str
) -> None:
    assert any_files.describe(resolve(any_files, path).inode) == text


def test_messages_are_one_line_whatever_the_name(made: CatalogRepository) -> None:
    root = made.add_catalog(catalog=[entry(b"/a\n\x1b\xff")])
    files = file_system_of(made, root)
    inode = resolve(files, b"/a\n\x1b\xff").inode
    assert files.describe(inode) == "'/a\\n\\x1b\\udcff'"


def test_messages_call_a_lost_inode_by_its_number(
    files: RepositoryFileSystem,
) -> None:
    assert files.describe(77 << 32 | 1) == "inode 0x4d00000001"


def test_statistics_are_passed_on(files: RepositoryFileSystem) -> None:
    assert files.statfs() == FilesystemStatistics(1, 2, 3, 4)


def test_cached_files_need_no_server(tmp_path: Path, made: CatalogRepository) -> None:
    root = publish(made)
    first = file_system_of(made, root)
    assert first.read(resolve(first, b"/large").inode, 0, 1 << 20) == LARGE
    before = made.downloads()
    second = file_system_of(made, root)
    assert second.read(resolve(second, b"/large").inode, 0, 1 << 20) == LARGE
    assert made.downloads() == before
    assert os.path.isdir(tmp_path / "cache")
