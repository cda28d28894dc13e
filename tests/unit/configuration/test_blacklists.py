"""Blacklist files."""

from pathlib import Path

import pytest

from cvmfsexec.configuration.blacklists import (
    BLACKLIST_BYTES_MAX,
    blacklist_paths,
    read_blacklists,
)
from cvmfsexec.configuration.evaluate import evaluate
from cvmfsexec.errors import ConfigurationError
from tests.support.configuration import make_dist, write_files


def test_local_and_distributed_blacklists_are_read(tmp_path: Path) -> None:
    root = make_dist(
        tmp_path,
        {
            "default.conf": "CVMFS_CONFIG_REPOSITORY=config.example.org\n",
            "blacklist": "local\n",
        },
    )
    repository = tmp_path / "repository"
    write_files(repository / "etc/cvmfs", {"blacklist": "distributed é\n"})
    configuration = evaluate("x.example.org", root, str(repository), {})
    texts = read_blacklists(blacklist_paths(configuration))
    assert [text.split()[0] for text in texts] == ["local", "distributed"]


def test_configured_blacklist_replaces_the_default(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("own\n")
    local = f"CVMFS_BLACKLIST={own}\n"
    root = make_dist(tmp_path, {"default.local": local, "blacklist": "default\n"})
    configuration = evaluate("x.example.org", root, None, {})
    assert read_blacklists(blacklist_paths(configuration)) == ("own\n",)


def test_no_blacklist_is_no_text(tmp_path: Path) -> None:
    configuration = evaluate("x.example.org", make_dist(tmp_path, {}), None, {})
    assert read_blacklists(blacklist_paths(configuration)) == ()


def test_blacklist_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read blacklist"):
        read_blacklists((str(tmp_path),))


def test_endless_blacklist_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "blacklist"
    path.write_bytes(b"\n" * (BLACKLIST_BYTES_MAX + 1))
    with pytest.raises(ConfigurationError, match="longer than"):
        read_blacklists((str(path),))
