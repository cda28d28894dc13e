"""What was touched is kept once, in order, whatever traces repeat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format import touched_paths
from cvmfsexec.format.touched_paths import WHOLE, Extent, TouchedPaths

PATHS = st.sampled_from([b"", b"/a", b"/a/b", b"/a/c", b"/d", b"/d/b", b"/\n/b"])
EXTENTS = st.one_of(st.none(), st.tuples(st.integers(0, 3), st.integers(0, 3)))


def told(touched: TouchedPaths) -> list[tuple[bytes, tuple[Extent, ...]]]:
    return [
        (directory + b"/" + name if name else b"", extents)
        for directory, names in touched
        for name, extents in names
    ]


def test_order_is_that_of_the_first_touch_by_directory() -> None:
    touched = TouchedPaths()
    for path in (b"", b"/z/b", b"/a/c", b"/z/a", b"/top", b"/z/b"):
        touched.add(path)
    paths = [path for path, _ in told(touched)]
    assert paths == [b"", b"/top", b"/z/b", b"/z/a", b"/a/c"]


def test_what_may_be_a_directory_comes_once() -> None:
    touched = TouchedPaths()
    touched.add(b"")
    touched.add(b"/a/b/file", (0, 1))
    for path in (b"/a", b"/a/b", b"/a/b/c"):
        touched.add(path)
    assert list(touched.places()) == [b"", b"/a", b"/a/b", b"/a/b/c"]
    assert touched.path_count == 5


def test_parts_of_a_file_are_told_from_its_beginning() -> None:
    touched = TouchedPaths()
    assert touched.add(b"/f", (8, 4))
    for extent in ((0, 4), (8, 4), (0, 4), None, WHOLE):
        assert not touched.add(b"/f", extent)
    ((_, extents),) = told(touched)
    assert sorted(extents, key=repr) == sorted([(0, 4), WHOLE, (8, 4)], key=repr)
    assert [offset for offset, _ in extents] == [0, 0, 8]


@given(st.lists(st.tuples(PATHS, EXTENTS), max_size=30))
def test_nothing_is_lost_and_nothing_is_told_twice(
    touches: list[tuple[bytes, Extent | None]],
) -> None:
    touched = TouchedPaths()
    news = [path for path, extent in touches if touched.add(path, extent)]
    paths = [path for path, _ in told(touched)]
    assert sorted(news) == sorted(paths) == sorted({path for path, _ in touches})
    read = {(path, extent) for path, extent in touches if extent is not None}
    assert {(path, one) for path, all_ in told(touched) for one in all_} == read


@pytest.mark.parametrize("by_extent", [False, True])
def test_what_names_more_than_there_can_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, *, by_extent: bool
) -> None:
    monkeypatch.setattr(touched_paths, "TOUCHED_MAX", 10)
    touched = TouchedPaths()
    for number in range(10):
        touched.add(b"/f" if by_extent else b"/%d" % number, (number, 1))
    with pytest.raises(FormatError, match="more than 10 files"):
        touched.add(b"/f", (10, 1))
