"""Which names the text of a file assigns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.configuration.assignments import assigned_names


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("A=1", ("A",)),
        ("  A = 1", ("A",)),
        ("export A=1", ("A",)),
        ("readonly\tA=1", ("A",)),
        ("eval A=1", ("A",)),
        ('[ -z "$A" ] && A=1', ()),
        ('if [ "$A" = "x" ]; then B=1; fi', ()),
        ("A=1; B=2", ("A",)),
        ("# A=1", ()),
        ("A # =1", ()),
        ("=1", ()),
        ("1A=1", ()),
        ("A+=1", ()),
        ("local A=1", ()),
        ("exportA=1", ("exportA",)),
        ("A", ()),
    ],
)
def test_one_word_left_of_the_first_equals_sign_counts(
    line: str, names: tuple[str, ...]
) -> None:
    assert assigned_names(line + "\n") == names


def test_each_name_counts_once_in_order_wherever_it_stands() -> None:
    text = "B=1\nif false; then\n  A=1\nfi\nB=2\n"
    assert assigned_names(text) == ("B", "A")


@given(st.text())
def test_names_of_any_text_are_identifiers(text: str) -> None:
    assert all(name.isidentifier() and name.isascii() for name in assigned_names(text))
