"""Parameters: typed reading, templates, and the form of a dump."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.parameters import (
    Parameter,
    Parameters,
    expand_templates,
    format_parameter,
    quoted,
)

FQRN = "software.example.org"


def parameters(**values: str) -> Parameters:
    return Parameters.from_values(FQRN, values, "site.conf")


@pytest.mark.parametrize("text", ["yes", "on", "1", "true", "YES", "On", "TRUE"])
def test_on_words_are_true(text: str) -> None:
    assert parameters(X=text).boolean("X", default=False) is True


@pytest.mark.parametrize("text", ["no", "off", "0", "false", "2", "y", "enabled"])
def test_every_other_word_is_false(text: str) -> None:
    assert parameters(X=text).boolean("X", default=True) is False


def test_empty_counts_as_unset_to_typed_reading() -> None:
    given_ = parameters(X="")
    assert given_.boolean("X", default=True) is True
    assert given_.integer("X", 7) == 7
    assert given_.get("X", "d") == "d"
    assert given_.is_set("X")
    assert not given_.is_set("Y")


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-1", -1), ("+5", 5)])
def test_whole_numbers_are_read(text: str, number: int) -> None:
    assert parameters(X=text).integer("X", 9) == number


@pytest.mark.parametrize("text", ["1k", "1.5", "0x10", "1 2", "٣", "9" * 30, "--1"])
def test_bad_number_is_refused_with_name_value_and_file(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parameters(CVMFS_TIMEOUT=text).integer("CVMFS_TIMEOUT", 5)
    for fact in ("CVMFS_TIMEOUT=", text, "site.conf"):
        assert fact in str(caught.value)


@pytest.mark.parametrize(("minimum", "maximum"), [(5, None), (None, 3)])
def test_number_outside_of_its_range_is_refused(
    minimum: int | None, maximum: int | None
) -> None:
    with pytest.raises(ConfigurationError, match="than"):
        parameters(X="4").integer("X", 4, minimum=minimum, maximum=maximum)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("http://s/cvmfs/@fqrn@", f"http://s/cvmfs/{FQRN}"),
        ("@org@.x/@fqrn@;@org@", f"software.x/{FQRN};software"),
        ("@proxy@", "@proxy@"),
        ("user@host", "user@host"),
        ("a@b@fqrn@", "a@b@fqrn@"),
        ("@@fqrn@", "@@fqrn@"),
    ],
)
def test_templates_are_replaced_from_the_left(text: str, expanded: str) -> None:
    assert expand_templates(text, FQRN) == expanded
    assert parameters(X=text).get("X") == expanded


@given(st.text("@ab", max_size=12) | st.sampled_from(["@fqrn@", "@org@"]))
def test_expanding_twice_changes_nothing_more(text: str) -> None:
    once = expand_templates(text + "@fqrn@" + text, FQRN)
    assert expand_templates(once, FQRN) == once


def test_items_are_in_alphabetical_order_with_their_source() -> None:
    both = Parameters(FQRN, {"B": Parameter("2", "b"), "A": Parameter("1", "a")})
    assert list(both.items()) == [
        ("A", Parameter("1", "a")),
        ("B", Parameter("2", "b")),
    ]
    assert both.source("A") == "a"
    assert both.source("C") == ""
    assert both.variables() == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("/a/b:c.d_e-f,1", "X=/a/b:c.d_e-f,1    # from file"),
        ("", "X=    # from file"),
        ("a;b", "X='a;b'    # from file"),
        ("it's", "X='it'\\''s'    # from file"),
    ],
)
def test_dump_line_quotes_what_a_shell_would_split(value: str, line: str) -> None:
    assert format_parameter("X", Parameter(value, "file")) == line


@given(st.text())
def test_quoted_value_is_read_back_by_a_shell(value: str) -> None:
    assert shlex.split(f"X={quoted(value)}", posix=True) == [f"X={value}"]
