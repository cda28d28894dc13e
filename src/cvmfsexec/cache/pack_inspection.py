"""Whether the objects in packs are what the indexes tell of them.

Each has a checksum, which is looked at whenever it is read, too. Nobody changes a pack:
to repair is to note that an object is gone, so that it is fetched again; its bytes go
with the pack. Sessions that have it open read a copy of theirs.

What a damaged index still tells of is put into another pack, and the old one removed,
unless somebody on this node is writing it.
"""

import os
from collections.abc import Iterator
from contextlib import closing

from cvmfsexec.cache.faults import Fault, Problem, Remedy, Tally
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pack_listing import names_in
from cvmfsexec.cache.pack_places import Place
from cvmfsexec.cache.pack_tidying import PackTidying
from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK
from cvmfsexec.cache.packs import Packs
from cvmfsexec.errors import CacheError
from cvmfsexec.format.pack_index import RecordKind

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PACK_BYTES = 1 << 20  # of one that is begun to note what is gone


def inspect_packs(path: str, remedy: Remedy) -> Iterator[Tally]:
    """Yield what is found in each pack of a cache directory; nothing if it has none.

    Files of their own are objects like others: see ``inspection``.

    Args:
        path: The directory.
        remedy: What to do about what is wrong.

    Raises:
        CacheError: It cannot be opened, or no descriptor or memory is left.
    """
    try:
        directory = os.open(path, _FLAGS)
    except OSError as error:
        raise CacheError(f"cannot open {path}: {error.strerror}") from error
    try:
        with closing(Packs(directory, _PACK_BYTES)) as packs:
            packs.lookout.look_at_all()
            tidying = PackTidying(directory, packs, 0, _PACK_BYTES)
            for name in _names(directory):
                tally = _inspect_pack(packs, name, remedy)
                what = _damage(directory, packs, name)
                if what:
                    fault = _index_fault(name, what, tidying, remedy)
                    tally = tally._replace(faults=(*tally.faults, fault))
                yield tally
    finally:
        close_quietly(directory)


def _names(directory: int) -> list[str]:
    try:
        return names_in(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(f"cannot list {DIRECTORY}: {error.strerror}") from error


def _inspect_pack(packs: Packs, name: str, remedy: Remedy) -> Tally:
    count = total_bytes = 0
    faults: list[Fault] = []
    for place in packs.told_by(name):
        if place.record.kind is RecordKind.PACKED:
            count += 1
            total_bytes += place.record.size_bytes
            if packs.read(place) is None:
                faults.append(_fault(packs, place, remedy))
    return Tally(count, total_bytes, tuple(faults), ())


def _fault(packs: Packs, place: Place, remedy: Remedy) -> Fault:
    """Tell of an object that is not what its record says, after mending that."""
    content_hash = place.record.content_hash
    fault = Fault(
        f"{DIRECTORY}/{place.pack}{PACK}", Problem.CORRUPT, f"object {content_hash}"
    )
    if not remedy.repairs:
        return fault
    try:
        packs.remove(content_hash)
    except OSError as error:
        return fault._replace(detail=f"{fault.detail}; {error.strerror}")
    return fault._replace(is_fixed=True)


def _damage(directory: int, packs: Packs, name: str) -> str:
    """Return in words what is wrong with an index; empty for nothing."""
    if packs.index_bytes(name):
        damaged_count = packs.damaged_count(name)
        return f"{damaged_count} records" if damaged_count else ""
    try:
        is_begun = os.stat(f"{DIRECTORY}/{name}{PACK}", dir_fd=directory).st_size > 0
    except OSError:
        return ""  # removed meanwhile
    return "no beginning" if is_begun else ""


def _index_fault(name: str, detail: str, tidying: PackTidying, remedy: Remedy) -> Fault:
    """Tell of a damaged index, after mending that."""
    path = f"{DIRECTORY}/{name}{INDEX}"
    fault = Fault(path, Problem.DAMAGED_RECORD, detail)
    if not remedy.repairs:
        return fault
    try:
        is_fixed = tidying.renew(name)
        tidying.tell_of_files()
    except OSError as error:
        return fault._replace(detail=f"{detail}; {error.strerror}")
    return fault._replace(is_fixed=is_fixed)
