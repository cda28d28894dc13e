import os
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.format.url_path import escape_path, unescape_path


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ("data/4f/6f1a-shake128C", "data/4f/6f1a-shake128C"),
        ("a b", "a%20b"),
        ("100%?#", "100%25%3F%23"),
        ("å\udcff\n", "%C3%A5%FF%0A"),
        ("A-Z:.@+-_~[],", "A-Z:.@+-_~[],"),
        ("\r\nHost: evil", "%0D%0AHost:%20evil"),
    ],
)
def test_paths_are_escaped(path: str, escaped: str) -> None:
    assert escape_path(path) == escaped


@given(st.binary(max_size=50))
def test_escaped_path_is_visible_ascii_and_gives_the_bytes_back(raw: bytes) -> None:
    escaped = escape_path(os.fsdecode(raw))
    assert escaped.isascii()
    assert " " not in escaped
    assert unescape_path(escaped) == unquote_to_bytes(escaped) == raw


def test_what_is_no_escape_stays() -> None:
    assert unescape_path("100%-%zz-%4") == b"100%-%zz-%4"
