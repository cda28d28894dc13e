"""Which directory the configuration comes from."""

from pathlib import Path

import pytest

from cvmfsexec.configuration.locate import (
    ConfigurationRoot,
    locate,
    user_directories,
)
from cvmfsexec.errors import ConfigurationError


@pytest.fixture
def dists(tmp_path: Path) -> Path:
    for name in ("option", "variable", "command/dist"):
        (tmp_path / name / "etc/cvmfs").mkdir(parents=True)
    return tmp_path


def test_option_wins_over_variable_over_command(dists: Path) -> None:
    command = str(dists / "command")
    option, variable = str(dists / "option"), str(dists / "variable")
    both = locate(dist_option=option, dist_variable=variable, command_directory=command)
    assert both.dist == option
    assert locate(dist_variable=variable, command_directory=command).dist == variable
    assert locate(command_directory=command).dist == command + "/dist"
    assert locate(dist_variable="", command_directory=command).dist == command + "/dist"


def test_relative_option_becomes_absolute(
    dists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dists)
    root = locate(dist_option="option/", command_directory="/")
    assert root.dist == str(dists / "option")


@pytest.mark.parametrize("option", ["", "nowhere", "command"])
def test_option_without_configuration_is_not_replaced_by_another(
    dists: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(dists)
    with pytest.raises(ConfigurationError, match="--dist") as caught:
        locate(dist_option=option, command_directory=str(dists / "command"))
    assert "or name a directory" in caught.value.hint


def test_missing_dist_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=f"{tmp_path}/dist/etc/cvmfs"
    ) as caught:
        locate(command_directory=str(tmp_path))
    for way in ("makedist", "run-at-a-site.md", "--dist", "$CVMFSEXEC_DIST"):
        assert way in caught.value.hint


def test_everything_lies_in_or_beside_the_dist() -> None:
    root = ConfigurationRoot("/opt/x/dist")
    assert root.etc == "/opt/x/dist/etc/cvmfs"
    assert root.cache_base == "/opt/x/dist/var/lib/cvmfs"
    assert root.log_directory == "/opt/x/log"


def test_places_that_were_given_count_instead() -> None:
    root = ConfigurationRoot(
        "/", given_cache="/a", given_logs="/b", given_site_defaults="/c"
    )
    assert (root.cache_base, root.log_directory, root.site_defaults) == (
        "/a",
        "/b",
        "/c",
    )


def test_root_of_the_machine_is_a_dist_like_any() -> None:
    root = ConfigurationRoot("/")
    assert (root.etc, root.cache_base) == ("/etc/cvmfs", "/var/lib/cvmfs")
    assert root.log_directory == "/var/log/cvmfs"


@pytest.mark.parametrize(
    ("environment", "directories"),
    [
        (
            {"HOME": "/h", "XDG_CACHE_HOME": "/c", "TMPDIR": "/t"},
            ("/c/cvmfsexec", "/h/.cache/cvmfsexec", "/t/cvmfsexec-7"),
        ),
        ({"HOME": "/h"}, ("/h/.cache/cvmfsexec", "/tmp/cvmfsexec-7")),
        (
            {"HOME": "/h", "XDG_CACHE_HOME": "/h/.cache"},
            ("/h/.cache/cvmfsexec", "/tmp/cvmfsexec-7"),
        ),
        ({"XDG_CACHE_HOME": "c", "TMPDIR": ""}, ("/tmp/cvmfsexec-7",)),
    ],
)
def test_user_directories_follow_the_environment(
    environment: dict[str, str], directories: tuple[str, ...]
) -> None:
    assert user_directories(environment, 7) == directories
