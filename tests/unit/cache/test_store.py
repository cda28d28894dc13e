"""The promises of ``ObjectStore``, kept by each kind of store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.cache.store import ObjectStore
from tests.support.file_systems import Lack, file_system
from tests.support.store_contract import STORE_CLAIMS, Claim, claim_name


@pytest.fixture(params=[*Lack, "memory"], ids=str)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    with file_system(request.param):
        directory_store = DirectoryStore.open(str(tmp_path / "cache"))
        yield directory_store
        directory_store.close()


@pytest.mark.parametrize("claim", STORE_CLAIMS, ids=claim_name)
def test_a_store_keeps_its_promise(claim: Claim, store: ObjectStore) -> None:
    claim(store)
