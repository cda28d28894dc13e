"""The kernel's mount table, read."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.namespaces.mount_table import (
    Mount,
    escape,
    mount_of,
    parse_mount_table,
    read_mount_table,
)

LINE = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"


def test_a_line_is_understood() -> None:
    (mount,) = parse_mount_table(LINE + "\n")
    assert mount == Mount(
        number=36,
        parent=35,
        root="/mnt1",
        mountpoint="/mnt2",
        options=("rw", "noatime"),
        fstype="ext3",
        source="/dev/root",
        super_options=("rw", "errors=continue"),
        propagation=("master:1",),
    )


def test_a_line_may_have_no_or_many_optional_fields_and_no_source() -> None:
    text = "1 0 0:1 / /a rw - fuse  rw\n2 0 0:2 / /b rw shared:1 master:2 - tmpfs t rw"
    mounts = parse_mount_table(text)
    assert [mount.source for mount in mounts] == ["", "t"]
    assert [mount.is_shared for mount in mounts] == [False, True]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        LINE.replace(" - ", " "),
        LINE.replace("36", "x"),
        LINE + " more",
        LINE.replace("/mnt2", "/mnt\\777"),
    ],
    ids=["no fields", "no separator", "no number", "too many", "unknown escape"],
)
def test_a_line_of_something_else_is_refused(line: str) -> None:
    with pytest.raises(FormatError):
        parse_mount_table(line)


@given(path=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_an_escaped_path_is_read_back(path: str) -> None:
    line = LINE.replace("/mnt2", escape("/" + path))
    assert parse_mount_table(line)[0].mountpoint == "/" + path


@given(text=st.text())
def test_any_text_is_a_table_or_a_format_error(text: str) -> None:
    with contextlib.suppress(FormatError):
        parse_mount_table(text)


@pytest.mark.parametrize(
    ("fstype", "is_fuse"), [("fuse", True), ("fuse.sshfs", True), ("fusectl", False)]
)
def test_programs_serve_fuse_file_systems_only(fstype: str, *, is_fuse: bool) -> None:
    mount = parse_mount_table(LINE.replace("ext3", fstype))[0]
    assert mount.is_fuse is is_fuse


@pytest.mark.parametrize(
    ("directory", "is_below"),
    [("/", True), ("/mnt2", False), ("/mnt", False), ("/mnt2/", False)],
)
def test_below_means_in_not_at_or_beside(directory: str, *, is_below: bool) -> None:
    assert parse_mount_table(LINE)[0].is_below(directory) is is_below


def test_this_machines_table_is_understood() -> None:
    assert any(mount.mountpoint == "/" for mount in read_mount_table())


def test_a_file_is_in_the_mount_that_is_seen_there() -> None:
    for path in ("/", "/proc/self"):
        mount = mount_of(path)
        assert mount is not None
        assert mount.mountpoint == os.path.dirname(path)
    assert mount_of("/nowhere") is None
