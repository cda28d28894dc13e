import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import Manifest
from cvmfsexec.publish.chunker import WINDOW_BYTES, ChunkSizes, cut
from tests.support.fixtures import fixture_repository

SMALL = ChunkSizes(1024, 2048, 4096)


def cut_bytes(data: bytes, sizes: ChunkSizes) -> list[tuple[int, int]]:
    return list(cut(lambda at, size: data[at : at + size], len(data), sizes))


def cut_by_the_rule(data: bytes, sizes: ChunkSizes) -> list[tuple[int, int]]:
    """The rule as the reference states it, one byte after another."""
    threshold = (2**32 - 1) // sizes.average
    chunks = []
    start = 0
    while len(data) - start > sizes.minimum:
        end = min(start + sizes.maximum, len(data))
        at = end
        register = 0
        for position in range(start + sizes.minimum - WINDOW_BYTES, end):
            register = (register << 1 ^ data[position]) & 0xFFFFFFFF
            distance = (register - (2**31 - 1) + 2**31) % 2**32 - 2**31
            if position >= start + sizes.minimum and abs(distance) < threshold:
                at = position
                break
        chunks.append((start, at - start))
        start = at
    if start < len(data):
        chunks.append((start, len(data) - start))
    return chunks


@given(
    st.integers(0, 2**32),
    st.sampled_from([b"\0", b"ab \n", bytes(range(256))]),
    st.sampled_from([2048, 4096, 16384]),
    st.integers(1, 100_000),
)
def test_the_fast_way_cuts_where_the_rule_cuts(
    seed: int, alphabet: bytes, average: int, size: int
) -> None:
    data = bytes(random.Random(seed).choices(alphabet, k=size))  # noqa: S311
    sizes = ChunkSizes.around(average)
    assert cut_bytes(data, sizes) == cut_by_the_rule(data, sizes)


def test_a_block_border_is_no_chunk_border() -> None:
    data = random.Random(7).randbytes(700_000)  # noqa: S311
    sizes = ChunkSizes(1024, 150_000, 300_000)
    assert cut_bytes(data, sizes) == cut_by_the_rule(data, sizes)


@given(st.binary(min_size=1, max_size=20_000))
def test_chunks_are_contiguous_and_within_bounds(data: bytes) -> None:
    chunks = cut_bytes(data, SMALL)
    position = 0
    for offset, size in chunks:
        assert offset == position
        assert 0 < size <= SMALL.maximum
        position += size
    assert position == len(data)
    assert all(size >= SMALL.minimum for _, size in chunks[:-1])


def test_a_file_up_to_the_minimum_is_not_cut() -> None:
    assert cut_bytes(b"x" * SMALL.minimum, SMALL) == [(0, SMALL.minimum)]


def test_zeros_are_cut_at_the_maximum() -> None:
    sizes = [size for _, size in cut_bytes(bytes(10_000), SMALL)]
    assert sizes == [4096, 4096, 1808]


def test_an_insertion_moves_few_borders() -> None:
    data = random.Random(3).randbytes(200_000)  # noqa: S311
    before = {data[at : at + size] for at, size in cut_bytes(data, SMALL)}
    longer = data[:5000] + b"inserted" + data[5000:]
    after = {longer[at : at + size] for at, size in cut_bytes(longer, SMALL)}
    assert len(after - before) <= 5


def test_a_tiny_average_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="too small"):
        ChunkSizes.around(100)


def test_the_original_cut_its_files_at_the_same_places(tmp_path: Path) -> None:
    # This repository was published with a minimum of 512 KiB.
    repository = fixture_repository("shake")
    sizes = ChunkSizes.around(1 << 20)
    manifest = Manifest.parse(
        parse_letter((repository / ".cvmfspublished").read_bytes()).letter
    )
    root = tmp_path / "root"
    root.write_bytes(
        zlib.decompress(
            read(repository, manifest.root_catalog, ObjectKind.CATALOG),
        )
    )
    catalog = Catalog.open(str(root))
    checked = 0
    for entry in catalog.walk():
        if entry.is_chunked:
            chunks = catalog.chunks(entry)
            data = b"".join(
                zlib.decompress(read(repository, chunk.content_hash, ObjectKind.CHUNK))
                for chunk in chunks
            )
            expected = [(chunk.offset, chunk.size) for chunk in chunks]
            assert cut_bytes(data, sizes) == expected, entry.name
            checked += 1
    catalog.close()
    assert checked


def read(repository: Path, content_hash: ContentHash, kind: ObjectKind) -> bytes:
    return (repository / content_hash.object_path(kind)).read_bytes()
