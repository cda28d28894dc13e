"""What paths in values mean."""

from pathlib import Path

import pytest

from cvmfsexec.configuration.files import ConfigurationRepository
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.configuration.paths import PathMap

REPOSITORY = ConfigurationRepository("/cvmfs/config.example.org", "/extracted")


@pytest.fixture
def paths(tmp_path: Path) -> PathMap:
    (tmp_path / "dist/etc/cvmfs/keys").mkdir(parents=True)
    return PathMap(ConfigurationRoot(str(tmp_path / "dist")), REPOSITORY)


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("/cvmfs/config.example.org/etc/cvmfs/keys", "/extracted/etc/cvmfs/keys"),
        ("/cvmfs/config.example.org", "/extracted"),
        ("/cvmfs//config.example.org/./etc/", "/extracted/etc"),
        ("/cvmfs/config.example.org.evil/x", "/cvmfs/config.example.org.evil/x"),
        ("/cvmfs/config.example.org/../x", "/cvmfs/config.example.org/../x"),
        ("/cvmfs/other.example.org/x", "/cvmfs/other.example.org/x"),
        ("/etc/cvmfs/keys", "DIST/etc/cvmfs/keys"),
        ("/etc/cvmfs", "DIST/etc/cvmfs"),
        ("/etc/cvmfs/absent", "/etc/cvmfs/absent"),
        ("/etc/cvmfsexec", "/etc/cvmfsexec"),
        ("/var/lib/cvmfs", "DIST/var/lib/cvmfs"),
        ("/var/lib/cvmfs/osgstorage", "DIST/var/lib/cvmfs/osgstorage"),
        ("/var/run/cvmfs", "DIST/var/run/cvmfs"),
        ("/var/log/cvmfs/a.log", "DIST/../log/a.log"),
        ("/var/scratch/me", "/var/scratch/me"),
        ("/var/lib/cvmfs2", "/var/lib/cvmfs2"),
        ("/scratch/../var/lib/cvmfs", "DIST/var/lib/cvmfs"),
        ("relative", "relative"),
        ("", ""),
    ],
)
def test_path_means(paths: PathMap, value: str, meaning: str) -> None:
    dist = paths.root.dist
    expected = meaning.replace("DIST/..", str(Path(dist).parent)).replace("DIST", dist)
    assert paths.resolve(value) == expected


def test_without_config_repository_its_paths_stay(paths: PathMap) -> None:
    value = "/cvmfs/config.example.org/etc/cvmfs/keys"
    assert paths._replace(repository=None).resolve(value) == value
