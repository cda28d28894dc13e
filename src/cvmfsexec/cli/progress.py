"""Progress bars: on stderr, on a terminal only, and only when there is a wait."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SHOW_AFTER_S = 1.0


@contextmanager
def progress_bar(
    total: int | None, unit: str, label: bytes | str = ""
) -> Iterator[Callable[[int], object]]:
    """Show a bar for work that takes longer than a second.

    Args:
        total: Amount of work; ``None`` if unknown.
        unit: What is counted; ``bytes`` are shown with prefixes.
        label: Words in front of the bar.

    Yields:
        A function to call with the amount done since the last call.
    """
    if not sys.stderr.isatty():
        yield lambda _amount: None
        return
    from tqdm import tqdm

    with tqdm(
        total=total,
        desc=os.fsdecode(label) or None,
        unit="B" if unit == "bytes" else f" {unit}",
        unit_scale=unit == "bytes",
        delay=_SHOW_AFTER_S,
        leave=False,
        file=sys.stderr,
    ) as bar:
        yield bar.update
