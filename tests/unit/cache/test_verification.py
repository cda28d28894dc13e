"""What is believed of files that others can write."""

import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfsexec.cache import verification, verified_objects
from cvmfsexec.cache.verification import Verifier
from cvmfsexec.cache.verified_objects import (
    FILE_NAME,
    VerifiedObjects,
    parse_record,
    serialize_record,
)
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from tests.support.store_contract import content_of

CONTENT = b"what a program is made of\n" * 1000
DIGEST = bytes(range(32))


def stored_name(
    content: bytes, algorithm: HashAlgorithm = HashAlgorithm.SHA1
) -> ContentHash:
    return ContentHash.of(zlib.compress(content, 6), algorithm)


NAME = stored_name(CONTENT)


class Place:
    """A directory that others can write, and the workspace of one user."""

    def __init__(self, top: Path) -> None:
        self.path = top / "alien"
        self.path.mkdir()
        self.workspace = top / "workspace"
        self.directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.verifier = Verifier.at(str(self.workspace))

    def open(self, name: ContentHash = NAME) -> int | None:
        return self.verifier.open_verified("file", self.directory, name)

    def restart(self) -> None:
        self.verifier.close()
        self.verifier = Verifier.at(str(self.workspace))

    def close(self) -> None:
        self.verifier.close()
        os.close(self.directory)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("algorithm", list(HashAlgorithm))
@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_right_content_is_confirmed(
    place: Place, algorithm: HashAlgorithm, size: int
) -> None:
    content = (CONTENT * (size // len(CONTENT) + 1))[:size]
    (place.path / "file").write_bytes(content)
    for name in (stored_name(content, algorithm), ContentHash.of(content, algorithm)):
        descriptor = place.open(name)
        assert descriptor is not None
        assert os.fstat(descriptor).st_size == size
        os.close(descriptor)


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        CONTENT[:-1],
        CONTENT + b"\n",
        b"W" + CONTENT[1:],
        zlib.compress(CONTENT, 6),  # hashes to the name
    ],
    ids=["empty", "shorter", "longer", "changed", "compressed form"],
)
def test_other_content_is_not_believed(
    place: Place, content: bytes, *, remembers: bool
) -> None:
    file = place.path / "file"
    if remembers:
        file.write_bytes(CONTENT)
        assert content_of(place.open()) == CONTENT
        place.restart()
    file.write_bytes(content)
    os.utime(file, (0, 0))
    assert place.open() is None
    assert NAME in place.verifier.doubted
    file.write_bytes(CONTENT)
    assert content_of(place.open()) == CONTENT


def test_what_no_publisher_of_ours_compressed_cannot_be_confirmed(place: Place) -> None:
    (place.path / "file").write_bytes(CONTENT)
    name = ContentHash.of(zlib.compress(CONTENT, 1))
    assert place.open(name) is None
    descriptor = place.open(NAME)
    assert descriptor is not None
    # Once its right bytes were fetched, the cached ones are believed.
    place.verifier.remember(name, verification.sha256_of(descriptor))
    os.close(descriptor)
    assert content_of(place.open(name)) == CONTENT
    place.restart()
    assert content_of(place.open(name)) == CONTENT


def test_what_is_written_afterwards_is_not_seen(place: Place) -> None:
    file = place.path / "file"
    file.write_bytes(CONTENT)
    descriptor = place.open()
    with file.open("r+b") as stream:
        stream.write(b"somebody else's")
    assert content_of(descriptor) == CONTENT


def test_whoever_writes_all_the_time_is_never_believed(place: Place) -> None:
    """A file that changes while it is verified gives its right bytes, or none."""
    file = place.path / "file"
    file.write_bytes(CONTENT)
    stop = threading.Event()

    def write() -> None:
        with file.open("r+b", buffering=0) as stream:
            while not stop.is_set():
                for first in (b"X", CONTENT[:1]):
                    stream.seek(0)
                    stream.write(first)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(200):
            descriptor = place.open()
            if descriptor is not None:
                assert content_of(descriptor) == CONTENT
    finally:
        stop.set()
        thread.join()


def test_what_is_no_file_is_not_waited_for(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "of the user"
    secret.write_bytes(CONTENT)
    file = place.path / "file"
    os.mkfifo(file)
    assert place.open() is None
    file.unlink()
    file.symlink_to(secret)
    assert place.open() is None
    file.unlink()
    file.mkdir()
    assert place.open() is None
    file.rmdir()
    assert place.open() is None
    assert place.verifier.doubted == {NAME}


def test_a_file_as_large_as_somebody_likes_is_not_copied(place: Place) -> None:
    file = place.path / "file"
    file.touch()
    os.truncate(file, verification.SIZE_BYTES_MAX + 1)
    assert place.open() is None


def test_the_second_look_does_not_compress_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.path / "file").write_bytes(CONTENT)
    assert content_of(place.open()) == CONTENT
    place.restart()
    monkeypatch.setattr(verification, "is_confirmed", None)
    assert content_of(place.open()) == CONTENT


def test_the_memory_is_the_users_alone(place: Place) -> None:
    assert (place.workspace / FILE_NAME).stat().st_mode & 0o777 == 0o600
    place.workspace.chmod(0o777)
    with pytest.raises(CacheError, match="other users can write"):
        Verifier.at(str(place.workspace))
    place.workspace.chmod(0o700)


@given(st.binary(min_size=20, max_size=20), st.sampled_from(HashAlgorithm))
def test_a_record_is_of_its_object_only(
    digest: bytes, algorithm: HashAlgorithm
) -> None:
    name = ContentHash(digest, algorithm)
    record = serialize_record(name, DIGEST)
    assert parse_record(record, name) == DIGEST
    other = name._replace(digest=bytes(byte ^ 1 for byte in digest))
    assert parse_record(record, other) is None
    for one in HashAlgorithm:
        if one is not algorithm:
            assert parse_record(record, name._replace(algorithm=one)) is None


@settings(max_examples=300)
@given(st.binary(max_size=80), st.integers(0, 511))
def test_a_damaged_record_is_none(data: bytes, bit: int) -> None:
    assert parse_record(data, NAME) is None
    record = bytearray(serialize_record(NAME, DIGEST))
    record[bit // 8] ^= 1 << bit % 8
    assert parse_record(bytes(record), NAME) is None


def test_objects_of_one_place_push_each_other_out(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    one = ContentHash(bytes(20))
    two = ContentHash(bytes(19) + b"\1")
    memory = VerifiedObjects(directory)
    memory.remember(one, DIGEST)
    memory.remember(two, DIGEST[::-1])
    memory.close()
    again = VerifiedObjects(directory)
    assert again.digest_of(one) is None
    assert again.digest_of(two) == DIGEST[::-1]
    again.close()
    size_bytes = (tmp_path / FILE_NAME).stat().st_size
    assert size_bytes <= verified_objects.PLACES * 64
    os.close(directory)
