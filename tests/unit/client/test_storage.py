"""Which store is opened for which settings."""

import os
from pathlib import Path

import pytest

from cvmfsexec import log
from cvmfsexec.cache import file_system_type, ram
from cvmfsexec.cache.alien import AlienStore
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.cache.packed import PackedStore
from cvmfsexec.cache.ram import RamStore
from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.cache.tiered import TieredStore
from cvmfsexec.client.storage import open_store
from cvmfsexec.configuration.cache_instances import StoreKind, StoreSettings
from cvmfsexec.configuration.settings import CacheSettings
from cvmfsexec.errors import CacheError
from tests.support.descriptors import descriptor_count
from tests.support.store_contract import CONTENT, NAME, content_of, put

UID = 4321


def opened(
    top: Path, store: StoreSettings, workspace: str | None = None
) -> ObjectStore:
    directory = str(top / "own")
    settings = CacheSettings(
        directory=directory,
        is_shared=False,
        store=store,
        workspace=workspace or directory,
        quota_limit_mb=0,
        shared_directory=str(top),
    )
    return open_store(settings, UID)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "shm"
    path.mkdir()
    open_for = RamStore.open_for
    monkeypatch.setattr(
        ram.RamStore, "open_for", lambda uid, limit: open_for(uid, limit, str(path))
    )
    return path


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *rest: said.append(text % rest))
    return said


@pytest.mark.parametrize(
    ("kind", "store_type"),
    [
        (StoreKind.POSIX, DirectoryStore),
        (StoreKind.ALIEN, AlienStore),
        (StoreKind.RAM, RamStore),
        (StoreKind.PACKED, PackedStore),
    ],
)
def test_each_kind_has_its_store(
    tmp_path: Path, kind: StoreKind, store_type: type
) -> None:
    settings = StoreSettings(kind, str(tmp_path / kind.value), 1 << 30)
    store = opened(tmp_path, settings, str(tmp_path / "workspace"))
    assert type(store) is store_type
    assert content_of(put(store, NAME, CONTENT)) == CONTENT
    store.close()
    # What is not an object has its place, whatever the kind.
    assert (tmp_path / "workspace").stat().st_mode & 0o777 == 0o700


def test_a_workspace_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace").chmod(0o777)
    settings = StoreSettings(StoreKind.RAM, limit_bytes=1 << 30)
    with pytest.raises(CacheError, match="other users can write"):
        opened(tmp_path, settings, str(tmp_path / "workspace"))


def test_a_directory_of_a_group_is_verified_if_the_workspace_is_elsewhere(
    tmp_path: Path,
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    settings = StoreSettings(StoreKind.POSIX, str(shared))
    store = opened(tmp_path, settings, str(tmp_path / "workspace"))
    assert type(store) is AlienStore
    store.close()
    # A breadcrumb in it could name any root catalog.
    with pytest.raises(CacheError, match="other users can write"):
        opened(tmp_path, settings, str(shared))


def test_without_shared_memory_each_process_has_its_own(
    tmp_path: Path, memory: Path, warnings: list[str]
) -> None:
    memory.rmdir()
    store = opened(tmp_path, StoreSettings(StoreKind.RAM, limit_bytes=100))
    assert type(store) is MemoryStore
    assert "each repository has a RAM cache of its own" in warnings[0]
    os.close(put(store, NAME, b"x" * 80))
    other = NAME._replace(digest=bytes(20))
    os.close(put(store, other, b"y" * 80))
    assert not store.has(NAME)
    assert store.has(other)
    assert store.used_bytes() == 80
    os.close(put(store, NAME, b"z" * 101))
    assert not store.has(NAME)


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("kind", [StoreKind.POSIX, StoreKind.ALIEN, StoreKind.PACKED])
def test_tiers_are_of_any_kind(
    tmp_path: Path, kind: StoreKind, *, is_written: bool
) -> None:
    lower = tmp_path / "lower"
    lower.mkdir(mode=0o700)
    settings = StoreSettings(
        StoreKind.TIERED,
        upper=StoreSettings(StoreKind.RAM, limit_bytes=1 << 30),
        lower=StoreSettings(kind, str(lower)),
        is_lower_written=is_written,
    )
    store = opened(tmp_path, settings)
    assert type(store) is TieredStore
    os.close(put(store, NAME, CONTENT))
    assert content_of(store.open_object(NAME)) == CONTENT
    store.close()
    assert bool(list(lower.iterdir())) is is_written


def test_a_missing_lower_cache_is_told_and_leaves_nothing_open(
    tmp_path: Path, memory: Path
) -> None:
    settings = StoreSettings(
        StoreKind.TIERED,
        upper=StoreSettings(StoreKind.RAM, limit_bytes=1 << 30),
        lower=StoreSettings(StoreKind.ALIEN, str(tmp_path / "nothing")),
    )
    before = descriptor_count()
    with pytest.raises(CacheError, match="cannot read the lower cache"):
        opened(tmp_path, settings)
    assert descriptor_count() == before
    assert list(memory.iterdir()) == []


def test_a_lower_cache_of_the_user_is_believed(tmp_path: Path) -> None:
    lower = tmp_path / "lower"
    filler = DirectoryStore.open(str(lower))
    os.close(put(filler, NAME, CONTENT))  # which is not what its name says
    filler.close()
    settings = StoreSettings(
        StoreKind.TIERED,
        upper=StoreSettings(StoreKind.POSIX, str(tmp_path / "own")),
        lower=StoreSettings(StoreKind.POSIX, str(lower)),
    )
    for mode, expected in ((0o700, CONTENT), (0o770, None)):
        lower.chmod(mode)
        store = opened(tmp_path, settings)
        descriptor = store.open_object(NAME)
        if expected is None:
            assert descriptor is None
        else:
            assert content_of(descriptor) == expected
        store.remove(NAME)
        store.close()


def test_a_network_file_system_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    monkeypatch.setattr(os, "major", lambda _device: 0)
    monkeypatch.setattr(file_system_type, "type_of_device", lambda *_: "lustre")
    settings = StoreSettings(StoreKind.POSIX, str(tmp_path / "own"))
    opened(tmp_path, settings).close()
    assert len(warnings) == 1
    assert "lies on lustre, a network file system" in warnings[0]
    assert "CVMFS_CACHE_TYPE=packed" in warnings[0]
    opened(tmp_path, settings._replace(kind=StoreKind.PACKED)).close()
    assert len(warnings) == 1
