"""Network settings with proxies that were found, and where that is remembered."""

import logging
from pathlib import Path

import pytest

from cvmfsexec.client.connections import external_network_settings, network_settings
from cvmfsexec.configuration.evaluate import Configuration, evaluate
from cvmfsexec.configuration.settings import CacheSettings, ClientSettings
from cvmfsexec.format.proxy_groups import format_proxy_list
from tests.support.configuration import make_dist

FQRN = "repo.example.org"


def configured(
    directory: Path, **parameters: str
) -> tuple[Configuration, CacheSettings]:
    values = {
        "CVMFS_SERVER_URL": "http://s.invalid/@fqrn@",
        "CVMFS_HTTP_PROXY": "auto",
        **parameters,
    }
    if "CVMFS_CACHE_DIR" not in parameters:
        values["CVMFS_CACHE_BASE"] = str(directory / "cache")
    lines = "".join(f"{name}='{value}'\n" for name, value in values.items())
    root = make_dist(directory, {"default.local": lines})
    configuration = evaluate(FQRN, root, None, {})
    return configuration, ClientSettings.from_configuration(configuration).cache


@pytest.mark.parametrize(
    ("parameters", "directory"),
    [({}, f"cache/{FQRN}"), ({"CVMFS_SHARED_CACHE": "yes"}, "cache/shared")],
)
def test_last_list_is_kept_in_the_workspace(
    tmp_path: Path, parameters: dict[str, str], directory: str
) -> None:
    configuration, cache = configured(tmp_path, **parameters)
    settings = network_settings(configuration, {"http_proxy": "p:1;q:1"}, cache)
    assert format_proxy_list(settings.proxy_groups) == "http://p:1;http://q:1"
    kept = tmp_path / directory / f"proxies.{FQRN}-{FQRN}"
    assert kept.read_text() == "http://p:1;http://q:1\n"
    again = network_settings(configuration, {}, cache)
    assert again.proxy_groups == settings.proxy_groups


def test_external_files_have_a_list_of_their_own(tmp_path: Path) -> None:
    configuration, cache = configured(
        tmp_path,
        CVMFS_EXTERNAL_URL="http://e.invalid/data",
        CVMFS_EXTERNAL_HTTP_PROXY="auto;DIRECT",
    )
    environment = {"http_proxy": "p:1"}
    settings = external_network_settings(configuration, environment, cache)
    assert settings is not None
    assert format_proxy_list(settings.proxy_groups) == "http://p:1;DIRECT"
    kept = Path(cache.workspace, f"proxies-external.{FQRN}-{FQRN}")
    assert kept.read_text() == "http://p:1;DIRECT\n"


def test_without_external_servers_nothing_is_looked_for(tmp_path: Path) -> None:
    configuration, cache = configured(tmp_path, CVMFS_EXTERNAL_HTTP_PROXY="auto")
    assert external_network_settings(configuration, {}, cache) is None


@pytest.mark.parametrize(
    ("parameters", "directory"),
    [
        ({}, "cache"),
        ({"CVMFS_SHARED_CACHE": "yes"}, "cache"),
        ({"CVMFS_CACHE_DIR": "/exactly/this"}, "/exactly/this"),
    ],
)
def test_all_repositories_share_what_was_found_lately(
    tmp_path: Path, parameters: dict[str, str], directory: str
) -> None:
    _, cache = configured(tmp_path, **parameters)
    assert cache.shared_directory == str(tmp_path / directory)


def test_without_auto_nothing_is_written(tmp_path: Path) -> None:
    configuration, cache = configured(tmp_path, CVMFS_HTTP_PROXY="p:1")
    network_settings(configuration, {"http_proxy": "q:1"}, cache)
    assert not (tmp_path / "cache").exists()


def test_name_server_of_the_configuration_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    configuration, cache = configured(
        tmp_path, CVMFS_HTTP_PROXY="DIRECT", CVMFS_DNS_SERVER="192.0.2.1"
    )
    with caplog.at_level(logging.WARNING):
        network_settings(configuration, {}, cache)
    assert "CVMFS_DNS_SERVER is not used" in caplog.text
