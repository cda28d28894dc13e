from pathlib import Path

import pytest

from cvmfsexec.distribution.sources import (
    CONFIGURATIONS,
    OFFICIAL,
    WHERE_TO_LOOK,
    is_lasting_name,
    newest_packages,
    official_places,
    place_of,
)
from cvmfsexec.errors import ConfigurationError

OSG = "cvmfs-config-osg"


def test_every_configuration_has_official_places_but_none() -> None:
    named = set(CONFIGURATIONS) - {"none"}
    assert OFFICIAL.keys() == WHERE_TO_LOOK.keys() == named
    assert official_places("none") == ()
    for configuration in named:
        urls = [place.url for place in official_places(configuration)]
        assert len(urls) >= 2
        assert all(url.startswith("https://") for url in urls)


def test_the_newest_version_counts() -> None:
    names = [
        f"{OSG}-2.9-1.osg24.el9.noarch.rpm",
        f"{OSG}-2.10-1.osg24.el9.noarch.rpm",
        f"{OSG}_2.9-2_all.deb",
        "cvmfs-config-egi-9.0-1.noarch.rpm",
        f"{OSG}-latest.noarch.rpm",
        f"{OSG}-more-9.0-1.noarch.rpm",
        "cvmfs-2.12.6-1.el9.x86_64.rpm",
        "../x",
    ]
    assert newest_packages(names, OSG) == [f"{OSG}-2.10-1.osg24.el9.noarch.rpm"]
    assert newest_packages([*names, f"{OSG}_2.11-1_all.deb"], OSG) == [
        f"{OSG}_2.11-1_all.deb"
    ]
    assert newest_packages(names, "cvmfs-config-default") == []


def test_of_equal_versions_the_one_with_digests_counts() -> None:
    names = [f"{OSG}_2.9-3_all.deb", f"{OSG}-2.9-1.noarch.rpm"]
    assert newest_packages(names, OSG) == [names[1]]


def test_without_a_name_each_package_counts() -> None:
    names = ["cvmfs-config-a-1-1.noarch.rpm", "cvmfs-config-b_2-1_all.deb", "x.rpm"]
    assert newest_packages(names, "") == names[:2]


def test_places_are_paths_or_urls(tmp_path: Path) -> None:
    assert place_of(str(tmp_path)).path == str(tmp_path)
    assert place_of(f"file://{tmp_path}").path == str(tmp_path)
    assert place_of("https://x.org/a.rpm").url == "https://x.org/a.rpm"
    assert place_of("https://x.org/a").url == "https://x.org/a/"


@pytest.mark.parametrize(
    "word", ["", "/nowhere/at/all", "ftp://x/", "file://x/y", "http://[::1"]
)
def test_what_is_no_place_is_refused(word: str) -> None:
    with pytest.raises(ConfigurationError):
        place_of(word)


def test_only_names_with_a_version_last() -> None:
    assert is_lasting_name(f"{OSG}-2.9-1.noarch.rpm")
    assert not is_lasting_name(f"{OSG}-latest.noarch.rpm")
    assert not is_lasting_name(f"{OSG}_latest_all.deb")
