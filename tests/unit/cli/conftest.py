from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.bent_repository import BentRepository
from tests.support.cvmfs_command import CvmfsCommand
from tests.support.looked_into import dist_of, publish_one_of_everything
from tests.support.published import PublishedRepository


class Home(NamedTuple):
    """A repository with one of everything, and a dist for it.

    Attributes:
        repository: Not to be changed.
        dist: Shared by all tests, like the cache in it.
    """

    repository: PublishedRepository
    dist: str


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    directory = tmp_path_factory.mktemp("looked-into")
    repository = publish_one_of_everything(directory)
    return Home(repository, dist_of(directory, repository))


@pytest.fixture
def cvmfs(capsysbinary: pytest.CaptureFixture[bytes]) -> CvmfsCommand:
    """Return the command ``cvmfs``, run in this process."""
    return CvmfsCommand(capsysbinary)


class Bent(NamedTuple):
    """A copy of that repository to be changed, and a dist for it."""

    repository: BentRepository
    dist: str


@pytest.fixture
def bent(home: Home, tmp_path: Path) -> Bent:
    repository = BentRepository(home.repository, tmp_path / "bent")
    keys = tmp_path / "keys"
    keys.symlink_to(home.repository.keys_directory)
    return Bent(repository, dist_of(tmp_path, repository))
