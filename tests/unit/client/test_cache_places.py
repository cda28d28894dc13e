"""Which caches there are, told without asking anybody."""

import os
from pathlib import Path

import pytest

from cvmfsexec.client.cache_places import all_places, place_at, places_of
from cvmfsexec.configuration.cache_instances import StoreKind
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError
from tests.support.configuration import make_dist

CRUMB = "4f6f1a" + "0" * 34 + "T1700000000R3"


def dist(tmp_path: Path, lines: str = "") -> ConfigurationRoot:
    return make_dist(tmp_path, {"default.local": lines})


def make_cache(path: Path, *names: str) -> Path:
    (path / "00").mkdir(parents=True)
    for name in names:
        (path / f"cvmfschecksum.{name}").write_text(CRUMB)
    return path


def base_of(root: ConfigurationRoot) -> Path:
    return Path(root.dist) / "var/lib/cvmfs"


def test_caches_that_are_there_are_found(tmp_path: Path) -> None:
    root = dist(tmp_path, "CVMFS_QUOTA_LIMIT=1500\n")
    one = make_cache(base_of(root) / "one.example.org", "one.example.org")
    make_cache(base_of(root) / "two.example.org", "two.example.org")
    (base_of(root) / "no-cache").mkdir()
    (base_of(root) / "file").touch()
    places = all_places(root, os.environ)
    assert [place.repositories for place in places] == [
        ("one.example.org",),
        ("two.example.org",),
    ]
    assert places[0][:4] == (str(one), str(one), StoreKind.POSIX, 1500 << 20)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert all_places(dist(tmp_path), os.environ) == []


def test_a_shared_cache_is_one(tmp_path: Path) -> None:
    root = dist(tmp_path, "CVMFS_SHARED_CACHE=yes\n")
    make_cache(base_of(root) / "shared", "one.example.org", "two.example.org")
    (place,) = all_places(root, os.environ)
    assert place.repositories == ("one.example.org", "two.example.org")
    assert place == places_of(place.repositories, root, os.environ)[0]


@pytest.mark.parametrize(
    ("one", "two", "both"), [(10, 20, 10), (20, 10, 10), (-1, 10, 10), (-1, -1, 0)]
)
def test_the_lowest_limit_of_all_repositories_is_that_of_their_cache(
    tmp_path: Path, one: int, two: int, both: int
) -> None:
    lines = f"CVMFS_SHARED_CACHE=yes\nCVMFS_QUOTA_LIMIT={two}\n"
    files = {
        "default.local": lines,
        "config.d/one.example.org.conf": f"CVMFS_QUOTA_LIMIT={one}\n",
    }
    root = make_dist(tmp_path, files)
    names = ("one.example.org", "two.example.org")
    (place,) = places_of(names, root, os.environ)
    assert place.limit_bytes == both << 20


def test_an_alien_cache_is_found_by_its_workspace(tmp_path: Path) -> None:
    alien = make_cache(tmp_path / "alien")
    root = dist(tmp_path, f"CVMFS_ALIEN_CACHE={alien}\nCVMFS_QUOTA_LIMIT=-1\n")
    workspace = base_of(root) / "one.example.org"
    make_cache(workspace, "one.example.org")
    (place,) = all_places(root, os.environ)
    assert (place.directory, place.workspace) == (str(alien), str(workspace))
    assert place.kind is StoreKind.ALIEN


def test_tiers_are_two_caches(tmp_path: Path) -> None:
    root = dist(
        tmp_path,
        "CVMFS_CACHE_PRIMARY=both\nCVMFS_CACHE_both_TYPE=tiered\n"
        "CVMFS_CACHE_both_UPPER=near\nCVMFS_CACHE_both_LOWER=far\n"
        f"CVMFS_CACHE_near_TYPE=posix\nCVMFS_CACHE_near_BASE={tmp_path}/near\n"
        f"CVMFS_CACHE_far_TYPE=packed\nCVMFS_CACHE_far_BASE={tmp_path}/far\n",
    )
    places = places_of(["one.example.org"], root, os.environ)
    assert [place.kind for place in places] == [StoreKind.POSIX, StoreKind.PACKED]
    assert [place.is_files for place in places] == [True, False]


def test_names_that_are_none_are_passed_over(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache", "-x", "one.example.org", "a..b")
    place = place_at(str(cache))
    assert place is not None
    assert place.repositories == ("one.example.org",)


@pytest.mark.parametrize("repositories", [(), ("one.example.org",)])
def test_a_packed_cache_is_known_by_its_packs(
    tmp_path: Path, repositories: tuple[str, ...]
) -> None:
    """Or what it has in files would be taken for all of it, and be removed."""
    cache = make_cache(tmp_path / "cache", *repositories)
    (cache / "cvmfsexec.packs").mkdir()
    place = place_at(str(cache))
    assert place is not None
    assert place.kind is StoreKind.PACKED


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_what_is_no_cache_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert place_at(str(tmp_path / name)) is None


def test_an_impossible_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        places_of(["../x"], dist(tmp_path), os.environ)
