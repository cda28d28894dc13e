from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.chunk import Chunk, check_chunks, covering
from cvmfsexec.format.digest import ContentHash

HASH = ContentHash(b"\1" * 20)


def chunks_of(*sizes: int) -> tuple[Chunk, ...]:
    offsets = accumulate(sizes[:-1], initial=0)
    return tuple(Chunk(at, size, HASH) for at, size in zip(offsets, sizes, strict=True))


chunk_lists = st.lists(st.integers(1, 9), min_size=1).map(lambda x: chunks_of(*x))


@pytest.mark.parametrize(
    ("chunks", "file_size"),
    [
        pytest.param((), 0, id="none"),
        pytest.param((), 5, id="none for bytes"),
        pytest.param((Chunk(1, 4, HASH),), 5, id="late start"),
        pytest.param((Chunk(0, 4, HASH), Chunk(5, 1, HASH)), 6, id="hole"),
        pytest.param((Chunk(0, 4, HASH), Chunk(3, 3, HASH)), 6, id="overlap"),
        pytest.param((Chunk(0, 4, HASH), Chunk(0, 4, HASH)), 4, id="twice"),
        pytest.param((Chunk(0, 0, HASH),), 0, id="empty chunk"),
        pytest.param((Chunk(0, 4, HASH), Chunk(4, -1, HASH)), 3, id="negative"),
        pytest.param(chunks_of(4, 4), 9, id="too short"),
        pytest.param(chunks_of(4, 4), 7, id="too long"),
        pytest.param((Chunk(4, 4, HASH), Chunk(0, 4, HASH)), 8, id="unordered"),
    ],
)
def test_chunks_that_are_not_the_file_are_refused(
    chunks: tuple[Chunk, ...], file_size: int
) -> None:
    with pytest.raises(FormatError):
        check_chunks(chunks, file_size)


@given(chunk_lists)
def test_contiguous_chunks_are_accepted(chunks: tuple[Chunk, ...]) -> None:
    check_chunks(chunks, sum(chunk.size for chunk in chunks))


@given(chunk_lists, st.integers(0, 300), st.integers(0, 300))
def test_slices_are_the_byte_range(
    chunks: tuple[Chunk, ...], offset: int, size: int
) -> None:
    """The property that a wrong search predicate fails at once (cvmfs-rust's did)."""
    file_size = sum(chunk.size for chunk in chunks)
    positions = [
        piece.chunk.offset + piece.start + index
        for piece in covering(chunks, offset, size)
        for index in range(piece.length)
    ]
    assert positions == list(range(offset, min(offset + size, file_size)))


@given(chunk_lists, st.integers(0, 300), st.integers(0, 300))
def test_slices_stay_inside_of_their_chunks(
    chunks: tuple[Chunk, ...], offset: int, size: int
) -> None:
    for chunk, start, length in covering(chunks, offset, size):
        assert length > 0
        assert 0 <= start < start + length <= chunk.size


def test_read_across_chunk_borders() -> None:
    first, second, third = chunks = chunks_of(4, 4, 4)
    assert list(covering(chunks, 3, 6)) == [
        (first, 3, 1),
        (second, 0, 4),
        (third, 0, 1),
    ]


def test_nothing_covers_a_file_without_chunks() -> None:
    assert list(covering((), 0, 10)) == []
