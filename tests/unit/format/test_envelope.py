import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.envelope import (
    SignedLetter,
    compose_letter,
    letter_hash_matches,
    parse_letter,
)

LETTER = b"Cabc\nS1\n"
HASH = str(ContentHash.of(LETTER)).encode()

lines = st.text(st.characters(exclude_characters="\n", codec="latin-1")).filter(
    lambda line: line != "--"
)
letters = st.lists(lines).map(
    lambda some: "".join(f"{line}\n" for line in some).encode("latin-1")
)
hash_texts = st.builds(
    ContentHash, st.binary(min_size=20, max_size=20), st.sampled_from(HashAlgorithm)
).map(lambda content_hash: str(content_hash).encode())
signed_letters = st.builds(SignedLetter, letters, hash_texts, st.binary(min_size=1))


@given(signed_letters)
def test_a_composed_letter_parses_back(signed: SignedLetter) -> None:
    assert parse_letter(compose_letter(*signed)) == signed


@given(st.binary())
def test_any_bytes_are_a_letter_or_a_format_error(blob: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert compose_letter(*parse_letter(blob)) == blob


def test_the_letter_ends_at_the_first_separator() -> None:
    signature = b"binary\n--\nand more\n"
    blob = LETTER + b"--\n" + HASH + b"\n" + signature
    assert parse_letter(blob) == (LETTER, HASH, signature)


@pytest.mark.parametrize("line", [b"---", b"-- ", b" --", b"--\r", b"N--"])
def test_a_separator_is_a_whole_line(line: bytes) -> None:
    letter = LETTER + line + b"\n"
    assert parse_letter(compose_letter(letter, HASH, b"s")).letter == letter


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(LETTER, id="no-separator"),
        pytest.param(LETTER + b"--", id="separator-without-newline"),
        pytest.param(LETTER + b"--\n", id="no-hash-line"),
        pytest.param(LETTER + b"--\n" + HASH, id="hash-line-without-newline"),
        pytest.param(LETTER + b"--\n" + HASH + b"\n", id="no-signature"),
        pytest.param(LETTER + b"--\n" + HASH[1:] + b"\ns", id="short-hash"),
        pytest.param(LETTER + b"--\n" + HASH + b"-md5\ns", id="unknown-algorithm"),
        pytest.param(LETTER + b"--\n" + HASH + b"\r\ns", id="carriage-return"),
        pytest.param(LETTER + b"--\n\xff" + HASH + b"\ns", id="hash-not-ascii"),
    ],
)
def test_what_is_cut_short_or_malformed_is_refused(blob: bytes) -> None:
    with pytest.raises(FormatError):
        parse_letter(blob)


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_the_hash_line_names_its_algorithm(algorithm: HashAlgorithm) -> None:
    hash_text = str(ContentHash.of(LETTER, algorithm)).encode()
    assert letter_hash_matches(SignedLetter(LETTER, hash_text, b"s"))
    assert not letter_hash_matches(SignedLetter(LETTER + b"\n", hash_text, b"s"))


def test_the_right_digits_with_the_wrong_algorithm_do_not_match() -> None:
    assert not letter_hash_matches(SignedLetter(LETTER, HASH + b"-rmd160", b"s"))


@pytest.mark.parametrize("letter", [b"no newline", b"a\n--\nb\n", b"--\n", b"--"])
def test_a_letter_that_would_be_cut_elsewhere_is_not_composed(letter: bytes) -> None:
    with pytest.raises(FormatError, match="whole lines"):
        compose_letter(letter, HASH, b"s")
