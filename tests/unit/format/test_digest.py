import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.digest import (
    ContentHash,
    HashAlgorithm,
    Hasher,
    ObjectKind,
    new_hasher,
)

DIGITS = "4f6f1a0123456789abcdef0123456789abcdef01"
EMPTY_OBJECT = bytes.fromhex("789c030000000001")

content_hashes = st.builds(
    ContentHash, st.binary(min_size=20, max_size=20), st.sampled_from(HashAlgorithm)
)


@given(content_hashes)
def test_a_written_hash_parses_back(content_hash: ContentHash) -> None:
    assert ContentHash.parse(str(content_hash)) == content_hash


@given(st.text())
def test_any_text_is_a_hash_or_a_format_error(text: str) -> None:
    with contextlib.suppress(FormatError):
        assert str(ContentHash.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(DIGITS[:-1], id="short"),
        pytest.param(DIGITS + "0", id="long"),
        pytest.param(DIGITS.upper(), id="upper-case"),
        pytest.param(DIGITS + "-md5", id="unknown-suffix"),
        pytest.param(DIGITS + "-shake128C", id="letter-of-the-kind"),
        pytest.param(DIGITS + "\n", id="newline"),
        pytest.param(DIGITS[:-1] + "\N{ARABIC-INDIC DIGIT ZERO}", id="no-ascii"),
    ],
)
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="not a content hash"):
        ContentHash.parse(text)


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        (HashAlgorithm.SHA1, "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"),
        (HashAlgorithm.RMD160, "fcdb20b894f31f1306d56294c049ca7293dde0fc-rmd160"),
        (HashAlgorithm.SHAKE128, "28d94b83b7229b331fc601362b8e272e02665122-shake128"),
    ],
)
def test_the_empty_file_has_the_hash_of_the_reference(
    algorithm: HashAlgorithm, text: str
) -> None:
    assert str(ContentHash.of(EMPTY_OBJECT, algorithm)) == text


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@given(pieces=st.lists(st.binary()))
def test_hashing_in_pieces_is_hashing_the_whole(
    algorithm: HashAlgorithm, pieces: list[bytes]
) -> None:
    hasher: Hasher = new_hasher(algorithm)
    for piece in pieces:
        hasher.update(piece)
    assert hasher.content_hash() == ContentHash.of(b"".join(pieces), algorithm)


def test_rmd160_works_where_openssl_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *, usedforsecurity: bool) -> None:
        assert not usedforsecurity
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", refuse)
    text = "fcdb20b894f31f1306d56294c049ca7293dde0fc-rmd160"
    assert str(ContentHash.of(EMPTY_OBJECT, HashAlgorithm.RMD160)) == text


def test_only_twenty_zero_bytes_are_null() -> None:
    assert ContentHash(bytes(20)).is_null
    assert ContentHash.parse("0" * 40).is_null
    assert not ContentHash(bytes(19) + b"\1").is_null


@pytest.mark.parametrize(
    ("kind", "algorithm", "path"),
    [
        (ObjectKind.FILE, HashAlgorithm.SHA1, f"data/4f/{DIGITS[2:]}"),
        (ObjectKind.CHUNK, HashAlgorithm.SHA1, f"data/4f/{DIGITS[2:]}P"),
        (ObjectKind.CATALOG, HashAlgorithm.RMD160, f"data/4f/{DIGITS[2:]}-rmd160C"),
        (
            ObjectKind.CERTIFICATE,
            HashAlgorithm.SHAKE128,
            f"data/4f/{DIGITS[2:]}-shake128X",
        ),
    ],
)
def test_the_letter_comes_after_the_suffix(
    kind: ObjectKind, algorithm: HashAlgorithm, path: str
) -> None:
    assert ContentHash(bytes.fromhex(DIGITS), algorithm).object_path(kind) == path


def test_the_cache_path_has_the_suffix_and_no_letter() -> None:
    shake = ContentHash(bytes.fromhex(DIGITS), HashAlgorithm.SHAKE128)
    assert shake.cache_path() == f"4f/{DIGITS[2:]}-shake128"
    assert shake._replace(algorithm=HashAlgorithm.SHA1).cache_path() == (
        f"4f/{DIGITS[2:]}"
    )


def test_algorithms_are_numbered_as_in_the_entry_flags() -> None:
    assert [algorithm.value for algorithm in HashAlgorithm] == [0, 1, 2]


def test_shake128_is_cut_to_twenty_bytes() -> None:
    whole = hashlib.shake_128(b"text").digest(64)
    assert ContentHash.of(b"text", HashAlgorithm.SHAKE128).digest == whole[:20]
