"""What to ask the fetcher for: requests with the limits that each kind of object has.

Limits keep a hostile server from filling memory or disk. Where a catalog announces
a size, that is the limit; the rest are far above anything seen in the field.
"""

from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression, DirectoryEntry

CATALOG_BYTES_MAX = 4 << 30  # publishers warn at 500,000 entries, about 150 MB
HISTORY_BYTES_MAX = 1 << 30
CERTIFICATE_BYTES_MAX = 64 << 10
METAINFO_BYTES_MAX = 64 << 10  # what the original shows at most


def catalog_request(content_hash: ContentHash, size_bytes: int) -> ObjectRequest:
    """Ask for a catalog; ``size_bytes`` 0 means that nobody announced its size."""
    return ObjectRequest(
        content_hash,
        ObjectKind.CATALOG,
        size_bytes=size_bytes or None,
        compression=Compression.ZLIB,
        size_limit_bytes=size_bytes or CATALOG_BYTES_MAX,
    )


def document_request(content_hash: ContentHash, kind: ObjectKind) -> ObjectRequest:
    """Ask for a certificate, a tag database, or the meta info."""
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
    )


def file_request(
    entry: DirectoryEntry, content_hash: ContentHash, path: bytes
) -> ObjectRequest:
    """Ask for the content of a regular file that is stored as one object.

    Args:
        entry: The file.
        content_hash: Its hash, which the caller knows not to be null.
        path: Its path in the repository; names it on an external server.
    """
    return ObjectRequest(
        content_hash,
        ObjectKind.FILE,
        size_bytes=entry.size,
        compression=entry.compression,
        size_limit_bytes=entry.size,
        external_path=path if entry.is_external else None,
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
    )
