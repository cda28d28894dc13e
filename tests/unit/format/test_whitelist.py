import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError, MalformedWhitelistError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.whitelist import (
    Whitelist,
    format_fingerprint,
    format_time,
    parse_fingerprint,
)
from tests.support.fixtures import REPOSITORIES, fixture_repository

DIGITS = "3c4900112233445566778899aabbccddeeff00a1"
COLONS = "3C:49:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:A1"
HEAD = "20241018093012\nE20241117093012\nNrepo.example.org\n"
EXPIRY_HOUR_S = 1731834000  # 2024-11-17 09:00:00 UTC

fingerprints = st.builds(
    ContentHash, st.binary(min_size=20, max_size=20), st.sampled_from(HashAlgorithm)
)
times = st.from_regex(r"[0-9]{14}", fullmatch=True)
whitelists = st.builds(
    Whitelist,
    created_at=times,
    expires_at=times,
    fqrn=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    fingerprints=st.lists(fingerprints).map(tuple),
    options=st.lists(st.sampled_from(["Vpkcs7", "Wcachain"])).map(tuple),
)


def parse(text: str) -> Whitelist:
    return Whitelist.parse(text.encode())


@given(whitelists)
def test_a_written_whitelist_parses_back(whitelist: Whitelist) -> None:
    assert Whitelist.parse(whitelist.serialize()) == whitelist


@given(st.binary() | st.binary().map(lambda data: HEAD.encode() + data))
def test_any_bytes_are_a_whitelist_or_malformed(letter: bytes) -> None:
    with contextlib.suppress(MalformedWhitelistError):
        whitelist = Whitelist.parse(letter)
        assert Whitelist.parse(whitelist.serialize()) == whitelist


@pytest.mark.parametrize("fqrn", REPOSITORIES)
def test_whitelists_of_the_original_are_written_byte_for_byte(fqrn: str) -> None:
    blob = (fixture_repository(fqrn) / ".cvmfswhitelist").read_bytes()
    letter = parse_letter(blob).letter
    whitelist = Whitelist.parse(letter)
    assert whitelist.fqrn == fqrn
    assert whitelist.serialize() == letter


def test_lines_that_are_no_fingerprints_are_ignored() -> None:
    whitelist = parse(f"{HEAD}\nold key:\n{COLONS} # comment \xfc\n\n{DIGITS}-md5\n")
    assert whitelist.fingerprints == (ContentHash.parse(DIGITS),)
    assert whitelist.options == ()


@pytest.mark.parametrize("option", ["Vpkcs7", "Wcachain", "Vsomething"])
@pytest.mark.parametrize("text", ["{option}\n{key}\n", "{key}\n{option}"])
def test_options_are_kept_wherever_they_stand(text: str, option: str) -> None:
    whitelist = parse(HEAD + text.format(option=option, key=COLONS))
    assert whitelist.options == (option,)
    assert len(whitelist.fingerprints) == 1


def test_a_whitelist_may_list_nobody() -> None:
    assert parse(HEAD[:-1]).fingerprints == ()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("\n" + HEAD, id="blank-line-first"),
        pytest.param(HEAD.replace("\n", "\r\n"), id="carriage-returns"),
        pytest.param(HEAD[1:], id="13-digits"),
        pytest.param("1" + HEAD, id="15-digits"),
        pytest.param(HEAD.replace("E", ""), id="expiry-without-letter"),
        pytest.param(HEAD.replace("E", "E1"), id="expiry-too-long"),
        pytest.param(HEAD.replace("Nrepo.example.org", "N"), id="no-name"),
        pytest.param(HEAD.replace("repo", "re po"), id="blank-in-name"),
        pytest.param(HEAD.replace("repo", "r\xe9po"), id="name-not-ascii"),
        pytest.param(HEAD.replace("Nrepo.example.org\n", ""), id="two-lines"),
    ],
)
def test_the_first_three_lines_must_be_right(text: str) -> None:
    with pytest.raises(MalformedWhitelistError):
        parse(text)


@pytest.mark.parametrize(
    ("now_s", "expired"),
    [
        pytest.param(EXPIRY_HOUR_S - 0.001, False, id="hour-before"),
        pytest.param(EXPIRY_HOUR_S, True, id="hour-begins"),
        pytest.param(EXPIRY_HOUR_S + 1811, True, id="a-second-before-the-time-itself"),
        pytest.param(EXPIRY_HOUR_S + 366 * 86400, True, id="a-year-later"),
        pytest.param(0, False, id="clock-not-set"),
    ],
)
def test_a_whitelist_expires_when_its_last_hour_begins(
    now_s: float, *, expired: bool
) -> None:
    assert parse(HEAD).is_expired(now_s) is expired


def test_times_are_written_in_utc() -> None:
    assert format_time(EXPIRY_HOUR_S + 1812.9) == "20241117093012"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (COLONS, DIGITS),
        (DIGITS, DIGITS),
        (DIGITS.upper() + "#old", DIGITS),
        (COLONS + "\tcomment", DIGITS),
        (COLONS + "-SHAKE128 # comment", f"{DIGITS}-shake128"),
        (COLONS + "-rmd160", f"{DIGITS}-rmd160"),
    ],
)
def test_fingerprints_are_read_in_all_their_forms(text: str, written: str) -> None:
    assert str(parse_fingerprint(text)) == written


@pytest.mark.parametrize("text", ["", "#", " " + COLONS, COLONS[:-1], COLONS + "-MD5"])
def test_a_line_that_is_no_fingerprint_is_none(text: str) -> None:
    assert parse_fingerprint(text) is None


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        (HashAlgorithm.SHA1, COLONS),
        (HashAlgorithm.RMD160, COLONS + "-RMD160"),
        (HashAlgorithm.SHAKE128, COLONS + "-SHAKE128"),
    ],
)
def test_fingerprints_are_written_like_the_original(
    algorithm: HashAlgorithm, text: str
) -> None:
    assert format_fingerprint(ContentHash(bytes.fromhex(DIGITS), algorithm)) == text


def test_a_malformed_whitelist_is_a_format_error() -> None:
    assert issubclass(MalformedWhitelistError, FormatError)
