"""Maps of user and group ids."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.configuration.id_map import IdMap
from cvmfsexec.errors import ConfigurationError

IDS = st.integers(0, 2**32 - 2)


def test_lines_comments_and_default_are_read() -> None:
    id_map = IdMap.parse("# comment\n\n1 2\n3 4\n1 5\n* 9\n", "map")
    assert [id_map.local(i) for i in (1, 3, 7)] == [5, 4, 9]


def test_ids_without_default_stay() -> None:
    assert IdMap.parse("1 2\n", "map").local(7) == 7


@pytest.mark.parametrize(
    "line",
    [
        "1",
        "1  2",
        " 1 2",
        "1 2 ",
        "1\t2",
        "1 *",
        "a b",
        "1 2 3",
        "-1 2",
        "1 4294967295",
    ],
)
def test_malformed_line_is_refused_with_its_number(line: str) -> None:
    with pytest.raises(ConfigurationError, match="map, line 2"):
        IdMap.parse(f"1 1\n{line}\n", "map")


@given(st.dictionaries(IDS, IDS), st.none() | IDS)
def test_written_map_parses_back(ids: dict[int, int], default: int | None) -> None:
    lines = [f"{a} {b}\n" for a, b in ids.items()]
    if default is not None:
        lines.append(f"* {default}\n")
    assert IdMap.parse("".join(lines), "map") == IdMap(ids, default)


@given(st.text() | st.text("0123456789 *#\n"))
def test_any_text_is_a_map_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        IdMap.parse(text, "map")
