"""Any history of a repository, seen through a kernel that keeps all it is told."""

import itertools
import os
import shutil
import stat
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cvmfsexec.client.updates import Outcome
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.vfs.attributes import ROOT_INODE
from cvmfsexec.vfs.file_system import RepositoryFileSystem
from tests.support.catalog_files import directory, nested
from tests.support.catalog_repository import BIND_POINT, CatalogRepository
from tests.support.clients import open_client
from tests.support.kernel_model import KernelModel
from tests.support.published import Tree, publish_tree
from tests.unit.vfs.test_file_system import file_system_of

NAMES = ["a", "b"]
MARKER = ".cvmfscatalog"

names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
contents = st.binary(max_size=3)


class Node(NamedTuple):
    """What there is at a path.

    Attributes:
        mode: Type and permissions.
        content: Bytes of a file, target of a link, names in a directory.
    """

    mode: int
    content: bytes | tuple[bytes, ...]


class Listing(NamedTuple):
    """A directory that is being listed."""

    inode: int
    names: list[bytes]
    rest: list[bytes]
    cookie: int


def read_source(top: Path) -> dict[bytes, Node]:
    """Return all nodes of a directory by their paths, that of the top being empty."""
    nodes = {}
    for above, _, _ in os.walk(top):
        path = Path(above)
        for one in [path, *(each for each in path.iterdir() if not _is_dir(each))]:
            relative = os.fsencode(str(one.relative_to(top)))
            nodes[b"" if relative == b"." else relative] = _node(one)
    return nodes


def _is_dir(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _node(path: Path) -> Node:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Node(mode, os.fsencode(os.readlink(path)))
    if stat.S_ISDIR(mode):
        return Node(mode, tuple(sorted(os.fsencode(name) for name in os.listdir(path))))
    return Node(mode, path.read_bytes())


class History(RuleBasedStateMachine):
    """Publish, update, look, list, read, forget; in any order."""

    @initialize()
    def mount(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cvmfsexec-history-"))
        self.source = self.directory / "source" / "tree"
        (self.source / "a" / "b").mkdir(parents=True)
        (self.source / "a" / "b" / MARKER).touch()
        (self.source / "a" / "c").write_bytes(b"first")
        repository = publish_tree(self.directory, self.source)
        self.published = self.shown = read_source(self.source)
        self.is_published = True
        self.client = open_client(
            self.directory, repository, f"file://{repository.output}"
        )
        self.kernel = KernelModel(self.client.file_system())
        self.client.follow(self.kernel.file_system, self.kernel)
        self.held: list[tuple[int, Node]] = []
        self.listings: list[Listing] = []

    def teardown(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)

    # -- the publisher --------------------------------------------------------------

    @rule(path=paths, content=contents)
    def write(self, path: str, content: bytes) -> None:
        self._make_way(path).write_bytes(content)

    @rule(path=paths)
    def make_directory(self, path: str) -> None:
        place = self.source / path
        if not self._exists(path) or not _is_dir(place):
            self._make_way(path).mkdir()

    @rule(path=paths, points_to=names)
    def make_link(self, path: str, points_to: str) -> None:
        self._make_way(path).symlink_to(points_to)

    @rule(path=paths)
    def remove(self, path: str) -> None:
        if self._exists(path):
            _remove(self.source / path)

    @rule(path=paths, other=paths)
    def rename(self, path: str, other: str) -> None:
        old = self.source / path
        is_inside = f"{other}/".startswith(f"{path}/") or f"{path}/".startswith(
            f"{other}/"
        )
        if self._exists(path) and not is_inside:
            new = self._make_way(other)
            if self._exists(path):
                old.rename(new)

    @rule(path=paths, mode=st.sampled_from([0o711, 0o700, 0o555]))
    def change_mode(self, path: str, mode: int) -> None:
        place = self.source / path
        if self._exists(path) and not place.is_symlink():
            place.chmod(mode | stat.S_IWUSR if place.is_dir() else mode)

    @rule(path=paths, name=names)
    def add_hard_link(self, path: str, name: str) -> None:
        place = self.source / path
        other = place.with_name(name)
        if not self._exists(path) or os.path.lexists(other):
            return
        if place.is_file() and not place.is_symlink():
            other.hardlink_to(place)

    @rule(path=paths)
    def nest(self, path: str) -> None:
        if self._exists(path) and _is_dir(self.source / path):
            (self.source / path / MARKER).touch()

    @rule(path=paths)
    def merge(self, path: str) -> None:
        if self._exists(path) and _is_dir(self.source / path):
            (self.source / path / MARKER).unlink(missing_ok=True)

    @rule()
    def publish(self) -> None:
        publish_tree(self.directory, self.source)
        self.published = read_source(self.source)

    # -- the mount ------------------------------------------------------------------

    @rule()
    def update(self) -> None:
        outcome = self.client.updates.check_now()
        assert outcome in (Outcome.APPLIED, Outcome.UP_TO_DATE)
        self.shown = self.published
        self.all_is_shown()

    @rule()
    def publish_and_update(self) -> None:
        self.publish()
        self.update()

    @rule()
    def nothing_new_asks_for_nothing(self) -> None:
        self.update()
        before = self.kernel.asked
        assert self.client.updates.check_now() is Outcome.UP_TO_DATE
        self.all_is_shown()
        assert self.kernel.asked == before

    @rule()
    def all_is_shown(self) -> None:
        for path in self.shown:
            self._look_at(path)

    @rule(path=paths)
    def look_up(self, path: str) -> None:
        self._look_at(os.fsencode(path))

    @rule(path=paths)
    def open(self, path: str) -> None:
        node = self.shown.get(os.fsencode(path))
        inode = self.kernel.resolve(os.fsencode(path))
        if node is not None and inode is not None:
            self.held.append((inode, node))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        inode, node = data.draw(st.sampled_from(self.held))
        if isinstance(node.content, bytes):
            assert self._content(inode, node.mode) == node.content
        else:
            list(self.kernel.file_system.list_(inode, 0))  # any state of it
            self.kernel.file_system.parent(inode)

    @rule(path=paths)
    def begin_to_list(self, path: str) -> None:
        node = self.shown.get(os.fsencode(path))
        inode = self.kernel.resolve(os.fsencode(path))
        if inode is None or node is None or not isinstance(node.content, tuple):
            return
        first = next(iter(self.kernel.file_system.list_(inode, 0)), None)
        if first is not None:
            rest = sorted({*node.content} - {first[1]})
            self.listings.append(Listing(inode, [first[1]], rest, first[0]))

    @precondition(lambda self: self.listings)
    @rule()
    def end_the_listing(self) -> None:
        listing = self.listings.pop()
        left = self.kernel.file_system.list_(listing.inode, listing.cookie)
        assert sorted(name for _, name, _ in left) == listing.rest

    @rule(path=paths)
    def forget(self, path: str) -> None:
        directory, _, name = os.fsencode(path).rpartition(b"/")
        inode = self.kernel.resolve(directory)
        if inode is not None:
            self.kernel.forget(inode, name)

    def _look_at(self, path: bytes) -> None:
        """Compare what the kernel shows at a path with what was published."""
        node = self.shown.get(path)
        inode = self.kernel.resolve(path)
        if node is None:
            assert inode is None, path
            return
        assert inode is not None, path
        assert self.kernel.attributes(inode).mode == node.mode, path
        if isinstance(node.content, tuple):
            assert tuple(sorted(self.kernel.names(inode))) == node.content, path
        else:
            assert self._content(inode, node.mode) == node.content, path

    def _content(self, inode: int, mode: int) -> bytes:
        if stat.S_ISLNK(mode):
            return self.kernel.file_system.readlink(inode) or b""
        return bytes(self.kernel.file_system.read(inode, 0, 100))

    def _exists(self, path: str) -> bool:
        """Whether something is at a path; links are not followed."""
        place = self.source
        for name in path.split("/")[:-1]:
            place /= name
            if not _is_dir(place):
                return False
        return os.path.lexists(self.source / path)

    def _make_way(self, path: str) -> Path:
        """Return a place where nothing is, in a directory."""
        place = self.source
        for name in path.split("/")[:-1]:
            place /= name
            if not _is_dir(place):
                _remove(place)
                place.mkdir()
        if self._exists(path):
            _remove(self.source / path)
        return self.source / path


def _remove(path: Path) -> None:
    if _is_dir(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


FILES = 200


def test_readers_are_not_disturbed_by_changes(tmp_path: Path) -> None:
    """No answer is made of two revisions, however often they change."""

    def tree(version: int) -> Tree:
        names = {f"{n}": b"%d" % version for n in range(FILES)}
        changing: Tree = {"a": names, **({MARKER: b""} if version % 2 else {})}
        return {"changing": changing, f"only {version}": b"", "kept": {MARKER: b""}}

    repositories = [publish_tree(tmp_path, tree(version)) for version in range(4)]
    roots = [one.manifest.root_catalog for one in repositories]
    url = f"file://{repositories[-1].output}"
    with open_client(tmp_path, repositories[-1], url) as client:
        files = client.file_system()
        is_over = threading.Event()
        faults: list[str] = []

        def read(seed: int) -> None:
            while not is_over.is_set() and not faults:
                faults.extend(_mixture_in(files, seed))

        readers = [threading.Thread(target=read, args=(n,)) for n in range(4)]
        for reader in readers:
            reader.start()
        try:
            for number in range(40):
                files.show(roots[number % 4])
        finally:
            is_over.set()
            for reader in readers:
                reader.join()
    assert faults == []


def _mixture_in(files: RepositoryFileSystem, seed: int) -> list[str]:
    """Return what contradicts itself in what is told of a tree at the moment."""
    names = [name for _, name, _ in files.list_(ROOT_INODE, 0)]
    if len([name for name in names if name.startswith(b"only")]) != 1:
        return [f"{names} are of no revision"]
    changing = files.lookup(ROOT_INODE, b"changing")
    inner = changing and files.lookup(changing.inode, b"a")
    if inner is None:
        return ["a directory is missing"]
    cookie, found = 0, []
    while part := list(
        itertools.islice(files.list_(inner.inode, cookie), 1 + seed * 7)
    ):
        cookie = part[-1][0]
        found += part
    if {name for _, name, _ in found} != {b"%d" % n for n in range(FILES)}:
        return [f"a listing of {len(found)} names"]
    contents = {bytes(files.read(one.inode, 0, 9)) for _, _, one in found}
    return [] if len(contents) == 1 else [f"a listing of {contents}"]


def test_the_mode_of_a_directory_alone_is_news(made: CatalogRepository) -> None:
    def root_with(mode: int) -> ContentHash:
        return made.add_catalog(
            top=directory(b"", mode=mode), catalog=[directory(b"/d", mode=mode)]
        )

    modes = [0o40755, 0o40711, 0o40700]
    files = file_system_of(made, root_with(modes[0]))
    kernel = KernelModel(files)
    for mode in modes:
        changes = files.show(root_with(mode))
        assert changes.names == []
        kernel.tell(changes)
        inodes = [kernel.resolve(path) for path in (b"", b"/d")]
        assert [kernel.attributes(one or 0).mode for one in inodes] == [mode, mode]


def test_a_bind_mountpoint_that_binds_something_else_is_another_directory(
    made: CatalogRepository,
) -> None:
    def root_bound_to(*names: bytes) -> ContentHash:
        bound = made.add_catalog(catalog=[directory(name) for name in names])
        return made.add_catalog(
            catalog=[directory(b"/tag", flags=BIND_POINT), directory(b"/plain")],
            bind_mountpoints=[nested(b"/tag", str(bound), 0)],
        )

    plain = made.add_catalog(catalog=[directory(b"/tag"), directory(b"/tag/c")])
    roots = [root_bound_to(b"/a"), root_bound_to(b"/b"), plain, root_bound_to(b"/a")]
    files = file_system_of(made, roots[0])
    kernel = KernelModel(files)
    for root, name in zip(roots, (b"a", b"b", b"c", b"a"), strict=True):
        kernel.tell(files.show(root))
        tag = kernel.resolve(b"/tag")
        assert tag is not None
        assert kernel.names(tag) == [name]
        found = [n for n in (b"a", b"b", b"c") if kernel.lookup(tag, n) is not None]
        assert found == [name]
        assert (kernel.resolve(b"/plain") is None) == (root == plain)


# A publication takes 50 ms, most of it to sign.
History.TestCase.settings = settings(
    max_examples=max(settings().max_examples // 5, 10),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestHistory = History.TestCase
