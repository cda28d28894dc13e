"""Fixtures that several files with real mounts share."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.ram import MEMORY, place_of
from tests.support.commands import client_dist, give_to_ordinary_user
from tests.support.host_mounts import Site, site
from tests.support.nginx import Nginx
from tests.support.published import PublishedRepository
from tests.support.sessions import ORDINARY_UID


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


@pytest.fixture
def origin(repository: PublishedRepository) -> Iterator[Nginx]:
    """A web server for the ``repository`` of a module; knows what it was asked for."""
    with Nginx(repository.output) as nginx:
        yield nginx


@pytest.fixture
def dist(origin: Nginx, repository: PublishedRepository) -> Iterator[Path]:
    """A client of that server."""
    with client_dist(origin.url, repository.master_key_pem) as dist:
        yield dist


@pytest.fixture
def memory() -> Iterator[Path]:
    """The place of the user's cache in memory; nothing is left there in the end."""
    uid = ORDINARY_UID if os.geteuid() == 0 else os.geteuid()
    path = Path(place_of(uid))
    if not path.parent.is_dir():
        pytest.skip(f"there is no {path.parent}")
    shutil.rmtree(path, ignore_errors=True)
    yield path
    assert list(Path(MEMORY).glob(f"{path.name}*")) == []
