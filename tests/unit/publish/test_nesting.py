import contextlib
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvmfsexec.errors import PublishError
from cvmfsexec.publish.nesting import Dirtab, transition_points, with_markers
from cvmfsexec.publish.scan import MARKER, scan
from tests.support.published import Tree, write_tree


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        (b"/software", b"/software", 1),
        (b"/software", b"/software/1.0", 0),
        (b"/software/", b"/software", 1),
        (b"//software//x", b"/software/x", 1),
        (b"/software/*", b"/software/1.0", 1),
        (b"/software/*", b"/software/.hidden", 1),
        (b"/software/*", b"/software/1.0/bin", 0),
        (b"/software/?", b"/software/1", 1),
        (b"/software/?", b"/software/10", 0),
        (b"/a.c", b"/abc", 0),
        (rb"/a\*c", b"/a*c", 1),
        (rb"/a\*c", b"/abc", 0),
        (rb"/a\\b", rb"/a\b", 1),
        (b"/sp ace", b"/sp ace", 1),
        (b" \t/indented", b"/indented", 1),
        ("/\xfc".encode("latin-1"), b"/\xfc", 1),
    ],
)
def test_a_pattern_names_directories(pattern: bytes, path: bytes, matches: int) -> None:
    assert Dirtab.parse(pattern).matches(path) is bool(matches)


@pytest.mark.parametrize(
    ("excluded", "path", "matches"),
    [
        (b"! *.git", b"/software/x.git", 0),
        (b"!*.git", b"/software/x.git", 0),
        (b"! *.git", b"/software/x.gitx", 1),
        (b"! /software/b*d", b"/software/b.d", 0),
        (b"! /soft*d", b"/software/b.d", 0),
        (b"! .git", b"/software/.git", 1),
    ],
)
def test_an_exclusion_may_cross_slashes(
    excluded: bytes, path: bytes, matches: int
) -> None:
    assert Dirtab.parse(b"/software/*\n" + excluded).matches(path) is bool(matches)


def test_comments_and_blank_lines_are_skipped() -> None:
    dirtab = Dirtab.parse(b"# /comment\n\n   \n  # too\n/a\n")
    assert [path for path in (b"/comment", b"/a", b"") if dirtab.matches(path)] == [
        b"/a"
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"relative", "line 1"),
        (b"/a\nsoftware/*", "line 2"),
        (b"/\n", "empty pattern"),
        (b"!\n", "empty pattern"),
        (rb"/a\b", "backslash"),
        (b"/a\\", "backslash"),
        (b"/a/*\n! /a//*/\n", "both names and excludes"),
    ],
)
def test_a_wrong_line_is_refused(text: bytes, complaint: str) -> None:
    with pytest.raises(PublishError, match=complaint):
        Dirtab.parse(text)


@given(st.binary(), st.binary(max_size=20))
def test_any_bytes_are_a_dirtab_or_refused(text: bytes, path: bytes) -> None:
    with contextlib.suppress(PublishError):
        Dirtab.parse(text).matches(path)


def plain_match(pattern: bytes, path: bytes, one: bytes) -> bool:
    """Match as the rules say, with no thought of time."""
    wildcards = {b"*": one + b"*", b"?": one}
    letters = (pattern[i : i + 1] for i in range(len(pattern)))
    expression = b"".join(wildcards.get(x, re.escape(x)) for x in letters)
    return re.fullmatch(expression, path, re.DOTALL) is not None


FEW_LETTERS = st.text("ab/*?", max_size=12).map(str.encode)
PATHS = st.text("ab/", max_size=12).map(str.encode)


@given(pattern=FEW_LETTERS, path=PATHS)
@example(pattern=b"/a*b/a*b", path=b"/aab/abab")
@settings(max_examples=1000)
def test_stars_match_what_they_may(pattern: bytes, path: bytes) -> None:
    pattern = b"/" + b"/".join(filter(None, (b"x" + pattern).split(b"/")))
    path = b"/x" + path
    matches = Dirtab.parse(pattern).matches(path)
    assert matches == plain_match(pattern, path, b"[^/]")
    excluded = Dirtab.parse(b"/x*\n/x*/*\n/x*/*/*\n! " + pattern + b"?")
    if Dirtab.parse(b"/x*\n/x*/*\n/x*/*/*").matches(path):
        crosses = plain_match(pattern + b"?", path, b".")
        assert excluded.matches(path) != crosses


def test_many_stars_take_no_time() -> None:
    pattern = b"/" + b"a*" * 500 + b"b"
    started_s = time.monotonic()
    assert not Dirtab.parse(pattern).matches(b"/" + b"a" * 5000)
    assert time.monotonic() - started_s < 2


TREE: Tree = {
    ".cvmfsdirtab": b"/sw/*\n! *.git\n",
    "plain": {"x": b""},
    "marked": {".cvmfscatalog": b"", "deep": {".cvmfscatalog": b""}},
    "sw": {"1.0": {}, "2.0": {".cvmfscatalog": b""}, "x.git": {}, "link": "1.0"},
}


def test_markers_and_patterns_make_transition_points(tmp_path: Path) -> None:
    write_tree(tmp_path, TREE)
    tree = scan(os.fsencode(tmp_path))
    points = transition_points(tree, Dirtab.parse(tree.read_dirtab()))
    assert points == {b"/marked", b"/marked/deep", b"/sw/1.0", b"/sw/2.0"}


def test_a_matched_directory_gets_a_marker_once(tmp_path: Path) -> None:
    write_tree(tmp_path, TREE)
    tree = scan(os.fsencode(tmp_path))
    points = transition_points(tree, Dirtab.parse(tree.read_dirtab()))
    marked = with_markers(tree, points)
    for path in points:
        names = [entry.name for entry in marked.directories[path].entries]
        assert names.count(MARKER) == 1
    assert not tree.directories[b"/sw/1.0"].has_marker
    assert not (tmp_path / "sw" / "1.0" / ".cvmfscatalog").exists()
    assert with_markers(tree, points) == marked
