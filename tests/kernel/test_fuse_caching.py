"""What the kernel asks twice, and what never again: the reason for a server of ours."""

import os
from typing import Any

import pytest

from cvmfsexec.fuse.protocol import Feature
from tests.support.fuse_mount import Mount, mounted
from tests.support.fuse_variants import VARIANTS
from tests.support.memory_file_system import MemoryFileSystem

DIRECTORIES, FILES = 10, 100
FIND = ("find", ".", "-printf", "%s %p\n")
TAR = ("sh", "-c", "tar cf - . | cksum")  # tar reads nothing if it sees /dev/null

ASKED_AGAIN: dict[str, set[str]] = {
    "no NO_OPEN_SUPPORT": {"OPEN", "RELEASE"},
    "no NO_OPENDIR_SUPPORT": {"OPENDIR", "RELEASEDIR"},
    "no CACHE_SYMLINKS": {"READLINK"},
    "no NOTIFICATIONS": {"OPENDIR", "RELEASEDIR", "READDIRPLUS"},
    "nothing": {"OPEN", "RELEASE", "OPENDIR", "RELEASEDIR", "READLINK"},
    "Linux 3.10": {"OPEN", "RELEASE", "OPENDIR", "RELEASEDIR", "READLINK"},
}
"""Requests by which a kernel without a feature is worse; nothing for the others."""


def _file_system() -> MemoryFileSystem:
    with open(os.path.realpath("/bin/sh"), "rb") as stream:
        shell = stream.read()
    directory = {b"file %d" % i: b"%d" % i * 100 for i in range(FILES)}
    tree = {b"directory %d" % i: directory for i in range(DIRECTORIES)}
    return MemoryFileSystem(tree | {b"link": "directory 1/file 2", b"sh": shell})


def _asked_during(mount: Mount, *commands: tuple[str, ...]) -> dict[str, int]:
    before = mount.requests()
    for command in commands:
        mount.run(*command)
    asked = {
        name: count - before.get(name, 0)
        for name, count in mount.requests().items()
        if count > before.get(name, 0)
    }
    asked.pop("STATFS", None)
    return asked


def _asked_again(mount: Mount, *commands: tuple[str, ...]) -> dict[str, int]:
    """Return what was asked in the best of some repetitions.

    A kernel may drop any cached page at any time, and some look for idle ones all the
    time (DAMON): now and then a page is read again, of local disks as well.
    """
    asked = [_asked_during(mount, *commands) for _ in range(5)]
    return min(asked, key=lambda one: sum(one.values()))


@pytest.mark.parametrize("kind", VARIANTS)
def test_a_second_walk_and_read_asks_for_nothing_that_can_be_kept(kind: str) -> None:
    with mounted(_file_system(), **VARIANTS[kind]) as mount:
        first = [mount.run(*FIND), mount.run(*TAR)]
        asked = _asked_again(mount, FIND, TAR)
        second = [mount.run(*FIND), mount.run(*TAR)]

    assert set(asked) == ASKED_AGAIN.get(kind, set())
    assert first == second


def test_a_first_walk_needs_few_requests() -> None:
    with mounted(_file_system()) as mount:
        asked = _asked_during(mount, FIND)

    # A piece of a listing, and one to hear that it was the last; older kernels cut
    # pieces of 4 KiB.
    assert asked["READDIRPLUS"] <= (DIRECTORIES + 1) * (FILES * 168 // 4096 + 2)
    assert sum(asked.values()) - asked["READDIRPLUS"] <= 3
    assert asked.get("LOOKUP", 0) == 0


def test_without_readdirplus_each_entry_is_looked_up_once() -> None:
    with mounted(_file_system(), mask=~Feature.DO_READDIRPLUS) as mount:
        first = _asked_during(mount, FIND)
        second = _asked_again(mount, FIND)

    assert first["LOOKUP"] == DIRECTORIES * (FILES + 1) + 2
    assert second == {}


def test_names_that_do_not_exist_are_asked_once() -> None:
    with mounted(_file_system()) as mount:
        probe = ("sh", "-c", "test ! -e nothing && test ! -e 'directory 1/nothing'")
        first = _asked_during(mount, probe)
        second = _asked_again(mount, probe)

    assert first["LOOKUP"] == 3
    assert second == {}


def test_a_program_that_ran_once_is_in_memory() -> None:
    with mounted(_file_system()) as mount:
        command = ("./sh", "-c", "exit 0")
        first = _asked_during(mount, command)
        second = _asked_again(mount, command)

    assert "READ" in first
    assert second == {}


def test_opening_is_refused_once_and_never_asked_again() -> None:
    def open_many() -> None:
        for number in range(FILES):
            os.close(os.open(f"directory 3/file {number}", os.O_RDONLY))
            os.listdir("directory 3")

    with mounted(_file_system()) as mount:
        mount.inside(open_many)
        asked = mount.requests()

    assert (asked["OPEN"], asked["OPENDIR"]) == (1, 1)
    assert "RELEASE" not in asked
    assert "FLUSH" not in asked or asked["FLUSH"] == 1


@pytest.mark.parametrize(
    ("server_options", "bytes_at_least"),
    [({}, 128 << 10), ({"mask": ~Feature.MAX_PAGES}, 64 << 10)],
    ids=["MAX_PAGES", "no MAX_PAGES"],
)
def test_reads_are_large(server_options: dict[str, Any], bytes_at_least: int) -> None:
    size = 8 << 20
    with mounted(MemoryFileSystem({b"big": bytes(size)}), **server_options) as mount:
        asked = _asked_during(mount, ("cksum", "big"))

    assert asked["READ"] <= size // bytes_at_least + 8


def test_a_large_directory_is_listed_in_one_go() -> None:
    class Counting(MemoryFileSystem):
        """Answers how many listings were begun where the kernel can ask for it."""

        def getxattr(self, inode: int, name: bytes, gid: int = 0) -> bytes | None:
            if name != b"user.listings":
                return super().getxattr(inode, name, gid)
            return b"%d" % self.listings_begun

    tree = {b"large": {b"%d" % i: b"" for i in range(20_000)}}
    with mounted(Counting(tree)) as mount:
        names = mount.inside(lambda: os.listdir("large"))
        begun = mount.inside(lambda: os.getxattr("large", "user.listings"))

    assert len(names) == 20_000
    assert begun == b"1"
