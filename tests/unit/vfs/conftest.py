from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.catalog_repository import CatalogRepository


@pytest.fixture
def made(tmp_path: Path) -> Iterator[CatalogRepository]:
    repository = CatalogRepository(tmp_path)
    yield repository
    repository.close()
