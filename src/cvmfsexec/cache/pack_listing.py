"""Which packs a directory has, by the names of their files."""

import os
import re

from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK

_NAME = re.compile(r"[0-9a-f]{16}")
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def names_in(directory: int) -> list[str]:
    """Return the names of the packs of which both files are there.

    Raises:
        OSError: They cannot be listed.
    """
    return all_names_in(directory)[0]


def all_names_in(directory: int) -> tuple[list[str], list[str]]:
    """Return the names of the whole packs, and of those that lack one of their files.

    Args:
        directory: Descriptor of the cache directory.

    Raises:
        OSError: They cannot be listed.
    """
    try:
        packs = os.open(DIRECTORY, _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return [], []  # none yet
    try:
        files = os.listdir(packs)
    finally:
        close_quietly(packs)
    indexes = {name.removesuffix(INDEX) for name in files if name.endswith(INDEX)}
    packs_too = {name.removesuffix(PACK) for name in files if name.endswith(PACK)}
    return _named_as_packs(indexes & packs_too), _named_as_packs(indexes ^ packs_too)


def _named_as_packs(names: set[str]) -> list[str]:
    return sorted(name for name in names if _NAME.fullmatch(name))
