import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.pac_answer import (
    ANSWER_CHARACTERS_MAX,
    ELEMENTS_MAX,
    parse_pac_answer,
)
from cvmfsexec.format.proxy_groups import DIRECT, format_proxy_list, parse_proxy_list


@pytest.mark.parametrize(
    ("answer", "proxies"),
    [
        ("PROXY a:3128", "http://a:3128"),
        ("PROXY a:1; PROXY b:2; DIRECT", "http://a:1;http://b:2;DIRECT"),
        ("PROXY a:1;PROXY b:2 ;;", "http://a:1;http://b:2"),
        ("  PROXY   a:1\t;\nDIRECT", "http://a:1;DIRECT"),
        ("PROXY http://a:1", "http://a:1"),
        ("PROXY [::1]:3128", "http://[::1]:3128"),
        ("PROXY 10.0.0.1:3128", "http://10.0.0.1:3128"),
        ("PROXY a:1; PROXY a:1; DIRECT; DIRECT", "http://a:1;DIRECT"),
        ("DIRECT", "DIRECT"),
        ("", "DIRECT"),
        ("  ", "DIRECT"),
        ("SOCKS s:1; PROXY a:1", "http://a:1"),
        ("SOCKS5 s:1", ""),
        ("HTTPS s:1; QUIC q:2", ""),
        ("null", ""),
        ("undefined", ""),
        (";", ""),
        ("PROXY", ""),
        ("PROXY DIRECT", ""),
        ("PROXY auto", ""),
        ("PROXY a:1|b:2", ""),
        ("PROXY a:99999", ""),
        ("PROXY a:1 b:2", ""),
        ("PROXY socks5://a:1", ""),
        ("PROXY a:1\x1b[2J", ""),
        ("PROXY ä:1; PROXY b:2", "http://b:2"),
        ("proxy a:1; direct", ""),
        ("<html>", ""),
    ],
)
def test_answer(answer: str, proxies: str) -> None:
    assert format_proxy_list(parse_pac_answer(answer)) == proxies


def test_every_proxy_is_a_group_of_its_own() -> None:
    groups = parse_pac_answer("PROXY a:1; PROXY b:2")
    assert [group.members for group in groups] == [("http://a:1",), ("http://b:2",)]


@pytest.mark.parametrize(
    "answer",
    [
        "PROXY a:1;" * ANSWER_CHARACTERS_MAX,
        "".join(f"PROXY a:{n + 1};" for n in range(ELEMENTS_MAX + 1)),
    ],
)
def test_endless_answer_is_refused(answer: str) -> None:
    with pytest.raises(FormatError):
        parse_pac_answer(answer)


@given(
    st.lists(
        st.sampled_from(["PROXY", "DIRECT", "SOCKS", "a:1", "auto", ";", "|", " ", "é"])
        | st.text(max_size=5)
    ).map("".join)
)
def test_any_text_is_a_list_or_a_format_error(text: str) -> None:
    try:
        groups = parse_pac_answer(text)
    except FormatError:
        return
    assert parse_proxy_list(format_proxy_list(groups)) == groups
    assert all(len(group.members) == 1 for group in groups)
    if any(group.members == (DIRECT,) for group in groups):
        words = [element.split() for element in text.split(";")]
        assert not text.strip() or [DIRECT] in words
