import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.names import (
    ROOT,
    PathHash,
    base_name,
    check_entry_name,
    check_fqrn,
    domain_of,
    is_below,
    normalize_path,
    parent_path,
    path_hash,
)


@pytest.mark.parametrize(
    ("path", "halves"),
    [
        (ROOT, (338333539836370388, 9098107892288553193)),
        (b"/hello", (-3942669397402136258, 344179701456797464)),
        (b"/sw", (748981868904704061, -2189496567014796459)),
        (b"/sw/.cvmfscatalog", (4274631607217774542, 7983434168347012117)),
    ],
)
def test_paths_hash_as_in_the_worked_repository(
    path: bytes, halves: tuple[int, int]
) -> None:
    assert path_hash(path) == PathHash(*halves)


@given(st.binary())
def test_the_two_halves_are_the_whole_md5(path: bytes) -> None:
    halves = path_hash(path)
    digest = b"".join(half.to_bytes(8, "little", signed=True) for half in halves)
    assert digest == hashlib.md5(path, usedforsecurity=False).digest()


@pytest.mark.parametrize(
    ("path", "parent", "name"),
    [
        (ROOT, ROOT, b""),
        (b"/a", ROOT, b"a"),
        (b"/a/b.c", b"/a", b"b.c"),
    ],
)
def test_a_path_is_its_parent_and_its_name(
    path: bytes, parent: bytes, name: bytes
) -> None:
    assert (parent_path(path), base_name(path)) == (parent, name)


@pytest.mark.parametrize(
    ("path", "directory", "below"),
    [
        (b"/a/b", b"/a", True),
        (b"/a", b"/a", True),
        (b"/a", ROOT, True),
        (ROOT, ROOT, True),
        (b"/ab", b"/a", False),
        (b"/a", b"/a/b", False),
    ],
)
def test_below_counts_whole_components(
    path: bytes, directory: bytes, *, below: bool
) -> None:
    assert is_below(path, directory) is below


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        (b"", ROOT),
        (b"/", ROOT),
        (b".", ROOT),
        (b"a/b/", b"/a/b"),
        (b"//a/./b", b"/a/b"),
        (b"/a/..b", b"/a/..b"),
    ],
)
def test_typed_paths_become_those_of_catalogs(typed: bytes, path: bytes) -> None:
    assert normalize_path(typed) == path


@pytest.mark.parametrize("typed", [b"..", b"/a/../b", b"/a\0b"])
def test_typed_paths_cannot_leave_the_repository(typed: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not a path inside"):
        normalize_path(typed)


@pytest.mark.parametrize("name", [b"a", b"...", b"a b\n", b"\xff", b"x" * 255])
def test_odd_entry_names_are_allowed(name: bytes) -> None:
    check_entry_name(name)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0", b"x" * 256])
def test_entry_names_that_leave_their_directory_are_refused(name: bytes) -> None:
    with pytest.raises(FormatError, match="forbidden entry name"):
        check_entry_name(name)


@pytest.mark.parametrize("fqrn", ["atlas.cern.ch", "a_b-c.d", "x", "9.9", "a" * 60])
def test_repository_names_are_allowed(fqrn: str) -> None:
    assert check_fqrn(fqrn) == fqrn


@pytest.mark.parametrize(
    "fqrn",
    ["", ".hidden.org", "-rf.org", "a..b", "a/b", "a b", "a\n", "ä.ch", "a" * 61],
)
def test_names_that_are_unsafe_in_paths_are_refused(fqrn: str) -> None:
    with pytest.raises(ConfigurationError, match="not a repository name"):
        check_fqrn(fqrn)


@pytest.mark.parametrize(
    ("fqrn", "domain"), [("atlas.cern.ch", "cern.ch"), ("alone", "")]
)
def test_the_domain_is_what_follows_the_first_label(fqrn: str, domain: str) -> None:
    assert domain_of(fqrn) == domain
