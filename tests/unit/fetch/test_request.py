import os
import zlib

import pytest

from cvmfsexec.errors import FormatError, ObjectTooLargeError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression

FILE = ObjectRequest(
    ContentHash(bytes(range(20))), ObjectKind.FILE, 10, Compression.ZLIB, 100
)


@pytest.mark.parametrize("size_bytes", [None, 0, 100])
def test_a_possible_object_is_asked_for(size_bytes: int | None) -> None:
    FILE._replace(size_bytes=size_bytes).check()


def test_the_null_hash_names_no_object() -> None:
    with pytest.raises(FormatError, match="no object"):
        FILE._replace(content_hash=ContentHash(bytes(20))).check()


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(FormatError, match="-1 bytes"):
        FILE._replace(size_bytes=-1).check()


def test_a_size_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ObjectTooLargeError, match="101 bytes; the limit is 100"):
        FILE._replace(size_bytes=101).check()


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("size_bytes", [0, 1, 100, 70_000])
def test_what_zlib_makes_of_random_bytes_is_not_too_long(
    size_bytes: int, level: int
) -> None:
    stored = zlib.compress(os.urandom(size_bytes), level)
    assert len(stored) <= FILE._replace(size_bytes=size_bytes).stored_max_bytes


def test_verbatim_objects_are_as_long_as_their_content() -> None:
    verbatim = FILE._replace(compression=Compression.NONE)
    assert verbatim.stored_max_bytes == 10
    assert verbatim._replace(size_bytes=None).stored_max_bytes == 100


def test_an_objects_path_follows_from_its_hash() -> None:
    digits = bytes(range(20)).hex()
    assert FILE._replace(kind=ObjectKind.CHUNK).path == (
        f"data/{digits[:2]}/{digits[2:]}P"
    )


@pytest.mark.parametrize("algorithm", HashAlgorithm)
@pytest.mark.parametrize("kind", [ObjectKind.CATALOG, ObjectKind.CERTIFICATE])
def test_an_alternative_path_is_beside_the_manifest(
    kind: ObjectKind, algorithm: HashAlgorithm
) -> None:
    content_hash = ContentHash(bytes(range(20)), algorithm)
    request = FILE._replace(content_hash=content_hash, kind=kind, is_alternative=True)
    assert request.path == f".cvmfsalt-{content_hash}{kind.value}"


@pytest.mark.parametrize("locale_encoding", ["utf-8", "latin-1", "ascii"])
def test_an_external_files_path_is_that_in_the_repository(
    monkeypatch: pytest.MonkeyPatch, locale_encoding: str
) -> None:
    monkeypatch.setattr(
        os, "fsdecode", lambda raw: raw.decode(locale_encoding, "surrogateescape")
    )
    external = FILE._replace(external_path="/data/with space %25/ž".encode() + b"\xff")
    assert external.path == "data/with space %25/ž\udcff"
