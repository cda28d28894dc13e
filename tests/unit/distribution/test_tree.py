import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.distribution.tree import configuration_of, merge, write_dist
from cvmfsexec.errors import DistributionError, FormatError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind

FILE = ArchiveEntry(b"etc/cvmfs/a.conf", EntryKind.FILE, b"A=1\n")


def link(path: bytes, target: bytes) -> ArchiveEntry:
    return ArchiveEntry(b"etc/cvmfs/" + path, EntryKind.LINK, target=target)


def test_only_the_configuration_is_taken() -> None:
    entries = (
        FILE,
        ArchiveEntry(b"etc/cvmfs", EntryKind.DIRECTORY),
        ArchiveEntry(b"usr/bin/x", EntryKind.FILE, is_executable=True),
        ArchiveEntry(b"etc/cvmfsx", EntryKind.FILE),
        ArchiveEntry(b"usr/l", EntryKind.LINK, target=b"/"),
    )
    assert configuration_of(entries) == (FILE._replace(path=b"a.conf"),)


@pytest.mark.parametrize(
    ("path", "target", "written"),
    [
        (b"l", b"a.conf", b"a.conf"),
        (b"d/l", b"../a.conf", b"../a.conf"),
        (b"d/e/l", b"/etc/cvmfs/a.conf", b"../../a.conf"),
        (b"l", b"/etc/cvmfs/keys/", b"keys/"),
    ],
)
def test_links_within_the_configuration_are_kept(
    path: bytes, target: bytes, written: bytes
) -> None:
    assert configuration_of((link(path, target),))[0].target == written


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"l", b"/etc/passwd"),
        (b"l", b"/"),
        (b"l", b""),
        (b"l", b"../a"),
        (b"d/l", b"../../a"),
        (b"l", b"d/../../a"),
        (b"d/l", b"x/.."),
        (b"l", b"/etc/cvmfs/../passwd"),
        (b"l", b"a\0b"),
    ],
)
def test_links_out_of_it_are_refused(path: bytes, target: bytes) -> None:
    with pytest.raises(FormatError, match="not in its configuration"):
        configuration_of((link(path, target),))


@given(
    path=st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=3),
    target=st.lists(st.sampled_from([b"..", b"a", b"etc", b"", b"."]), max_size=4),
)
def test_an_accepted_link_ends_in_the_configuration(
    path: list[bytes], target: list[bytes]
) -> None:
    name = b"/".join(path)
    try:
        taken = configuration_of((link(name, b"/".join(target)),))[0]
    except FormatError:
        return
    end = os.path.normpath(b"/top/" + os.path.dirname(name) + b"/" + taken.target)
    assert (end + b"/").startswith(b"/top/")


def test_packages_may_agree_but_not_contradict_each_other() -> None:
    other = FILE._replace(path=b"b")
    assert merge([(FILE, other), (FILE,)]) == (FILE, other)
    with pytest.raises(FormatError, match="different"):
        merge([(FILE,), (FILE._replace(content=b"A=2\n"),)])
    with pytest.raises(FormatError, match="below"):
        merge([(FILE,), (FILE._replace(path=FILE.path + b"/b"),)])


def test_a_dist_is_what_was_given(tmp_path: Path) -> None:
    dist = tmp_path / "new/dist"
    program = ArchiveEntry(b"p", EntryKind.FILE, b"#!", is_executable=True)
    directory = ArchiveEntry(b"d/e", EntryKind.DIRECTORY)
    write_dist(str(dist), (FILE, program, directory, link(b"l", b"a.conf")))
    assert (dist / "etc/cvmfs/a.conf").read_bytes() == b"A=1\n"
    assert (dist / "etc/cvmfs/l").read_bytes() == b"A=1\n"
    assert os.access(dist / "p", os.X_OK)
    assert (dist / "d/e").is_dir()
    assert os.listdir(dist.parent) == ["dist"]


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o755), (0o077, 0o700)])
def test_only_the_user_can_write_it(tmp_path: Path, mask: int, mode: int) -> None:
    directory = ArchiveEntry(b"var/lib/cvmfs", EntryKind.DIRECTORY)
    before = os.umask(mask)
    try:
        write_dist(str(tmp_path / "dist"), (FILE, directory))
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    for path in (tmp_path / "dist").rglob("*"):
        expected = mode if path.is_dir() else mode & 0o666
        assert path.stat().st_mode & 0o777 == expected, path


def test_what_is_there_stays(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "mine").touch()
    with pytest.raises(DistributionError, match="already exists"):
        write_dist(str(dist), (FILE,))
    assert os.listdir(dist) == ["mine"]
    assert os.listdir(tmp_path) == ["dist"]


def test_what_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    too_long = ArchiveEntry(b"n" * 300, EntryKind.FILE)
    with pytest.raises(DistributionError, match="cannot write"):
        write_dist(str(tmp_path / "dist"), (FILE, too_long))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_one_left_goes_but_not_what_is_in_use(tmp_path: Path) -> None:
    left, used, new = (tmp_path / f".dist.making-{number}" for number in range(3))
    for one in (left, used, new):
        one.mkdir()
        (one / "half").touch()
    for one in (left, used):
        os.utime(one, (0, 0))
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        write_dist(str(tmp_path / "dist"), (FILE,))
    finally:
        os.close(descriptor)
    assert sorted(os.listdir(tmp_path)) == [used.name, new.name, "dist"]
