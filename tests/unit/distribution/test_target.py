"""Where the packages of distributions have the libraries of another machine."""

import pytest

from cvmfsexec.distribution.library_files import libraries_among
from cvmfsexec.distribution.target import LIBRARY, machine_of
from cvmfsexec.format.archive import ArchiveEntry, EntryKind


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("lib/aarch64-linux-gnu/libc.so.6", "libc.so.6"),
        ("usr/lib/aarch64-linux-gnu/libc.so.6", "libc.so.6"),
        ("usr/lib/powerpc64le-linux-gnu/libm.so.6", "libm.so.6"),
        ("lib/x86_64-linux-gnu/libgcc_s.so.1", "libgcc_s.so.1"),
        ("lib/ld-linux-aarch64.so.1", "ld-linux-aarch64.so.1"),
        ("lib64/libc.so.6", "libc.so.6"),
        ("usr/lib64/libgcc_s-11-20231218.so.1", "libgcc_s-11-20231218.so.1"),
        ("lib/aarch64-linux-gnu/gconv/UTF-16.so", None),
        ("usr/lib64/audit/sotruss-lib.so", None),
        ("etc/ld.so.conf.d/x.conf", None),
        ("usr/share/doc/libc6/README", None),
    ],
)
def test_libraries_are_found_where_distributions_have_them(
    path: str, name: str | None
) -> None:
    entry = ArchiveEntry(path.encode(), EntryKind.FILE, b"x")
    assert list(libraries_among([entry], LIBRARY)) == ([name] if name else [])


def test_a_link_has_the_content_of_what_it_leads_to() -> None:
    entries = [
        ArchiveEntry(
            b"lib/ld.so.1", EntryKind.LINK, target=b"/lib/x-linux-gnu/ld-2.so"
        ),
        ArchiveEntry(b"usr/lib/x-linux-gnu/ld-2.so", EntryKind.FILE, b"loader"),
        ArchiveEntry(b"lib/round.so", EntryKind.LINK, target=b"round.so"),
        ArchiveEntry(b"lib/gone.so", EntryKind.LINK, target=b"../../etc/passwd"),
    ]
    found = libraries_among(entries, LIBRARY)
    assert found == {"ld.so.1": b"loader", "ld-2.so": b"loader"}


@pytest.mark.parametrize("content", [b"", b"/* GNU ld script */", b"\x7fELF"])
def test_what_is_no_library_has_no_machine(content: bytes) -> None:
    assert machine_of(content) == ""
