"""What must be configured, and the words in which its absence is told."""

from pathlib import Path

import pytest

from cvmfsexec.configuration.evaluate import Configuration, evaluate
from cvmfsexec.configuration.requirements import check_requirements
from cvmfsexec.errors import ConfigurationError
from tests.support.configuration import make_dist

FQRN = "software.example.org"
COMPLETE = "CVMFS_SERVER_URL=http://s/cvmfs/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"


def configured(tmp_path: Path, local: str) -> Configuration:
    root = make_dist(tmp_path, {"default.local": local})
    return evaluate(FQRN, root, None, {})


def test_servers_and_proxies_are_enough(tmp_path: Path) -> None:
    check_requirements(configured(tmp_path, COMPLETE))


def test_unknown_repository_is_told_with_files_read_and_what_to_add(
    tmp_path: Path,
) -> None:
    with pytest.raises(
        ConfigurationError, match=f"unknown repository {FQRN}"
    ) as caught:
        check_requirements(configured(tmp_path, "CVMFS_HTTP_PROXY=DIRECT\n"))
    assert "dist/etc/cvmfs/default.local" in str(caught.value)
    assert f"config.d/{FQRN}.conf" in caught.value.hint
    assert "CVMFS_SERVER_URL=" in caught.value.hint


def test_unreachable_config_repository_is_mentioned(tmp_path: Path) -> None:
    local = "CVMFS_CONFIG_REPOSITORY=config.example.org\n"
    root = make_dist(tmp_path, {"default.conf": local})
    with pytest.raises(ConfigurationError, match=r"config\.example\.org could not"):
        check_requirements(evaluate(FQRN, root, None, {}))


def test_empty_dist_is_called_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no files"):
        check_requirements(evaluate(FQRN, make_dist(tmp_path, {}), None, {}))


@pytest.mark.parametrize("proxy", ["", "CVMFS_HTTP_PROXY=\n"], ids=["unset", "empty"])
def test_missing_proxy_is_never_direct(tmp_path: Path, proxy: str) -> None:
    local = "CVMFS_SERVER_URL=http://s\n" + proxy
    with pytest.raises(ConfigurationError, match="CVMFS_HTTP_PROXY required") as caught:
        check_requirements(configured(tmp_path, local))
    assert "default.local" in caught.value.hint


@pytest.mark.parametrize(
    "repositories",
    ["", "CVMFS_REPOSITORIES=a.example.org,b\n"],
    ids=["unset", "others"],
)
def test_strict_mount_refuses_what_is_not_listed(
    tmp_path: Path, repositories: str
) -> None:
    local = COMPLETE + "CVMFS_STRICT_MOUNT=yes\n" + repositories
    with pytest.raises(
        ConfigurationError, match=f"Not allowed to mount {FQRN}, add it to CVMFS_REPOS"
    ):
        check_requirements(configured(tmp_path, local))


@pytest.mark.parametrize(
    "listed",
    [
        f"CVMFS_REPOSITORIES=a.example.org,{FQRN}",
        "CVMFS_REPOSITORIES=software\nCVMFS_DEFAULT_DOMAIN=example.org",
    ],
)
def test_strict_mount_allows_what_is_listed(tmp_path: Path, listed: str) -> None:
    check_requirements(
        configured(tmp_path, f"{COMPLETE}CVMFS_STRICT_MOUNT=yes\n{listed}\n")
    )


def test_strict_mount_allows_the_config_repository(tmp_path: Path) -> None:
    text = f"{COMPLETE}CVMFS_STRICT_MOUNT=yes\nCVMFS_CONFIG_REPOSITORY={FQRN}\n"
    root = make_dist(tmp_path, {"default.conf": text})
    check_requirements(evaluate(FQRN, root, None, {}))
