"""Progress: on stderr, on a terminal only, and only when there is a wait.

A second after the work has begun a bar appears. It is drawn again while nothing comes
in, too: whoever waits for one large object sees that time passes.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from cvmfsexec.log import harmless

_SHOW_AFTER_S = 1.0
_DRAW_EVERY_S = 0.5


@contextmanager
def progress_bar(
    total: int | None,
    unit: str,
    label: bytes | str = "",
    *,
    beside_output: bool = False,
) -> Iterator[Callable[[int], object]]:
    """Show a bar for work that takes longer than a second.

    Args:
        total: Amount of work; ``None`` if unknown.
        unit: What is counted; ``bytes`` are shown with prefixes.
        label: Words in front of the bar.
        beside_output: Whether the work writes to stdout. If that is a terminal as
            well, there is no bar: the output shows how far it is.

    Yields:
        A function to call with the amount done since the last call.
    """
    if not sys.stderr.isatty() or (beside_output and sys.stdout.isatty()):
        yield lambda _amount: None
        return
    with _drawn(
        total=total,
        desc=harmless(os.fsdecode(label)) or None,
        unit="B" if unit == "bytes" else f" {unit}",
        unit_scale=unit == "bytes",
    ) as bar:
        yield bar.update


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show how long something takes that cannot be counted, as ``progress_bar``."""
    if not sys.stderr.isatty():
        yield
        return
    with _drawn(desc=label, bar_format="{desc} [{elapsed}]"):
        yield


@contextmanager
def _drawn(**options: Any) -> Iterator[Any]:  # noqa: ANN401 -- tqdm has no type hints
    """Draw a bar from a second after now to the end, and wipe it away."""
    from tqdm import tqdm

    is_over = threading.Event()

    def draw() -> None:
        pause_s = _SHOW_AFTER_S
        while not is_over.wait(pause_s):
            bar.refresh()
            pause_s = _DRAW_EVERY_S

    with tqdm(delay=_SHOW_AFTER_S, leave=False, file=sys.stderr, **options) as bar:
        artist = threading.Thread(target=draw, name="progress", daemon=True)
        with suppress(RuntimeError):  # it is drawn less often without a thread
            artist.start()
        try:
            yield bar
        finally:
            is_over.set()
            if artist.is_alive():
                artist.join()
