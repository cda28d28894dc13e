"""New revisions on the real kernel: what changes, what stays, what is asked for it."""

import mmap
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfsexec.fuse.protocol import Feature
from tests.support.fuse_mount import Mount
from tests.support.fuse_variants import VARIANTS
from tests.support.published import PublishedRepository, Tree, publish_tree
from tests.support.updating_mount import check, following

APPLIED = "New revision applied"
UP_TO_DATE = "Catalog up to date"
MARKER = {".cvmfscatalog": b""}
FALLBACKS = {
    name: VARIANTS[name]
    for name in (
        "all",
        "no NO_OPEN_SUPPORT",
        "no NO_OPENDIR_SUPPORT",
        "no DO_READDIRPLUS",
        "no CACHE_SYMLINKS",
        "no PARALLEL_DIROPS",
        "nothing",
        "Linux 3.10",
        "one thread",
    )
}
UNASKED = {"STATFS", "FORGET", "BATCH_FORGET"}
WALK = ("sh", "-c", "find . -printf '%p %i %m %s %T@ %l\\n' && tar cf - . | cksum")

BEFORE: Tree = {
    "top": b"top 1",
    "same": b"same",
    "tree": {
        "changing": b"changing 1",
        "same": b"same in tree",
        "link": "changing",
        "kept": {**MARKER, "leaf": b"leaf", "deep": {"er": b"er", "link": "er"}},
        "changed": {**MARKER, "leaf": b"leaf 1", "same": b"same too"},
    },
}
AFTER: Tree = {
    "top": b"top 2!",
    "same": b"same",
    "new": b"new",
    "tree": {
        "changing": b"changing 2!",
        "same": b"same in tree",
        "link": "same",
        "kept": {**MARKER, "leaf": b"leaf", "deep": {"er": b"er", "link": "er"}},
        "changed": {**MARKER, "leaf": b"leaf 2!", "same": b"same too"},
    },
}
"""All that is below ``kept``, and all that is called ``same``, is as it was."""

ONE_AFTER_THE_OTHER: list[Tree] = [
    BEFORE,
    AFTER,
    {"a": {"b": {"c": b"c", "d": {"e": b"e"}}}, "f": b"f", "l": "f"},
    {"a": {"b": {**MARKER, "c": b"c", "d": {"e": b"e"}}}, "f": {"g": b"g"}, "l": b"l"},
    {"a": {"b": {**MARKER, "c": {"x": b"x"}, "d": {**MARKER, "e": b"e"}}}, "f": "a"},
    {"a": {**MARKER, "b": {"c": b"c", "d": {**MARKER, "e": b"E"}}}, "g": {"g": b"g"}},
    {"h": {**MARKER, "b": {"c": b"c", "d": {**MARKER, "e": b"E"}}}, "a": b"a"},
    {"a": {"b": {"c": b"c", "d": {"e": b"e"}}}, "f": b"f", "l": "f"},
    {},
    BEFORE,
]
"""Types change, catalogs are made, merged, moved, and removed."""


@pytest.fixture
def repository(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, BEFORE)


@pytest.fixture
def mount(tmp_path: Path, repository: PublishedRepository) -> Iterator[Mount]:
    with following(tmp_path, repository) as mount:
        yield mount


def asked_during(mount: Mount, action: Callable[[], object]) -> dict[str, int]:
    before = mount.requests()
    action()
    after = mount.requests()
    asked = {name: after[name] - before.get(name, 0) for name in after}
    return {
        name: count for name, count in asked.items() if count and name not in UNASKED
    }


def shown(mount: Mount) -> Tree:
    """Return the whole mount as it shows itself."""

    def read(directory: str) -> Tree:
        tree: dict[str, Any] = {}
        for entry in os.scandir(directory):
            if entry.is_symlink():
                tree[entry.name] = os.readlink(entry.path)
            elif entry.is_dir():
                tree[entry.name] = read(entry.path)
            else:
                tree[entry.name] = Path(entry.path).read_bytes()
        return tree

    return mount.inside(lambda: read("."))


def asked_at_best(mount: Mount, action: Callable[[], object]) -> dict[str, int]:
    """Return what an action asks for in the best of some repetitions."""
    asked = [asked_during(mount, action) for _ in range(5)]
    return min(asked, key=lambda one: sum(one.values()))


class Holder:
    """A process in the mount that goes on when it is told to."""

    def __init__(self) -> None:
        self._begun, self._told = os.pipe()
        self._go_on, self._tell = os.pipe()
        self._answers: list[Any] = []

    def wait(self) -> None:
        """Say that everything is held, and wait; called by the process."""
        os.write(self._told, b"x")
        os.read(self._go_on, 1)

    def answer(
        self,
        mount: Mount,
        function: Callable[[], object],
        meanwhile: Callable[[], object],
    ) -> Any:  # noqa: ANN401
        """Return what a function answers in the mount; it calls ``wait`` on the way."""
        thread = threading.Thread(target=lambda: self._run(mount, function))
        thread.start()
        os.read(self._begun, 1)
        if not self._answers:
            meanwhile()
            os.write(self._tell, b"x")
        thread.join()
        for end in (self._begun, self._told, self._go_on, self._tell):
            os.close(end)
        return self._answers[0]

    def _run(self, mount: Mount, function: Callable[[], object]) -> None:
        try:
            self._answers.append(mount.inside(function))
        except BaseException as error:  # noqa: BLE001 -- shown by the test
            self._answers.append(error)
        finally:
            os.write(self._told, b"x")


def test_only_what_has_changed_is_asked_for(tmp_path: Path, mount: Mount) -> None:
    mount.run(*WALK)
    assert asked_at_best(mount, lambda: mount.run(*WALK)) == {}
    publish_tree(tmp_path, AFTER)
    assert asked_during(mount, lambda: check(mount)) == {}
    untouched = "find tree/kept same tree/same tree/changed/same -type f | xargs cat"
    assert asked_at_best(mount, lambda: mount.run("sh", "-c", untouched)) == {}
    asked = asked_during(mount, lambda: mount.run(*WALK))
    assert asked["READ"] == 4, "top, new, changing, changed/leaf"
    # A piece of a listing and its end, of the root, of tree and of changed.
    assert asked["READDIRPLUS"] == 6
    assert set(asked) <= {"READ", "READDIRPLUS", "GETATTR", "READLINK", "LOOKUP"}
    assert asked_at_best(mount, lambda: mount.run(*WALK)) == {}


@pytest.mark.parametrize("kernel", FALLBACKS)
def test_every_revision_is_shown_as_it_was_published(
    tmp_path: Path, repository: PublishedRepository, kernel: str
) -> None:
    with following(tmp_path, repository, **FALLBACKS[kernel]) as mount:
        for number, tree in enumerate(ONE_AFTER_THE_OTHER, 2):
            shown(mount)
            mount.inside(lambda: [os.path.lexists(name) for name in "afghl"])
            publish_tree(tmp_path, tree)
            assert check(mount) == APPLIED
            assert mount.ask("revision") == number
            assert shown(mount) == tree
            assert shown(mount) == tree, "from the kernel's caches"


def test_what_is_told_is_the_same_twice(mount: Mount) -> None:
    assert [check(mount), check(mount)] == [UP_TO_DATE] * 2


def test_open_mapped_and_deleted_files_keep_their_content(
    tmp_path: Path, mount: Mount
) -> None:
    holder = Holder()

    def hold() -> tuple[bytes, bytes, bytes, str]:
        changing = os.open("tree/changing", os.O_RDONLY)
        leaf = os.open("tree/changed/leaf", os.O_RDONLY)
        top = os.open("top", os.O_RDONLY)
        mapped = mmap.mmap(leaf, 0, prot=mmap.PROT_READ)
        holder.wait()
        held = os.pread(changing, 99, 0), mapped[:], os.pread(top, 99, 0)
        return *held, Path("tree/changing").read_text()

    def change() -> None:
        publish_tree(tmp_path, {"tree": {"changing": b"changing 2!"}})
        assert check(mount) == APPLIED

    held = (b"changing 1", b"leaf 1", b"top 1", "changing 2!")
    assert holder.answer(mount, hold, change) == held


def test_who_stands_in_a_directory_goes_on_standing_there(
    tmp_path: Path, mount: Mount
) -> None:
    holder = Holder()

    def stand() -> list[str]:
        os.chdir("tree/changed")
        before = os.getcwd()
        holder.wait()
        facts = [Path("leaf").read_text(), Path("../changing").read_text()]
        return [before, os.getcwd(), *facts, *sorted(os.listdir())]

    def change() -> None:
        publish_tree(tmp_path, AFTER)
        assert check(mount) == APPLIED

    place = "/mnt/tree/changed"
    names = [".cvmfscatalog", "leaf", "same"]
    facts = [place, place, "leaf 2!", "changing 2!", *names]
    assert holder.answer(mount, stand, change) == facts


def test_who_stands_in_a_removed_directory_does_no_harm(
    tmp_path: Path, mount: Mount
) -> None:
    holder = Holder()

    def stand() -> tuple[str, bool]:
        os.chdir("tree/changed")
        holder.wait()
        return Path("leaf").read_text(), os.path.exists("../../same")

    def change() -> None:
        publish_tree(tmp_path, {"same": b"same"})
        assert check(mount) == APPLIED

    assert holder.answer(mount, stand, change) == ("leaf 1", True)
    assert shown(mount) == {"same": b"same"}


def test_a_program_that_runs_is_still_where_it_was(tmp_path: Path) -> None:
    with open(os.path.realpath("/bin/sleep"), "rb") as stream:
        program = stream.read()
    source = tmp_path / "source" / "programs"
    source.mkdir(parents=True)
    (source / "sleep").write_bytes(program)
    (source / "sleep").chmod(0o755)
    (source / "other").write_bytes(b"1")
    repository = publish_tree(tmp_path, source)
    holder = Holder()

    def run() -> tuple[str, str]:
        sleeping = subprocess.Popen(["./sleep", "1000"])
        # This /proc knows the process by another number.
        exe = f"/proc/{Path('/proc/thread-self/children').read_text().strip()}/exe"
        before = os.readlink(exe)
        holder.wait()
        os.stat("sleep")
        after = os.readlink(exe)
        sleeping.kill()
        sleeping.wait()
        return before, after

    with following(tmp_path, repository) as mount:

        def change() -> None:
            (source / "other").write_bytes(b"2")
            publish_tree(tmp_path, source)
            assert check(mount) == APPLIED

        assert holder.answer(mount, run, change) == ("/mnt/sleep", "/mnt/sleep")


@pytest.mark.parametrize(
    "kernel", ["all", "no DO_READDIRPLUS", "no NO_OPENDIR_SUPPORT"]
)
def test_a_listing_under_way_ends_as_it_began(tmp_path: Path, kernel: str) -> None:
    names = [f"{number:05}" for number in range(6_000)]
    repository = publish_tree(tmp_path, {"large": dict.fromkeys(names, b"")})
    odd: Tree = {"large": {name: b"x" for name in names if int(name) % 2}}
    holder = Holder()

    def list_slowly() -> list[str]:
        with os.scandir("large") as entries:
            found = [next(entries).name]
            holder.wait()
            return sorted(found + [entry.name for entry in entries])

    with following(tmp_path, repository, **VARIANTS[kernel]) as mount:

        def change() -> None:
            publish_tree(tmp_path, odd)
            assert check(mount) == APPLIED

        assert holder.answer(mount, list_slowly, change) == names
        after = mount.inside(lambda: sorted(os.listdir("large")))
        sizes = mount.inside(
            lambda: {os.stat(f"large/{name}").st_size for name in after}
        )
        assert not mount.inside(lambda: os.path.exists("large/00000"))
    assert after == names[1::2]
    assert sizes == {1}


def test_hard_links_that_change_stay_links_of_each_other(tmp_path: Path) -> None:
    source = tmp_path / "source" / "links"
    source.mkdir(parents=True)
    (source / "one").write_bytes(b"1")
    (source / "two").hardlink_to(source / "one")
    repository = publish_tree(tmp_path, source)

    def facts() -> list[tuple[int, int, bytes]]:
        return [
            (os.stat(name).st_nlink, os.stat(name).st_ino, Path(name).read_bytes())
            for name in sorted(os.listdir())
        ]

    with following(tmp_path, repository) as mount:
        assert len(set(mount.inside(facts))) == 1
        (source / "three").hardlink_to(source / "one")
        publish_tree(tmp_path, source)
        check(mount)
        (three,) = set(mount.inside(facts))
        assert three[0] == 3
        (source / "one").write_bytes(b"two")
        (source / "two").unlink()
        publish_tree(tmp_path, source)
        check(mount)
        (two,) = set(mount.inside(facts))
        assert (two[0], two[2]) == (2, b"two")


def test_a_thousand_files_at_a_time(tmp_path: Path) -> None:
    def tree(version: int) -> Tree:
        return {
            "d": {
                f"{n}": b"%d" % (version + n) for n in range(version, version + 1000)
            },
            "kept": {**MARKER, "leaf": b"leaf"},
        }

    repository = publish_tree(tmp_path, tree(0))
    with following(tmp_path, repository) as mount:
        for version in (1, 500, 5000):
            shown(mount)
            publish_tree(tmp_path, tree(version))
            assert check(mount) == APPLIED
            assert asked_at_best(mount, lambda: mount.run("cat", "kept/leaf")) == {}
            assert shown(mount) == tree(version)


def test_where_the_kernel_cannot_be_told_it_keeps_names_for_a_time(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    def is_new() -> bool:
        return Path("top").read_bytes() == b"top 2!" and os.path.exists("new")

    with following(
        tmp_path, repository, mask=~Feature.NOTIFICATIONS, bounded_validity_s=1
    ) as mount:
        shown(mount)
        mount.inside(is_new)
        publish_tree(tmp_path, AFTER)
        assert check(mount) == APPLIED
        deadline_s = time.monotonic() + 60
        while not mount.inside(is_new):
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        time.sleep(1.1)
        assert shown(mount) == AFTER


def test_a_revision_blacklisted_while_mounted_is_shown_no_more(
    tmp_path: Path, repository: PublishedRepository
) -> None:
    blacklist = tmp_path / "blacklist"
    parameters = {"CVMFS_BLACKLIST": str(blacklist)}

    def outcome(mount: Mount) -> str:
        try:
            return mount.inside(lambda: Path("top").read_text())
        except OSError as error:
            return os.strerror(error.errno or 0)

    with following(tmp_path, repository, parameters=parameters) as mount:
        assert outcome(mount) == "top 1"
        blacklist.write_text(f"<{repository.fqrn} 2\n")
        assert check(mount) == "Failed"
        assert outcome(mount) == "Input/output error"
        publish_tree(tmp_path, AFTER)
        assert check(mount) == APPLIED
        assert outcome(mount) == "top 2!"
        blacklist.write_text(f"<{repository.fqrn} 3\n")
        assert check(mount) == "Failed"
        assert outcome(mount) == "Input/output error"
        blacklist.unlink()
        assert check(mount) == UP_TO_DATE
        assert outcome(mount) == "top 2!"


def test_modes_and_times_of_directories_are_news_too(
    tmp_path: Path, repository: PublishedRepository, mount: Mount
) -> None:
    def facts() -> tuple[int, float, int]:
        status = os.stat("tree/kept")
        return stat.S_IMODE(status.st_mode), status.st_mtime, status.st_ino

    before = mount.inside(facts)
    kept = repository.source / "tree" / "kept"
    kept.chmod(0o711)
    os.utime(kept, (5, 5))
    publish_tree(tmp_path, repository.source)
    assert check(mount) == APPLIED
    assert mount.inside(facts) == (0o711, 5.0, before[2])
