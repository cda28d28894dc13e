"""Choose among combinations, so that every two values that can meet do meet."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, TypeVar

Cell = TypeVar("Cell", bound=tuple[Any, ...])


def cover_pairs(cells: Sequence[Cell]) -> list[Cell]:
    """Return some cells that have all pairs of values which any cell has.

    Args:
        cells: Combinations of as many values each; those without meaning left out.
    """
    missing = {pair for cell in cells for pair in _pairs(cell)}
    chosen = []
    while missing:
        best = max(cells, key=lambda cell: len(missing.intersection(_pairs(cell))))
        missing.difference_update(_pairs(best))
        chosen.append(best)
    return sorted(chosen, key=cells.index)


def _pairs(cell: tuple[Any, ...]) -> Iterator[Any]:
    return combinations(enumerate(cell), 2)
