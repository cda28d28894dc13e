from pathlib import Path

import pytest

from cvmfsexec.namespaces.mount_table import Mount
from cvmfsexec.namespaces.native import keep_mounted, read_native
from cvmfsexec.namespaces.root import (
    NO_NATIVE,
    EntryKind,
    NativeTree,
    RootEntry,
    plan_root,
)
from cvmfsexec.namespaces.steps import (
    BindElsewhere,
    BindFile,
    BindTree,
    MakeDirectory,
    MakeLink,
)


def mount(number: int, parent: int, path: str, fstype: str = "fuse") -> Mount:
    return Mount(number, parent, "/", path, ("rw",), fstype, "source", ())


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("full")
    return tmp_path


def kept(host: Path, *wanted: str, table: tuple[Mount, ...] = ()) -> set[str]:
    return set(read_native(str(host), wanted, table).names)


def test_everything_is_kept_where_nothing_is_wanted(host: Path) -> None:
    assert read_native(str(host), (), ()) == NativeTree(
        str(host),
        (
            RootEntry("empty", EntryKind.DIRECTORY),
            RootEntry("file", EntryKind.OTHER),
            RootEntry("full", EntryKind.DIRECTORY),
            RootEntry("link", EntryKind.LINK, "full"),
        ),
    )


def test_what_is_wanted_and_of_no_use_is_not_kept(host: Path) -> None:
    everything = {"empty", "file", "full", "link"}
    assert kept(host, "full", "link", "absent") == everything
    assert kept(host, "empty", "file") == {"full", "link"}


def test_mounted_directory_may_be_empty(host: Path) -> None:
    table = (mount(2, 1, f"{host}/empty"),)
    assert "empty" in kept(host, "empty", table=table)


def test_trigger_of_an_automounter_is_no_mount(host: Path) -> None:
    trigger = mount(2, 1, f"{host}/empty", "autofs")
    assert "empty" not in kept(host, "empty", table=(trigger,))
    on_it = mount(3, 2, f"{host}/empty")
    assert "empty" in kept(host, "empty", table=(trigger, on_it))


def test_directory_of_an_automounter_is_not_listed(host: Path) -> None:
    table = (
        mount(2, 1, str(host), "autofs"),
        mount(3, 2, f"{host}/full"),
        mount(4, 1, f"{host}/empty"),  # below what the automounter covers
        mount(5, 3, f"{host}/full/deep"),
    )
    assert kept(host, table=table) == {"full"}
    assert read_native(str(host), (), table).is_automounted


def test_link_to_the_directory_is_followed(host: Path) -> None:
    link = host.parent / "cvmfs"
    link.symlink_to(host)
    assert read_native(str(link), (), ()).directory == str(host)


def test_file_and_nothing_at_all_are_no_directory(host: Path) -> None:
    assert read_native(str(host / "file"), (), ()) is NO_NATIVE
    assert read_native(str(host / "absent"), (), ()) is NO_NATIVE


def test_only_what_an_automounter_could_take_away_is_held() -> None:
    assert keep_mounted(NativeTree("/", (RootEntry("usr", EntryKind.DIRECTORY),))) == ()


def test_entries_of_the_host_are_planned_beside_ours() -> None:
    native = NativeTree(
        "/native",
        (
            RootEntry("a.b", EntryKind.DIRECTORY),
            RootEntry("alias", EntryKind.LINK, "a.b"),
            RootEntry("file", EntryKind.OTHER),
            RootEntry("x.y", EntryKind.DIRECTORY),
        ),
    )
    plan = plan_root((), ("/cvmfs/x.y",), has_new_proc=True, native=native)
    assert plan.building[:5] == (
        MakeDirectory("cvmfs"),
        MakeDirectory("cvmfs/x.y"),
        BindTree("/native/a.b", "cvmfs/a.b"),
        MakeLink("cvmfs/alias", "a.b"),
        BindFile("/native/file", "cvmfs/file"),
    )
    assert "bind /native/a.b and all below it" in [s.describe() for s in plan.building]


def test_bind_tells_what_it_does() -> None:
    assert BindElsewhere("/a", "/b").describe() == "bind /a at /b"
    told = BindElsewhere("/a", "/b", is_read_only=True).describe()
    assert told == "bind /a at /b, read-only"
