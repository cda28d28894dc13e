"""The content of all regular files of a source tree, stored as objects.

zlib and hashlib let go of the interpreter while they work, so threads use all cores.
Small files are handed to them many at a time, because handing over costs more than
storing one; the chunks of a large file are handed over one by one.

A file that changes between the scan and the last byte read would be published in a
state that it never had: that is refused.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from cvmfsexec.errors import PublishError
from cvmfsexec.format.chunk import Chunk
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.dirent import Compression
from cvmfsexec.publish.chunker import ChunkSizes, cut
from cvmfsexec.publish.objects import ObjectPool
from cvmfsexec.publish.scan import Advance, SourceEntry, SourceTree, unreadable

Result = TypeVar("Result")

_PIECE_BYTES = 1 << 20  # larger files go through in pieces of this size
_BATCH_FILES = 64
_BATCH_BYTES = 4 << 20


class Content(NamedTuple):
    """What a catalog says about the bytes of a regular file.

    Attributes:
        content_hash: The one object that holds them; None if there are chunks.
        chunks: In order, or empty.
    """

    content_hash: ContentHash | None
    chunks: tuple[Chunk, ...] = ()


class ContentPublisher:
    """Stores the files of one tree, once.

    Args:
        tree: Where the files come from.
        pool: Where the objects go.
        compression: How they are stored.
        chunk_sizes: Bounds of chunks; None stores each file whole.
        advance: Is told of the bytes read, from several threads in turn.
    """

    def __init__(
        self,
        tree: SourceTree,
        pool: ObjectPool,
        *,
        compression: Compression,
        chunk_sizes: ChunkSizes | None,
        advance: Advance,
    ) -> None:
        self._tree = tree
        self._pool = pool
        self._compression = compression
        self._chunk_sizes = chunk_sizes
        self._advance = advance
        self._advancing = threading.Lock()
        self._is_abandoned = threading.Event()

    def publish(self) -> dict[bytes, Content]:
        """Store everything; returns the content of each regular file by its path.

        Raises:
            PublishError: A file cannot be read, changed, or vanished; or an object
                cannot be written.
        """
        firsts, further = _without_further_links(self._tree.regular_files())
        limit = _PIECE_BYTES
        if self._chunk_sizes is not None:
            limit = min(limit, self._chunk_sizes.minimum)
        small = [entry for entry in firsts if entry.size <= limit]
        large = [entry for entry in firsts if entry.size > limit]
        contents: dict[bytes, Content] = {}
        with ThreadPoolExecutor(os.cpu_count() or 1, "content") as executor:
            try:
                stored = [
                    self._submit(executor, partial(self._store_batch, batch))
                    for batch in _batches(small)
                ]
                pieces = [(e.path, self._submit_large(executor, e)) for e in large]
                for done in stored:
                    contents.update(done.result())
                for path, chunks in pieces:
                    contents[path] = _content([chunk.result() for chunk in chunks])
            except BaseException:
                self._is_abandoned.set()
                raise
            finally:
                executor.shutdown(cancel_futures=True)
        contents.update({path: contents[first] for path, first in further.items()})
        contents.update(self._made_here())
        return contents

    def _made_here(self) -> dict[bytes, Content]:
        """Return the content of the files that only the repository has."""
        made = [
            entry.path
            for directory in self._tree.directories.values()
            for entry in directory.entries
            if entry.is_made_here
        ]
        if not made:
            return {}
        empty = Content(self._pool.put(b"", ObjectKind.FILE, self._compression))
        return dict.fromkeys(made, empty)

    def _submit(
        self, executor: ThreadPoolExecutor, task: Callable[[], Result]
    ) -> "Future[Result]":
        future = executor.submit(task)
        future.add_done_callback(self._note_failure)
        return future

    def _note_failure(self, future: "Future[Result]") -> None:
        if not future.cancelled() and future.exception() is not None:
            self._is_abandoned.set()

    def _submit_large(
        self, executor: ThreadPoolExecutor, entry: SourceEntry
    ) -> "list[Future[Chunk]]":
        """Cut a file, and hand over each piece as soon as it is found."""
        futures = []
        for offset, size, kind in self._pieces(entry):
            if self._is_abandoned.is_set():
                break  # waiting for the results in order tells why
            task = partial(self._store_piece, entry, offset, size, kind)
            futures.append(self._submit(executor, task))
        return futures

    def _pieces(self, entry: SourceEntry) -> Iterator[tuple[int, int, ObjectKind]]:
        sizes = self._chunk_sizes
        if sizes is None or entry.size <= sizes.minimum:
            yield 0, entry.size, ObjectKind.FILE
            return
        with self._opened(entry) as fd:
            cuts = cut(lambda at, size: os.pread(fd, size, at), entry.size, sizes)
            for offset, size in cuts:
                is_whole = size == entry.size
                kind = ObjectKind.FILE if is_whole else ObjectKind.CHUNK
                yield offset, size, kind

    def _store_batch(self, batch: Sequence[SourceEntry]) -> dict[bytes, Content]:
        contents = {}
        for entry in batch:
            with self._opened(entry) as fd:
                data = os.pread(fd, entry.size, 0)
            stored = self._pool.put(data, ObjectKind.FILE, self._compression)
            contents[entry.path] = Content(stored)
        self._report(sum(entry.size for entry in batch))
        return contents

    def _store_piece(
        self, entry: SourceEntry, offset: int, size: int, kind: ObjectKind
    ) -> Chunk:
        with self._opened(entry) as fd:
            pieces = self._read_pieces(fd, offset, offset + size)
            stored = self._pool.put_stream(pieces, kind, self._compression)
        return Chunk(offset, size, stored)

    def _read_pieces(self, fd: int, offset: int, end: int) -> Iterator[bytes]:
        while offset < end:
            if self._is_abandoned.is_set():
                raise PublishError("the publication was given up")
            data = os.pread(fd, min(_PIECE_BYTES, end - offset), offset)
            if not data:
                return  # the file became shorter; closing it tells
            offset += len(data)
            self._report(len(data))
            yield data

    def _report(self, size: int) -> None:
        with self._advancing:
            self._advance(size)

    @contextmanager
    def _opened(self, entry: SourceEntry) -> Iterator[int]:
        """Open a file, and make sure that it is the scanned one until it is closed."""
        path = self._tree.local_path(entry)
        try:
            # O_NONBLOCK: it may have been replaced by a fifo meanwhile.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(path, flags)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            _check_unchanged(fd, entry, path)
            yield fd
            _check_unchanged(fd, entry, path)
        except OSError as error:
            raise unreadable(path, error) from error
        finally:
            os.close(fd)


def _check_unchanged(fd: int, entry: SourceEntry, path: bytes) -> None:
    now = os.fstat(fd)
    if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (
        entry.device,
        entry.inode,
        entry.size,
        entry.mtime_ns,
    ):
        raise PublishError(
            f"{os.fsdecode(path)!r} changed while it was being published",
            hint="publish again when nothing writes to the source directory",
        )


def _without_further_links(
    entries: Iterable[SourceEntry],
) -> tuple[list[SourceEntry], dict[bytes, bytes]]:
    """Return each file once, and for its other names the path that stands for it."""
    firsts: list[SourceEntry] = []
    by_inode: dict[tuple[int, int], bytes] = {}
    further: dict[bytes, bytes] = {}
    for entry in entries:
        first = entry.path
        if entry.link_count > 1:
            first = by_inode.setdefault((entry.device, entry.inode), entry.path)
        if first == entry.path:
            firsts.append(entry)
        else:
            further[entry.path] = first
    return firsts, further


def _batches(entries: Iterable[SourceEntry]) -> Iterator[list[SourceEntry]]:
    batch: list[SourceEntry] = []
    batch_bytes = 0
    for entry in entries:
        batch.append(entry)
        batch_bytes += entry.size
        if len(batch) >= _BATCH_FILES or batch_bytes >= _BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
    if batch:
        yield batch


def _content(chunks: Sequence[Chunk]) -> Content:
    if len(chunks) == 1:
        return Content(chunks[0].content_hash)
    return Content(None, tuple(chunks))
