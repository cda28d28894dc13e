"""Packages of the original client: their names, and what is taken of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.distribution.client_packages import (
    PARTS,
    newest_part,
    official_places,
    parse_file_name,
    programs_of,
)
from cvmfsexec.distribution.machine_types import machine_type_of
from cvmfsexec.errors import FormatError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind, entry_path

EL9 = machine_type_of("rhel9-x86_64")
NAMES = [
    "cvmfs-2.9.4-1.el9.x86_64.rpm",
    "cvmfs-2.12.6-1.el9.x86_64.rpm",
    "cvmfs-2.12.6-1.el8.x86_64.rpm",
    "cvmfs-2.13.0-1.el9.aarch64.rpm",
    "cvmfs-config-default-9.0-1.noarch.rpm",
    "cvmfs-devel-2.14.0-1.el9.x86_64.rpm",
    "cvmfs-libs-2.12.6-1.el9.x86_64.rpm",
    "cvmfs-fuse3-2.12.6-1.el9.x86_64.rpm",
    "cvmfs-server-2.14.0-1.el9.x86_64.rpm",
    "fuse3-libs-3.10.2-8.el9.i686.rpm",
    "fuse3-libs-3.10.2-8.el9.x86_64.rpm",
    "fuse3-libs-3.10.2-9.el9.x86_64.rpm",
    "libfuse3-3_3.14.0-4_amd64.deb",
    "README",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAMES[1], ("cvmfs", "2.12.6", "1.el9", "x86_64")),
        ("cvmfs-libs_2.12.6~1+deb12_amd64.deb",
         ("cvmfs-libs", "2.12.6~1+deb12", "", "amd64")),
        ("libfuse3-3_3.14.0-4_arm64.deb", ("libfuse3-3", "3.14.0", "4", "arm64")),
        ("fuse3-libs-3.3.0-19.el8_10.x86_64.rpm",
         ("fuse3-libs", "3.3.0", "19.el8_10", "x86_64")),
        ("cvmfs-config-osg-2.5-1.noarch.rpm",
         ("cvmfs-config-osg", "2.5", "1", "noarch")),
        ("cvmfs.rpm", None),
        ("", None),
    ],
)  # fmt: skip
def test_file_names_are_read(name: str, expected: tuple[str, ...] | None) -> None:
    assert parse_file_name(name) == expected


@pytest.mark.parametrize(
    ("part", "machine", "version", "expected"),
    [
        ("cvmfs", "rhel9-x86_64", "", NAMES[1]),
        ("cvmfs", "rhel9-x86_64", "2.9.4", NAMES[0]),
        ("cvmfs", "rhel9-x86_64", "2.9", ""),
        ("cvmfs", "rhel8-x86_64", "", NAMES[2]),
        ("cvmfs", "rhel9-aarch64", "", NAMES[3]),
        ("cvmfs", "rhel10-x86_64", "", ""),
        ("cvmfs", "suse15-x86_64", "", ""),
        ("cvmfs-libs", "rhel9-x86_64", "", NAMES[6]),
        ("cvmfs-fuse3", "rhel9-x86_64", "2.12.6", NAMES[7]),
        ("fuse3-libs", "rhel9-x86_64", "2.12.6", "libfuse3-3_3.14.0-4_amd64.deb"),
        ("fuse3-libs", "rhel9-aarch64", "", ""),
    ],
)
def test_the_newest_package_that_fits_is_chosen(
    part: str, machine: str, version: str, expected: str
) -> None:
    assert newest_part(NAMES, part, machine_type_of(machine), version) == expected


def test_official_places_are_directories_of_https() -> None:
    for place in official_places(EL9):
        assert re.fullmatch(r"https://[a-z./0-9A-Z_]+/9/[A-Za-z0-9_/]*", place)
    assert official_places(machine_type_of("suse15-x86_64")) == ()


def file(path: str, content: bytes = b"x") -> ArchiveEntry:
    return ArchiveEntry(path.encode(), EntryKind.FILE, content)


def link(path: str, target: str) -> ArchiveEntry:
    return ArchiveEntry(path.encode(), EntryKind.LINK, target=target.encode())


def test_programs_and_libraries_go_to_usr() -> None:
    taken = programs_of(
        [
            ArchiveEntry(b"usr/bin", EntryKind.DIRECTORY),
            file("usr/bin/cvmfs2"),
            file("lib/x86_64-linux-gnu/libfuse3.so.3.14.0"),
            file("usr/libexec/cvmfs/authz/cvmfs_allow_helper"),
            file("etc/cvmfs/default.conf"),
            file("usr/share/doc/cvmfs/README"),
            file("usr/lib/.build-id/ab/cdef"),
            file("lib/udev/rules.d/x.rules"),
            file("sbin/mount.cvmfs"),
        ]
    )
    assert [entry.path.decode() for entry in taken] == [
        "usr/bin/cvmfs2",
        "usr/lib/x86_64-linux-gnu/libfuse3.so.3.14.0",
        "usr/libexec/cvmfs/authz/cvmfs_allow_helper",
    ]


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ("usr/lib64/a.so", "a.so.1", "../lib64/a.so.1"),
        ("usr/lib64/a.so", "/usr/lib64/a.so.1", "../lib64/a.so.1"),
        ("usr/lib64/a.so", "/lib64/a.so.1", "../lib64/a.so.1"),
        ("lib64/sub/a.so", "../b/a.so", "../../lib64/b/a.so"),
        ("usr/bin/tool", "../libexec/tool", "../libexec/tool"),
        ("usr/lib64/a.so", "/etc/passwd", None),
        ("usr/lib64/a.so", "../../../../etc/passwd", None),
        ("usr/lib64/a.so", "../share/x", None),
        ("usr/lib64/a.so", "/", None),
        ("usr/lib64/a.so", "", None),
    ],
)
def test_links_stay_in_the_dist_or_away(
    path: str, target: str, expected: str | None
) -> None:
    taken = programs_of([link(path, target)])
    assert [entry.target.decode() for entry in taken] == (
        [expected] if expected else []
    )


def test_two_for_one_place_are_refused() -> None:
    with pytest.raises(FormatError, match="twice"):
        programs_of([file("lib/a"), file("usr/lib/a")])


@given(st.text(max_size=60))
def test_any_name_is_read_or_not(name: str) -> None:
    found = parse_file_name(name)
    assert found is None or (found.name and found.version and found.machine)
    for part in PARTS:
        assert newest_part([name], part, EL9) in ("", name)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_no_link_leads_out(path: bytes, target: bytes) -> None:
    try:
        checked = entry_path(b"usr/lib/" + path)
    except FormatError:
        return
    entry = ArchiveEntry(checked, EntryKind.LINK, target=target)
    for taken in programs_of([entry]):
        parts = (taken.path.rpartition(b"/")[0] + b"/" + taken.target).split(b"/")
        depth = 0
        for part in parts:
            depth += -1 if part == b".." else part not in (b"", b".")
            assert depth >= 1
