"""Cache instances: which parameters make which store."""

import os
from pathlib import Path

import pytest

from cvmfsexec.cache.ledger_format import BYTES_MAX
from cvmfsexec.cli.exit_codes import CACHE, exit_status_of
from cvmfsexec.configuration.cache_instances import (
    CacheInstance,
    StoreKind,
    StoreSettings,
)
from cvmfsexec.configuration.evaluate import evaluate
from cvmfsexec.configuration.settings import ClientSettings
from cvmfsexec.errors import CacheSettingError, ConfigurationError
from tests.support.configuration import make_dist

FQRN = "software.example.org"
MB = 1 << 20


def store(tmp_path: Path, local: str) -> StoreSettings:
    root = make_dist(tmp_path, {"default.local": local})
    return CacheInstance.primary(evaluate(FQRN, root, None, {})).settings()


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (
            "CVMFS_CACHE_BASE=/c\n",
            StoreSettings(StoreKind.POSIX, f"/c/{FQRN}", 4000 * MB),
        ),
        (
            "CVMFS_CACHE_BASE=/c\nCVMFS_SHARED_CACHE=yes\nCVMFS_QUOTA_LIMIT=7\n",
            StoreSettings(StoreKind.POSIX, "/c/shared", 7 * MB),
        ),
        (
            "CVMFS_CACHE_BASE=/c\nCVMFS_CACHE_TYPE=packed\nCVMFS_QUOTA_LIMIT=-1\n",
            StoreSettings(StoreKind.PACKED, f"/c/{FQRN}"),
        ),
        (
            "CVMFS_CACHE_TYPE=ram\nCVMFS_CACHE_SIZE=300\n",
            StoreSettings(StoreKind.RAM, limit_bytes=300 * MB),
        ),
        (
            "CVMFS_ALIEN_CACHE=/a\nCVMFS_QUOTA_LIMIT=-1\nCVMFS_ALIEN_CACHE_LIMIT=9\n",
            StoreSettings(StoreKind.ALIEN, "/a", 9 * MB),
        ),
        (
            "CVMFS_CACHE_PRIMARY=x\nCVMFS_CACHE_x_TYPE=posix\nCVMFS_CACHE_x_BASE=/x\n"
            "CVMFS_CACHE_x_SHARED=yes\nCVMFS_CACHE_x_QUOTA_LIMIT=5\n",
            StoreSettings(StoreKind.POSIX, "/x/shared", 5 * MB),
        ),
        (
            "CVMFS_CACHE_PRIMARY=x\nCVMFS_CACHE_x_TYPE=posix\nCVMFS_CACHE_x_ALIEN=/a\n"
            "CVMFS_CACHE_x_QUOTA_LIMIT=-1\n",
            StoreSettings(StoreKind.ALIEN, "/a"),
        ),
        (
            "CVMFS_CACHE_PRIMARY=t\nCVMFS_CACHE_t_TYPE=tiered\n"
            "CVMFS_CACHE_t_UPPER=m\nCVMFS_CACHE_t_LOWER=a\n"
            "CVMFS_CACHE_t_LOWER_READONLY=yes\nCVMFS_CACHE_m_TYPE=ram\n"
            "CVMFS_CACHE_m_SIZE=64\nCVMFS_CACHE_a_TYPE=posix\n"
            "CVMFS_CACHE_a_ALIEN=/a\nCVMFS_CACHE_a_QUOTA_LIMIT=0\n",
            StoreSettings(
                StoreKind.TIERED,
                upper=StoreSettings(StoreKind.RAM, limit_bytes=64 * MB),
                lower=StoreSettings(StoreKind.ALIEN, "/a"),
            ),
        ),
    ],
)
def test_parameters_make_a_store(
    tmp_path: Path, local: str, expected: StoreSettings
) -> None:
    assert store(tmp_path, local) == expected


def test_memory_is_a_part_of_what_there_is(tmp_path: Path) -> None:
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert store(tmp_path, "CVMFS_CACHE_TYPE=ram\n").limit_bytes == memory_bytes // 32
    half = store(tmp_path, "CVMFS_CACHE_TYPE=ram\nCVMFS_CACHE_SIZE=50%\n")
    assert half.limit_bytes == memory_bytes // 2


@pytest.mark.parametrize(
    ("local", "complaint"),
    [
        ("CVMFS_ALIEN_CACHE=/a\n", "mutually exclusive"),
        (
            "CVMFS_ALIEN_CACHE=/a\nCVMFS_QUOTA_LIMIT=-1\nCVMFS_SHARED_CACHE=yes\n",
            "cannot go with a shared cache",
        ),
        ("CVMFS_CACHE_TYPE=external\n", "asks for a cache plug-in"),
        ("CVMFS_CACHE_TYPE=floppy\n", "is none of posix, ram, packed, tiered"),
        ("CVMFS_CACHE_PRIMARY=x\n", "CVMFS_CACHE_x_TYPE.*is not set"),
        ("CVMFS_CACHE_PRIMARY='x y'\n", "names no cache instance"),
        ("CVMFS_CACHE_TYPE=tiered\n", "CVMFS_CACHE_UPPER.*names no cache instance"),
        (
            "CVMFS_CACHE_PRIMARY=t\nCVMFS_CACHE_t_TYPE=tiered\n"
            "CVMFS_CACHE_t_UPPER=t\nCVMFS_CACHE_t_LOWER=t\n",
            "is tiered more often than makes sense",
        ),
        (
            "CVMFS_CACHE_PRIMARY=t\nCVMFS_CACHE_t_TYPE=tiered\n"
            "CVMFS_CACHE_t_UPPER=a\nCVMFS_CACHE_t_LOWER=b\n"
            "CVMFS_CACHE_a_TYPE=posix\nCVMFS_CACHE_b_TYPE=packed\n",
            "where the upper one does",
        ),
        ("CVMFS_CACHE_BASE=/a\nCVMFS_CACHE_DIR=/b\n", "mutually exclusive"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_status_of_a_cache(
    tmp_path: Path, local: str, complaint: str
) -> None:
    with pytest.raises(CacheSettingError, match=complaint) as caught:
        store(tmp_path, local)
    assert exit_status_of(caught.value) == CACHE


@pytest.mark.parametrize(
    "size", ["101%", "0%", "1000000%", "-1", "much", "%", "5%%", "٣%"]
)
def test_a_size_that_is_none_is_refused(tmp_path: Path, size: str) -> None:
    with pytest.raises(ConfigurationError, match="CVMFS_CACHE_SIZE"):
        store(tmp_path, f"CVMFS_CACHE_TYPE=ram\nCVMFS_CACHE_SIZE={size}\n")


@pytest.mark.parametrize(
    "settings",
    [
        "CVMFS_QUOTA_LIMIT={}\n",
        "CVMFS_CACHE_TYPE=packed\nCVMFS_QUOTA_LIMIT={}\n",
        "CVMFS_CACHE_TYPE=ram\nCVMFS_CACHE_SIZE={}\n",
        "CVMFS_ALIEN_CACHE=/a\nCVMFS_QUOTA_LIMIT=-1\nCVMFS_ALIEN_CACHE_LIMIT={}\n",
    ],
    ids=["posix", "packed", "ram", "alien"],
)
def test_a_limit_that_is_no_size_of_anything_is_refused(
    tmp_path: Path, settings: str
) -> None:
    """Bytes have to fit where the kernel and the ledger keep them."""
    with pytest.raises(ConfigurationError, match="is more than 1099511627776"):
        store(tmp_path, settings.format(10**17))
    largest = store(tmp_path, settings.format(1 << 40))
    assert largest.limit_bytes == BYTES_MAX


def test_a_read_only_alien_cache_is_below_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may do all
    alien = tmp_path / "alien"
    alien.mkdir(mode=0o555)
    local = f"CVMFS_CACHE_BASE=/c\nCVMFS_ALIEN_CACHE={alien}\nCVMFS_QUOTA_LIMIT=5\n"
    assert store(tmp_path, local) == StoreSettings(
        StoreKind.TIERED,
        upper=StoreSettings(StoreKind.POSIX, f"/c/{FQRN}", 5 * MB),
        lower=StoreSettings(StoreKind.ALIEN, str(alien)),
    )


def test_the_limit_that_is_shown_is_that_of_what_is_stored(tmp_path: Path) -> None:
    local = (
        "CVMFS_CACHE_PRIMARY=t\nCVMFS_CACHE_t_TYPE=tiered\nCVMFS_CACHE_t_UPPER=m\n"
        "CVMFS_CACHE_t_LOWER=p\nCVMFS_CACHE_m_TYPE=ram\nCVMFS_CACHE_m_SIZE=64\n"
        "CVMFS_CACHE_p_TYPE=packed\nCVMFS_CACHE_BASE=/c\n"
    )
    root = make_dist(tmp_path, {"default.local": local})
    configuration = evaluate(FQRN, root, None, {})
    cache = ClientSettings.from_configuration(configuration).cache
    assert cache.quota_limit_mb == 64
    # What is not an object lies where it always does.
    assert cache.directory == cache.workspace == f"/c/{FQRN}"
