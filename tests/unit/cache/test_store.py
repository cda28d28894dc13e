"""The promises of ``ObjectStore``, kept by each kind of store."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.alien import AlienStore
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.cache.ram import RamStore
from cvmfsexec.cache.read_only import ReadOnlyStore
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.cache.tiered import TieredStore
from tests.support.file_systems import Lack, file_system
from tests.support.store_contract import STORE_CLAIMS, Claim, claim_name


def directory_store(top: Path) -> ObjectStore:
    return DirectoryStore.open(str(top / "cache"))


def alien_store(top: Path) -> ObjectStore:
    return AlienStore.open(str(top / "alien"), str(top / "workspace"))


def packed_store(top: Path) -> ObjectStore:
    return PackedStore.open(str(top / "packed"))


def ram_store(top: Path) -> ObjectStore:
    (top / "shm").mkdir()
    return RamStore.open_for(os.getuid(), 1 << 30, str(top / "shm"))


def tiered_store(top: Path) -> ObjectStore:
    return TieredStore(directory_store(top), alien_store(top), is_lower_written=True)


def store_above_a_read_only_one(top: Path) -> ObjectStore:
    (top / "lower").mkdir()
    lower = ReadOnlyStore.open(str(top / "lower"), str(top / "workspace"))
    return TieredStore(directory_store(top), lower, is_lower_written=False)


Make = Callable[[Path], ObjectStore]

IN_FILES: dict[str, Make] = {
    "directory": directory_store,
    "alien": alien_store,
    "packed": packed_store,
    "tiered": tiered_store,
}
ELSEWHERE: dict[str, Make] = {
    "memory": lambda _top: MemoryStore(),
    "limited memory": lambda _top: MemoryStore(1 << 30),
    "ram": ram_store,
    "above a read-only one": store_above_a_read_only_one,
}
CASES: dict[str, tuple[Make, Lack]] = {
    **{
        f"{name} without {lack.value}": (make, lack)
        for name, make in IN_FILES.items()
        for lack in Lack
    },
    **{name: (make, Lack.NOTHING) for name, make in ELSEWHERE.items()},
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    make, lack = request.param
    with file_system(lack):
        made = make(tmp_path)
        yield made
        made.close()


@pytest.mark.parametrize("claim", STORE_CLAIMS, ids=claim_name)
def test_a_store_keeps_its_promise(claim: Claim, store: ObjectStore) -> None:
    claim(store)
