"""What is asked of servers: kinds, limits, and places."""

import os

import pytest

from cvmfsexec.errors import FormatError, ObjectTooLargeError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression, DirectoryEntry, Flag
from cvmfsexec.repository.objects import (
    CATALOG_BYTES_MAX,
    CERTIFICATE_BYTES_MAX,
    catalog_request,
    chunk_request,
    document_request,
    file_request,
    named_catalog,
    open_whole,
)
from tests.support.catalog_files import entry
from tests.support.catalog_repository import CatalogRepository
from tests.support.descriptors import descriptor_count

NAME = ContentHash.of(b"object")
PLAIN = Compression.NONE << 11


def file_entry(made: CatalogRepository, **cells: object) -> DirectoryEntry:
    tree = made.tree(made.add_catalog(catalog=[entry(b"/f", **cells)]))
    found = tree.catalog(tree.root).find(tree.root.hash_of(b"/f"))
    assert found is not None
    return found


def test_a_catalog_may_be_as_large_as_announced() -> None:
    request = catalog_request(NAME, 5000)
    assert (request.size_bytes, request.size_max_bytes) == (5000, 5000)
    assert request.path.endswith("C")


def test_a_catalog_of_unknown_size_has_a_limit_all_the_same() -> None:
    request = catalog_request(NAME, 0)
    assert (request.size_bytes, request.size_limit_bytes) == (None, CATALOG_BYTES_MAX)


def test_a_catalog_beyond_all_measure_is_not_asked_for(
    made: CatalogRepository,
) -> None:
    with pytest.raises(ObjectTooLargeError):
        made.open(catalog_request(NAME, CATALOG_BYTES_MAX + 1))
    assert made.downloads() == 0


@pytest.mark.parametrize(
    ("kind", "letter"),
    [
        (ObjectKind.CERTIFICATE, "X"),
        (ObjectKind.HISTORY, "H"),
        (ObjectKind.METAINFO, "M"),
    ],
)
def test_documents_have_limits(kind: ObjectKind, letter: str) -> None:
    request = document_request(NAME, kind)
    assert request.path.endswith(letter)
    assert request.size_bytes is None
    assert request.size_max_bytes <= 1 << 30


def test_a_certificate_bomb_is_refused(made: CatalogRepository) -> None:
    name = made.add_object(bytes(CERTIFICATE_BYTES_MAX + 1), ObjectKind.CERTIFICATE)
    with pytest.raises(ObjectTooLargeError):
        made.open(document_request(name, ObjectKind.CERTIFICATE))
    assert not made.store.has(name)


def test_a_file_is_exactly_as_large_as_its_entry_says(made: CatalogRepository) -> None:
    request = file_request(file_entry(made, size=123), NAME, b"/f")
    assert (request.size_bytes, request.size_limit_bytes) == (123, 123)
    assert request.compression is Compression.ZLIB
    assert request.external_path is None


def test_external_files_are_asked_for_by_path(made: CatalogRepository) -> None:
    flags = Flag.FILE | Flag.EXTERNAL | PLAIN
    external = file_entry(made, size=100, flags=flags)
    request = file_request(external, NAME, b"/d/f")
    assert (request.path, request.compression) == ("d/f", Compression.NONE)
    piece = chunk_request(external, Chunk(40, 20, NAME), b"/d/f")
    assert (piece.path, piece.external_range) == ("d/f", (40, 59))


def test_chunks_are_objects_of_their_own(made: CatalogRepository) -> None:
    chunked = file_entry(made, size=100, flags=Flag.FILE | Flag.CHUNKED | PLAIN)
    request = chunk_request(chunked, Chunk(40, 20, NAME), b"/f")
    assert request.path == NAME.object_path(ObjectKind.CHUNK)
    assert (request.size_bytes, request.external_range) == (20, None)
    assert request.compression is Compression.NONE


# Objects that know their own end


def refuse_short(descriptor: int) -> int:
    size = os.fstat(descriptor).st_size
    if size < 1000:
        raise FormatError("too short")
    return size


def request_for(made: CatalogRepository, content: bytes) -> ObjectRequest:
    name = made.add_object(content, ObjectKind.HISTORY)
    return document_request(name, ObjectKind.HISTORY)


def test_a_sound_object_is_opened_once(made: CatalogRepository) -> None:
    before = descriptor_count()
    assert open_whole(made, request_for(made, bytes(2000)), refuse_short) == 2000
    assert len(made.opened) == 1
    assert descriptor_count() == before


def test_a_torn_object_is_fetched_again(made: CatalogRepository) -> None:
    request = request_for(made, bytes(2000))
    os.close(made.open(request))
    os.truncate(f"{made.store.path}/{request.content_hash.cache_path()}", 500)
    assert open_whole(made, request, refuse_short) == 2000
    assert made.downloads() == 2


def test_a_malformed_object_is_believed_the_second_time(
    made: CatalogRepository,
) -> None:
    before = descriptor_count()
    with pytest.raises(FormatError, match="too short"):
        open_whole(made, request_for(made, bytes(500)), refuse_short)
    assert made.downloads() == 2
    assert descriptor_count() == before


def test_a_catalog_outlives_the_descriptor_it_was_opened_by(
    made: CatalogRepository,
) -> None:
    request = catalog_request(made.add_catalog(catalog=[entry(b"/f")]), 0)
    catalog = open_whole(made, request, named_catalog(request))
    assert len(list(catalog.walk())) == 2
    catalog.close()
