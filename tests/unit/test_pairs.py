"""Combinations in which every two values that can meet do meet."""

from itertools import product

from tests.support.pairs import cover_pairs

CELLS = [cell for cell in product("ab", (1, 2, 3), "xyz", "pq") if cell[:2] != ("a", 3)]


def pairs_of(cells: list[tuple[object, ...]]) -> set[object]:
    return {
        (i, cell[i], j, cell[j]) for cell in cells for i in range(4) for j in range(i)
    }


def test_every_pair_that_can_be_is_there() -> None:
    chosen = cover_pairs(CELLS)
    assert pairs_of([*chosen]) == pairs_of([*CELLS])
    assert len(chosen) < len(CELLS) / 2


def test_it_is_always_the_same_choice() -> None:
    assert cover_pairs(CELLS) == cover_pairs(CELLS)
    assert set(cover_pairs(CELLS)) <= set(CELLS)
