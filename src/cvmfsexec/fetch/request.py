"""What is wanted: one object, what is known about it, and who is asked for it.

Source: docs/reference/repository-format.md, "Compression, and what the content hash
covers", "Chunked files" and "External files".
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

from cvmfsexec.errors import FormatError, ObjectTooLargeError
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression

if TYPE_CHECKING:
    from collections.abc import Callable

    from cvmfsexec.network.client import Sink

_ZLIB_MARGIN_BYTES = 64
_NAMES = {
    ObjectKind.CERTIFICATE: "certificate",
    ObjectKind.HISTORY: "tag database",
    ObjectKind.METAINFO: "metainfo",
}


class ObjectRequest(NamedTuple):
    """One object that somebody needs.

    Attributes:
        content_hash: Its name; the hash of the stored bytes.
        kind: What it holds, which is part of its path on a server.
        size_bytes: Its uncompressed size as announced by whoever refers to it;
            ``None`` if unknown (catalogs may be registered with size 0).
        compression: How it is stored.
        size_limit_bytes: Uncompressed bytes that are too many in any case.
        external_path: Path inside the repository of the external file whose bytes
            these are; such an object has no path of its own.
        external_range: First and last byte within that file; ``None`` for all.
        is_alternative: Whether it is to be asked for by its alternative path.
        of: The file or catalog that it is of; ``None`` if whoever asks would have to
            look that up.
    """

    content_hash: ContentHash
    kind: ObjectKind
    size_bytes: int | None
    compression: Compression
    size_limit_bytes: int
    external_path: bytes | None = None
    external_range: tuple[int, int] | None = None
    is_alternative: bool = False
    of: bytes | None = None

    @property
    def path(self) -> str:
        """Where a server has it: below its base URL, not escaped.

        Bytes that are no text are surrogates, wherever the user lives: this is not
        ``os.fsdecode``, which goes by the locale.
        """
        if self.external_path is not None:
            path = self.external_path.removeprefix(b"/")
            return path.decode("utf-8", "surrogateescape")
        if self.is_alternative:
            return self.content_hash.alternative_path(self.kind)
        return self.content_hash.object_path(self.kind)

    def label(self) -> str:
        """Return what it is, for the logs of servers; nothing if it is of a file.

        In the original's words.
        """
        if self.kind in _NAMES:
            return _NAMES[self.kind]
        path = "" if self.of is None else self.of.decode("utf-8", "surrogateescape")
        if self.kind is not ObjectKind.CATALOG:
            return path
        return "file catalog" if self.of is None else f"file catalog at {path or '/'}"

    @property
    def size_max_bytes(self) -> int:
        """The most uncompressed bytes that can be right."""
        if self.size_bytes is None:
            return self.size_limit_bytes
        return self.size_bytes

    @property
    def stored_max_bytes(self) -> int:
        """The most stored bytes that can be right.

        Data that zlib cannot compress grows by a seventh with its worst settings.
        """
        size = self.size_max_bytes
        if self.compression is Compression.NONE:
            return size
        return size + size // 7 + _ZLIB_MARGIN_BYTES

    def check(self) -> None:
        """Refuse what no server needs to be asked for.

        Raises:
            FormatError: The hash names no object, or the size is negative.
            ObjectTooLargeError: The announced size is beyond the limit.
        """
        if self.content_hash.is_null:
            raise FormatError("an entry refers to no object")
        if self.size_bytes is None:
            return
        if self.size_bytes < 0:
            raise FormatError(
                f"object {self.content_hash} is announced with {self.size_bytes} bytes"
            )
        if self.size_bytes > self.size_limit_bytes:
            raise ObjectTooLargeError(
                f"object {self.content_hash} is announced with {self.size_bytes} "
                f"bytes; the limit is {self.size_limit_bytes}"
            )


class ObjectSource(Protocol):
    """Who is asked for objects; ``cvmfsexec.network.client.HttpClient`` is one."""

    def fetch_object(
        self,
        path: str,
        sink_factory: "Callable[[], Sink]",
        *,
        limit_bytes: int,
        byte_range: tuple[int, int] | None = None,
        label: "Callable[[], str] | None" = None,
    ) -> None:
        """Get one object, trying as often and as many servers as configured.

        Args:
            path: Below the base URL, without leading slash, not escaped; bytes that
                are no text as surrogates.
            sink_factory: Called for a new sink before each attempt. The attempt
                whose sink finishes without error is the last.
            limit_bytes: A longer answer is refused.
            byte_range: First and last byte wanted; ``None`` for all.
            label: Returns what servers are told that it is.

        Raises:
            TransferError: Nobody delivered it.
            IntegrityError: What was delivered was never the object.
            CvmfsError: Whatever else a sink raises.
        """
