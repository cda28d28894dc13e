import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.format.proxy_groups import parse_proxy_list
from cvmfsexec.network import discovery_memory
from cvmfsexec.network.discovery_memory import (
    FOUND_VALID_S,
    NOTHING_VALID_S,
    Finding,
    format_findings,
    key_of,
    parse_findings,
    recall,
    recall_list,
    remember,
    remember_list,
    turn,
)

KEY = key_of(["a", "b"])
GROUPS = parse_proxy_list("http://a:1|http://b:2;DIRECT")

findings = st.lists(
    st.builds(
        Finding,
        st.text("0123456789abcdef", min_size=64, max_size=64),
        st.integers(0, 10**12 - 1),
        st.sampled_from(["", "a:1", "a:1|b:2;DIRECT", "u:p@[::1]:1"]).map(
            parse_proxy_list
        ),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100),
    ),
    max_size=5,
)


@given(findings)
def test_findings_are_written_and_read_back(some: list[Finding]) -> None:
    assert parse_findings(format_findings(some)) == some


@given(st.text(alphabet=f"{KEY[:3]} 0123456789-;|http://a:1\n", max_size=200))
def test_any_text_is_findings(text: str) -> None:
    found = parse_findings(text)
    assert parse_findings(format_findings(found)) == found


@pytest.mark.parametrize(
    "line",
    ["", "x", f"{KEY} 1", f"{KEY} 1 socks://a", f"{KEY} 1 auto", f"{KEY} 1 ;", "\x00"],
)
def test_lines_that_make_no_sense_are_none(line: str) -> None:
    good = f"{KEY} 1 http://a:1 note"
    found = parse_findings(f"{line}\n{good}\n")
    assert [one.note for one in found] == ["note"]


def test_note_stays_on_its_line() -> None:
    text = format_findings([Finding(KEY, 1, GROUPS, "a\nb\x1b[2Jé")])
    assert text.count("\n") == 1
    assert parse_findings(text)[0].note == "a?b?[2J?"


@pytest.mark.parametrize(
    ("groups", "age_s", "is_valid"),
    [
        (GROUPS, 0, True),
        (GROUPS, FOUND_VALID_S - 1, True),
        (GROUPS, FOUND_VALID_S, False),
        (GROUPS, -1, False),
        ((), NOTHING_VALID_S - 1, True),
        ((), NOTHING_VALID_S, False),
    ],
)
def test_validity(groups: tuple[()], age_s: int, *, is_valid: bool) -> None:
    assert Finding(KEY, 1000, groups, "").is_valid(1000 + age_s) is is_valid


def test_findings_do_not_push_each_other_out(tmp_path: Path) -> None:
    directory, now_s = os.fspath(tmp_path / "made"), int(time.time())
    other = key_of(["other"])
    remember(directory, Finding(KEY, now_s, GROUPS, "first"))
    remember(directory, Finding(other, now_s, (), "second"))
    remember(directory, Finding(KEY, now_s, GROUPS, "third"))
    remember(directory, Finding(key_of(["old"]), 1, GROUPS, "old"))
    found = [recall(directory, key) for key in (KEY, other, key_of(["old"]))]
    assert [one.note if one else None for one in found] == ["third", "second", None]


def test_links_are_not_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("http://a:1\n")
    real.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(real)
    assert recall_list(os.fspath(real))[0] == parse_proxy_list("a:1")
    assert recall_list(os.fspath(link)) == ((), 0)


def test_list_is_written_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "list"
    remember_list(os.fspath(path), GROUPS)
    before = path.stat()
    remember_list(os.fspath(path), GROUPS)
    assert path.stat().st_ino == before.st_ino
    remember_list(os.fspath(path), GROUPS[:1])
    assert recall_list(os.fspath(path))[0] == GROUPS[:1]


@pytest.mark.parametrize("content", [b"", b"\xff", b"socks://a", b"auto", b"\n"])
def test_damaged_list_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list"
    path.write_bytes(content)
    path.chmod(0o600)
    assert recall_list(os.fspath(path))[0] == ()


def test_turn_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_memory, "LOCK_PATIENCE_S", 0.05)
    with turn(os.fspath(tmp_path)), turn(os.fspath(tmp_path)):
        pass


def test_lock_that_others_can_hold_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_memory, "LOCK_PATIENCE_S", 1e6)
    lock = tmp_path / "proxies.lock"
    lock.touch()
    lock.chmod(0o666)
    with turn(os.fspath(tmp_path)), turn(os.fspath(tmp_path)):
        pass
