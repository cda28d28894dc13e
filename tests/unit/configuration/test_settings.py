"""Typed settings of a client."""

from pathlib import Path

import pytest

from cvmfsexec.configuration.cache_instances import StoreKind, StoreSettings
from cvmfsexec.configuration.evaluate import Configuration, evaluate
from cvmfsexec.configuration.id_map import IdMap
from cvmfsexec.configuration.settings import (
    ClientSettings,
    MagicXattrVisibility,
    log_places,
)
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.log import LogPlaces
from tests.support.configuration import make_dist

FQRN = "software.example.org"
HASH = "42cfdfaefcdba55c13e4a15c267340a1d34b3e7f-rmd160"


def configuration(
    tmp_path: Path, local: str = "", default: str = "", **files: str
) -> Configuration:
    root = make_dist(
        tmp_path, {"default.local": local, "default.conf": default, **files}
    )
    return evaluate(FQRN, root, None, {})


def settings(
    tmp_path: Path, local: str = "", default: str = "", **files: str
) -> ClientSettings:
    given = configuration(tmp_path, local, default, **files)
    return ClientSettings.from_configuration(given)


def test_nothing_configured_gives_the_built_in_values(tmp_path: Path) -> None:
    result = settings(tmp_path)
    cache = f"{tmp_path}/dist/var/lib/cvmfs/{FQRN}"
    assert result.cache.directory == result.cache.workspace == cache
    assert (result.cache.is_shared, result.cache.quota_limit_mb) == (False, 4000)
    assert result.view.magic_xattrs is MagicXattrVisibility.ROOT_ONLY
    assert result.view.claim_ownership
    assert result.view.kernel_timeout_s == 60
    assert result.revision.auto_update
    assert not result.revision.is_pinned
    assert result.revision.max_ttl_s is None
    assert not (tmp_path / "dist/var").exists()


@pytest.mark.parametrize(
    ("local", "directory"),
    [
        ("CVMFS_SHARED_CACHE=yes\n", "DIST/var/lib/cvmfs/shared"),
        ("CVMFS_CACHE_BASE=/scratch/c/\n", f"/scratch/c/{FQRN}"),
        ("CVMFS_CACHE_BASE=/scratch\nCVMFS_SHARED_CACHE=on\n", "/scratch/shared"),
        ("CVMFS_CACHE_DIR=/scratch/exact\n", "/scratch/exact"),
        ("CVMFS_CACHE_DIR=/s/x\nCVMFS_SHARED_CACHE=yes\n", "/s/x"),
    ],
)
def test_cache_directory(tmp_path: Path, local: str, directory: str) -> None:
    result = settings(tmp_path, local, default="CVMFS_CACHE_BASE=/var/lib/cvmfs\n")
    assert result.cache.directory == directory.replace("DIST", f"{tmp_path}/dist")


def test_read_only_dist_moves_the_cache_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist/var").write_text("in the way")
    result = settings(tmp_path, "CVMFS_SHARED_CACHE=yes\n")
    assert result.cache.directory == f"{tmp_path}/own/shared"
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", ["-1", "0"])
def test_no_quota_is_zero(tmp_path: Path, text: str) -> None:
    assert settings(tmp_path, f"CVMFS_QUOTA_LIMIT={text}\n").cache.quota_limit_mb == 0


def test_alien_cache_keeps_its_workspace_apart(tmp_path: Path) -> None:
    cache = settings(tmp_path, "CVMFS_ALIEN_CACHE=/alien\nCVMFS_QUOTA_LIMIT=-1\n").cache
    assert cache.store == StoreSettings(StoreKind.ALIEN, "/alien")
    assert cache.workspace.endswith(FQRN)


@pytest.mark.parametrize(
    ("local", "visibility"),
    [
        ("CVMFS_HIDE_MAGIC_XATTRS=yes\n", "never"),
        ("CVMFS_HIDE_MAGIC_XATTRS=no\n", "always"),
        (
            "CVMFS_HIDE_MAGIC_XATTRS=yes\nCVMFS_MAGIC_XATTRS_VISIBILITY=rootonly\n",
            "rootonly",
        ),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=Always\n", "always"),
    ],
)
def test_magic_attributes_are_listed(
    tmp_path: Path, local: str, visibility: str
) -> None:
    assert settings(tmp_path, local).view.magic_xattrs.value == visibility


def test_id_maps_are_read_from_the_dist(tmp_path: Path) -> None:
    view = settings(
        tmp_path, "CVMFS_UID_MAP=/etc/cvmfs/uid.map\n", **{"uid.map": "1 2\n* 3\n"}
    ).view
    assert view.uid_map == IdMap({1: 2}, 3)
    assert view.gid_map is None


@pytest.mark.parametrize(
    ("local", "date_s"),
    [
        ("CVMFS_REPOSITORY_DATE=1970-01-02T00:00:01Z\n", 86401),
        ("CVMFS_REPOSITORY_DATE=2024-02-29T12:00:00Z\n", 1709208000),
    ],
)
def test_date_is_utc(tmp_path: Path, local: str, date_s: int) -> None:
    assert settings(tmp_path, local).revision.date_s == date_s


@pytest.mark.parametrize(
    "pin",
    [
        f"CVMFS_ROOT_HASH={HASH}",
        "CVMFS_REPOSITORY_TAG=v1",
        "CVMFS_REPOSITORY_DATE=1970-01-01T00:00:00Z",
    ],
)
def test_pinned_revision_is_never_updated(tmp_path: Path, pin: str) -> None:
    revision = settings(tmp_path, pin + "\nCVMFS_AUTO_UPDATE=yes\n").revision
    assert revision.is_pinned
    assert not revision.auto_update
    assert str(revision.root_hash) in (HASH, "None")


def test_ttl_is_in_minutes(tmp_path: Path) -> None:
    assert settings(tmp_path, "CVMFS_MAX_TTL=5\n").revision.max_ttl_s == 300


@pytest.mark.parametrize(
    ("local", "name"),
    [
        ("CVMFS_QUOTA_LIMIT=lots\n", "CVMFS_QUOTA_LIMIT"),
        ("CVMFS_CACHE_BASE=cache\n", "CVMFS_CACHE_BASE"),
        ("CVMFS_CACHE_DIR=/a\nCVMFS_CACHE_BASE=/b\n", "CVMFS_CACHE_BASE"),
        ("CVMFS_ALIEN_CACHE=/a\nCVMFS_SHARED_CACHE=yes\n", "CVMFS_ALIEN_CACHE"),
        ("CVMFS_ALIEN_CACHE=/a\nCVMFS_QUOTA_LIMIT=10\n", "CVMFS_ALIEN_CACHE"),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=some\n", "CVMFS_MAGIC_XATTRS_VISIBILITY"),
        ("CVMFS_ROOT_HASH=abc\n", "CVMFS_ROOT_HASH"),
        ("CVMFS_REPOSITORY_DATE=yesterday\n", "CVMFS_REPOSITORY_DATE"),
        ("CVMFS_REPOSITORY_DATE=2024-13-01T00:00:00Z\n", "CVMFS_REPOSITORY_DATE"),
        ("CVMFS_REPOSITORY_DATE=2024-12-01T00:00:00+01\n", "CVMFS_REPOSITORY_DATE"),
        ("CVMFS_MAX_TTL=-1\n", "CVMFS_MAX_TTL"),
        ("CVMFS_UID_MAP=/nonexistent/map\n", "CVMFS_UID_MAP"),
    ],
)
def test_value_that_is_not_understood_is_named(
    tmp_path: Path, local: str, name: str
) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        settings(tmp_path, local)
    assert "dist/etc/cvmfs/default.local" in str(caught.value)


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("", LogPlaces(FQRN, "TOP/log/FQRN.log")),
        ("CVMFS_USYSLOG=/a/b\n", LogPlaces(FQRN, "/a/b")),
        ("CVMFS_DEBUGLOG=/d\n", LogPlaces(FQRN, "TOP/log/FQRN.log", "/d")),
        ("CVMFS_USYSLOG=\n", LogPlaces(FQRN, syslog_facility=1)),
        (
            "CVMFS_USYSLOG=\nCVMFS_SYSLOG_FACILITY=3\nCVMFS_SYSLOG_LEVEL=2\n"
            "CVMFS_SYSLOG_PREFIX=mine\n",
            LogPlaces("mine", syslog_facility=19, syslog_priority="info"),
        ),
    ],
)
def test_messages_are_kept_where_the_parameters_say(
    tmp_path: Path, local: str, expected: LogPlaces
) -> None:
    file = expected.file.replace("TOP", str(tmp_path)).replace("FQRN", FQRN)
    places = log_places(configuration(tmp_path, local))
    assert places == expected._replace(file=file)


@pytest.mark.parametrize(
    "local",
    [
        "CVMFS_USYSLOG=relative\n",
        "CVMFS_DEBUGLOG=relative\n",
        "CVMFS_SYSLOG_LEVEL=3\n",
        "CVMFS_SYSLOG_LEVEL=high\n",
        "CVMFS_SYSLOG_FACILITY=8\n",
    ],
)
def test_places_for_messages_that_mean_nothing_are_refused(
    tmp_path: Path, local: str
) -> None:
    with pytest.raises(ConfigurationError, match=local.partition("=")[0]):
        log_places(configuration(tmp_path, local))


def test_some_attributes_are_for_some_groups(tmp_path: Path) -> None:
    local = (
        "CVMFS_XATTR_PROTECTED_XATTRS=user.fqrn,hash\n"
        "CVMFS_XATTR_PRIVILEGED_GIDS='10, 20'\n"
    )
    view = settings(tmp_path, local).view
    assert view.protected_xattrs == ("user.fqrn", "user.hash")
    assert view.privileged_gids == (10, 20)


@pytest.mark.parametrize("gids", ["staff", "-1", "1;2", "99999999999", "\u0661"])
def test_what_is_no_group_is_refused(tmp_path: Path, gids: str) -> None:
    with pytest.raises(ConfigurationError, match="no group's number"):
        settings(tmp_path, f"CVMFS_XATTR_PRIVILEGED_GIDS='{gids}'\n")
