import os

import pytest

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces.fuse_mount import TryFuse
from cvmfsexec.namespaces.root import (
    SCRATCH,
    EntryKind,
    RootEntry,
    list_own_directories,
    plan_binds,
    plan_root,
    read_entries,
)
from cvmfsexec.namespaces.steps import (
    BindElsewhere,
    BindFile,
    BindTree,
    MakeDirectory,
    MakeLink,
    MakeReadOnly,
    MakeWritable,
    MountProc,
    ReceiveOnly,
    ShowMount,
    StackRoot,
    SwapRoot,
)

ENTRIES = (
    RootEntry(".hidden", EntryKind.OTHER),
    RootEntry("bin", EntryKind.LINK, "usr/bin"),
    RootEntry("cvmfs", EntryKind.DIRECTORY),
    RootEntry("e2fs", EntryKind.DIRECTORY),
    RootEntry("proc", EntryKind.DIRECTORY),
    RootEntry("usr", EntryKind.DIRECTORY),
)


def test_every_entry_of_the_old_root_is_shown_as_what_it_is() -> None:
    plan = plan_root(ENTRIES, (), has_new_proc=False)
    assert plan.building[:5] == (
        BindFile("/.hidden", ".hidden"),
        MakeLink("bin", "usr/bin"),
        BindTree("/e2fs", "e2fs"),
        BindTree("/proc", "proc"),
        BindTree("/usr", "usr"),
    )


def test_new_proc_takes_the_place_of_the_old_one() -> None:
    plan = plan_root(ENTRIES, (), has_new_proc=True)
    assert MountProc("proc") in plan.foundation
    assert BindTree("/proc", "proc") not in plan.building


def test_directories_of_the_session_hide_those_of_the_host() -> None:
    plan = plan_root(ENTRIES, ("/cvmfs/a.b", "/e2fs/cache"), has_new_proc=True)
    made = [step.target for step in plan.building if isinstance(step, MakeDirectory)]
    assert made == ["cvmfs", "cvmfs/a.b", "e2fs", "e2fs/cache"]
    assert BindTree("/e2fs", "e2fs") not in plan.building


def test_cvmfs_is_there_without_any_repository() -> None:
    assert MakeDirectory("cvmfs") in plan_root((), (), has_new_proc=True).building


def test_root_is_swapped_when_all_is_in_it_and_sealed_last() -> None:
    building = plan_root(ENTRIES, ("/cvmfs/a.b",), has_new_proc=True).building
    assert building[-2:] == (SwapRoot(), MakeReadOnly())


def test_where_file_servers_will_mount_it_is_tried_before_anything_else() -> None:
    plan = plan_root(ENTRIES, ("/cvmfs/a.b",), has_new_proc=True, tries_fuse=True)
    assert plan.foundation[:3] == (ReceiveOnly(), TryFuse(), StackRoot())
    assert SwapRoot(covers_trial=True) in plan.building


def test_mounts_of_the_host_are_shown_at_their_mount_points() -> None:
    shown = {"/cvmfs/a.b": "/run/x/a.b"}
    building = plan_root((), tuple(shown), has_new_proc=True, shown=shown).building
    place, bind = MakeDirectory("cvmfs/a.b"), ShowMount("/run/x/a.b", "cvmfs/a.b")
    assert building.index(place) < building.index(bind) < building.index(SwapRoot())


@pytest.mark.parametrize(
    "mountpoint",
    ["", "/", "cvmfs/a", "/cvmfs", "/cvmfs/", "/cvmfs/../etc", "/cvmfs/./a", "//a"],
)
def test_path_that_is_no_mount_point_is_refused(mountpoint: str) -> None:
    with pytest.raises(NamespaceError, match="cannot be a mount point"):
        list_own_directories([mountpoint])


def test_scratch_image_gets_a_directory_at_the_top() -> None:
    plan = plan_root(ENTRIES, (SCRATCH,), has_new_proc=True)
    assert MakeDirectory("e2fs") in plan.building
    assert BindTree("/e2fs", "e2fs") not in plan.building


def test_root_is_sealed_again_after_binds() -> None:
    bind = BindElsewhere("/a", "/b")
    assert plan_binds(()) == ()
    first, second, last = plan_binds((bind,))
    assert isinstance(first, MakeWritable)
    assert second is bind
    assert isinstance(last, MakeReadOnly)


def test_every_step_tells_what_it_does() -> None:
    plan = plan_root(ENTRIES, ("/cvmfs/a.b",), has_new_proc=True)
    told = [step.describe() for step in (*plan.foundation, *plan.building)]
    assert all(told)
    assert "bind /usr and all below it" in told
    assert "link /bin -> usr/bin" in told
    assert "make directory /cvmfs/a.b" in told


def test_root_entries_are_those_of_the_machine() -> None:
    entries = {entry.name: entry for entry in read_entries()}
    assert set(entries) == set(os.listdir("/"))
    for name, entry in entries.items():
        path = "/" + name
        if os.path.islink(path):
            assert entry.points_to == os.readlink(path)
        else:
            is_directory = entry.kind is EntryKind.DIRECTORY
            assert is_directory == os.path.isdir(path)
