"""Fixtures that several files with real mounts share."""

from collections.abc import Iterator

import pytest

from tests.support.commands import give_to_ordinary_user
from tests.support.host_mounts import Site, site


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("published")) as made:
        yield made


@pytest.fixture
def here(shared_site: Site) -> Iterator[Site]:
    yield shared_site
    shared_site.clean()
    for path in shared_site.dist.glob("etc/cvmfs/*.d/*"):
        path.unlink()
    give_to_ordinary_user(shared_site.dist.parent)  # what root has made
