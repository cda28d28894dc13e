"""The trees that are measured: made once, published once, kept below ``.bench``."""

import random
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

FQRN = "bench.example.org"
VERSION = "1"
"""Change it when a tree changes: everything is made anew then."""


class Scale(NamedTuple):
    """How much of everything there is."""

    entries: int
    small_files: int
    modules: int
    big_bytes: int
    random_reads: int
    cached_objects: int


FULL = Scale(100_000, 5_000, 427, 500 << 20, 20_000, 200_000)
QUICK = Scale(10_000, 1_000, 100, 50 << 20, 2_000, 20_000)


class Site(NamedTuple):
    """A published repository and the tree it was made from.

    Attributes:
        local: The tree on local disk.
        served: What a web server shows below ``/cvmfs``.
        keys: Directory with the master public key.
    """

    local: Path
    served: Path
    keys: Path


def make_site(top: Path, scale: Scale, cvmfs: Path) -> Site:
    """Return the site for a scale, making it if it is not there yet."""
    home = top / f"site-{VERSION}-{scale.entries}"
    site = Site(home / "tree", home / "served", home / "keys")
    done = home / "done"
    if done.exists():
        return site
    shutil.rmtree(home, ignore_errors=True)
    site.local.mkdir(parents=True)
    _make_walk_tree(site.local / "walk", scale.entries)
    _make_small_files(site.local / "small", scale.small_files)
    _make_modules(site.local / "modules", scale.modules)
    _make_big_file(site.local / "big", scale.big_bytes)
    subprocess.run(
        [
            *(str(cvmfs), "publish", str(site.local)),
            *("--repository", FQRN, "--output", str(site.served)),
            *("--keys", str(site.keys)),
        ],
        check=True,
    )
    done.touch()
    return site


def _make_walk_tree(top: Path, entries: int) -> None:
    """Make a software-like tree of empty files: 40 in each directory."""
    for package in range(max(1, entries // 4100)):
        for directory in range(100):
            place = top / f"package{package:03}" / f"dir{directory:03}"
            place.mkdir(parents=True)
            for file in range(40):
                (place / f"file{file:02}.txt").touch()
        (top / f"package{package:03}" / ".cvmfscatalog").touch()


def _make_small_files(top: Path, count: int) -> None:
    """Make files of 6 KiB on average, half of it compressible."""
    source = random.Random(5)  # noqa: S311 -- reproducible, not secret
    top.mkdir()
    for number in range(count):
        place = top / f"d{number // 100:02}"
        place.mkdir(exist_ok=True)
        size = source.randrange(64, 12_000)
        noise = source.randbytes(size // 2)
        (place / f"f{number:05}").write_bytes(noise + bytes(size - len(noise)))


def _make_modules(top: Path, count: int) -> None:
    """Make a Python package whose modules import nothing but are real code."""
    top.mkdir()
    names = [f"module{number:03}" for number in range(count)]
    for name in names:
        functions = "".join(
            f"def function{i}(value):\n    return value * {i} + len({name!r})\n\n"
            for i in range(40)
        )
        (top / f"{name}.py").write_text(functions)
    (top / "import_all.py").write_text("".join(f"import {name}\n" for name in names))


def _make_big_file(top: Path, size: int) -> None:
    source = random.Random(6)  # noqa: S311 -- reproducible, not secret
    top.mkdir()
    block = source.randbytes(1 << 19)
    with (top / "file").open("wb") as file:
        for number in range(size >> 20):
            file.write(number.to_bytes(8, "little") + block[8:] + bytes(1 << 19))
