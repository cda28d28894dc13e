"""What traces tell of one repository: each path once, in little memory.

A job touches hundreds of thousands of files in a few thousand directories, and traces
of several jobs say the same again. Paths are kept by directory, so that what is kept
of a file is its name. The order is that in which they were first touched: of
directories, and of the names in each.
"""

from collections.abc import Iterator

from cvmfsexec.errors import FormatError

Extent = tuple[int, int | None]
"""Where reading began, and how far it went; ``None`` for to the end."""

WHOLE: Extent = (0, None)

TOUCHED_MAX = 3_000_000
"""Paths, and parts of files, of which there may be so many: some 400 MB."""

_Parts = Extent | set[Extent] | None


class TouchedPaths:
    """Paths, and which parts of them were read."""

    def __init__(self) -> None:
        self._directories: dict[bytes, dict[bytes, _Parts]] = {}
        self._count = 0  # of paths, and parts of files

    @property
    def path_count(self) -> int:
        """How many paths there are."""
        return sum(map(len, self._directories.values()))

    def places(self) -> Iterator[bytes]:
        """Yield what may be a directory, each once."""
        told = set()
        for directory, names in self._directories.items():
            for place in (directory, *_entered(directory, names)):
                if place not in told:
                    told.add(place)
                    yield place

    def add(self, path: bytes, extent: Extent | None = None) -> bool:
        """Take note of a path.

        Args:
            path: Normalized.
            extent: What was read of it; ``None`` if it was not read.

        Returns:
            Whether the path is new.

        Raises:
            FormatError: These are more than anybody's job touches.
        """
        directory, _, name = path.rpartition(b"/")
        names = self._directories.get(directory)
        if names is None:
            names = self._directories[directory] = {}
        if name not in names:
            names[name] = extent
            self._count_one()
            return True
        parts = names[name]
        if extent is None or extent == parts:
            return False
        if parts is None:
            names[name] = extent
        elif not isinstance(parts, set):
            names[name] = {parts, extent}
            self._count_one()
        elif extent not in parts:
            parts.add(extent)
            self._count_one()
        return False

    def __iter__(
        self,
    ) -> Iterator[tuple[bytes, list[tuple[bytes, tuple[Extent, ...]]]]]:
        """Yield directories, and the names in each with what was read of them."""
        for directory, names in self._directories.items():
            yield directory, [(name, _sorted(parts)) for name, parts in names.items()]

    def _count_one(self) -> None:
        self._count += 1
        if self._count > TOUCHED_MAX:
            raise FormatError(f"it names more than {TOUCHED_MAX} files")


def _entered(directory: bytes, names: dict[bytes, _Parts]) -> Iterator[bytes]:
    """Yield what was not read."""
    for name, parts in names.items():
        if parts is None and name:
            yield directory + b"/" + name


def _sorted(parts: _Parts) -> tuple[Extent, ...]:
    """Return what was read of a file, from its beginning."""
    if parts is None:
        return ()
    if not isinstance(parts, set):
        return (parts,)
    return tuple(sorted(parts, key=lambda extent: extent[0]))
