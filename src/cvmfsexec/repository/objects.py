"""What to ask the fetcher for: requests with the limits that each kind of object has.

Limits keep a hostile server from filling memory or disk. Where a catalog announces
a size, that is the limit; the rest are far above anything seen in the field.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from cvmfsexec import log
from cvmfsexec.cache.open_files import again_while_gone, close_quietly
from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import FormatError, GoneObjectError, UnreadableObjectError
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression, DirectoryEntry

CATALOG_BYTES_MAX = 4 << 30  # publishers warn at 500,000 entries, about 150 MB
HISTORY_BYTES_MAX = 1 << 30
CERTIFICATE_BYTES_MAX = 64 << 10
METAINFO_BYTES_MAX = 64 << 10  # what the original shows at most

_Opened = TypeVar("_Opened")


class ObjectOpener(Protocol):
    """The part of the fetcher that opens objects."""

    def open(self, request: ObjectRequest) -> int:
        """Return a descriptor of the verified object; the caller closes it."""

    def discard(self, content_hash: ContentHash, damaged: int | None = None) -> None:
        """Forget a cached object that its reader finds damaged.

        Args:
            content_hash: Its hash.
            damaged: Descriptor of it; what has taken its place stays.
        """


class CatalogOpener(ObjectOpener, Protocol):
    """The part of the fetcher that opens objects which stay in use."""

    def pin(self, content_hash: ContentHash) -> object:
        """Keep an object in the cache until what is returned is forgotten."""


def open_whole(
    objects: ObjectOpener, request: ObjectRequest, opened: Callable[[int], _Opened]
) -> _Opened:
    """Open an object that knows its own end, such as a database.

    What lies in the cache was verified, but a power failure or a failing disk can have
    torn it since, and where nobody announced its size only its reader sees that. So an
    object that cannot be opened is fetched once more, and the second is believed.

    Args:
        objects: The fetcher.
        request: What to open.
        opened: Takes a descriptor, which it must not close, and raises
            ``FormatError`` for what is damaged.

    Raises:
        FormatError: It was published like this.
        CvmfsError: It cannot be fetched.
    """

    def opened_or_discarded(descriptor: int) -> _Opened:
        try:
            return opened(descriptor)
        except GoneObjectError:
            raise
        except (FormatError, UnreadableObjectError):
            objects.discard(request.content_hash, descriptor)
            raise

    try:
        return open_once(objects, request, opened_or_discarded)
    except (FormatError, UnreadableObjectError) as error:
        log.info("object %s is fetched again: %s", request.content_hash, error)
        return open_once(objects, request, opened)


def open_once(
    objects: ObjectOpener, request: ObjectRequest, opened: Callable[[int], _Opened]
) -> _Opened:
    """Open an object as it is; otherwise as :func:`open_whole`."""

    def open_now() -> _Opened:
        descriptor = objects.open(request)
        try:
            return opened(descriptor)
        finally:
            close_quietly(descriptor)

    return again_while_gone(open_now)


def named_catalog(request: ObjectRequest) -> Callable[[int], Catalog]:
    """Return what opens the catalog of a request, and calls it by its hash."""
    name = f"catalog {request.content_hash}"
    return lambda descriptor: Catalog.open_fd(descriptor, name)


def catalog_request(
    content_hash: ContentHash,
    size_bytes: int,
    mountpoint: bytes | None = None,
    *,
    is_alternative: bool = False,
) -> ObjectRequest:
    """Ask for a catalog.

    Args:
        content_hash: Its hash.
        size_bytes: Uncompressed; 0 if nobody announced it.
        mountpoint: Where it begins, if that is known.
        is_alternative: Whether to ask by the alternative path.
    """
    return ObjectRequest(
        content_hash,
        ObjectKind.CATALOG,
        size_bytes=size_bytes or None,
        compression=Compression.ZLIB,
        size_limit_bytes=CATALOG_BYTES_MAX,
        is_alternative=is_alternative,
        of=mountpoint,
    )


def document_request(
    content_hash: ContentHash, kind: ObjectKind, *, is_alternative: bool = False
) -> ObjectRequest:
    """Ask for a certificate, a tag database, or the meta info.

    Args:
        content_hash: Its hash.
        kind: Which of them it is.
        is_alternative: Whether to ask by the alternative path.
    """
    limits = {
        ObjectKind.CERTIFICATE: CERTIFICATE_BYTES_MAX,
        ObjectKind.HISTORY: HISTORY_BYTES_MAX,
        ObjectKind.METAINFO: METAINFO_BYTES_MAX,
    }
    return ObjectRequest(
        content_hash,
        kind,
        size_bytes=None,
        compression=Compression.ZLIB,
        size_limit_bytes=limits[kind],
        is_alternative=is_alternative,
    )


def file_request(
    entry: DirectoryEntry, content_hash: ContentHash, path: bytes
) -> ObjectRequest:
    """Ask for the content of a regular file that is stored as one object.

    Args:
        entry: The file.
        content_hash: Its hash, which the caller knows not to be null.
        path: Its path in the repository; names it on an external server. May be empty
            for others.
    """
    return ObjectRequest(
        content_hash,
        ObjectKind.FILE,
        size_bytes=entry.size,
        compression=entry.compression,
        size_limit_bytes=entry.size,
        external_path=path if entry.is_external else None,
        of=path or None,
    )


def chunk_request(entry: DirectoryEntry, chunk: Chunk, path: bytes) -> ObjectRequest:
    """Ask for one chunk of a chunked file."""
    last = chunk.offset + chunk.size - 1
    return ObjectRequest(
        chunk.content_hash,
        ObjectKind.CHUNK,
        size_bytes=chunk.size,
        compression=entry.compression,
        size_limit_bytes=chunk.size,
        external_path=path if entry.is_external else None,
        external_range=(chunk.offset, last) if entry.is_external else None,
        of=path or None,
    )
