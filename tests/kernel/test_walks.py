"""Walks over nested catalogs: which are fetched, how often, and by whom not."""

from pathlib import Path

import pytest

from tests.support.commands import run_exec, started_exec
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import wait_until

pytestmark = pytest.mark.kernel

PARTS = 40
TOP = f"/cvmfs/{FQRN}"
ROOT_CATALOG = 1
NAMES = [f"part{number:02}" for number in range(PARTS)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    tree: Tree = {
        name: {
            ".cvmfscatalog": b"",
            "name": name.encode(),
            "directory": {"file": b"deep"},
        }
        for name in NAMES
    }
    return publish_tree(tmp_path_factory.mktemp("published"), tree)


def catalogs(origin: Nginx) -> list[str]:
    """Return which catalogs were asked for."""
    return [name for name in origin.objects() if name.endswith("C")]


def run(dist: Path, *words: str) -> None:
    assert run_exec(dist, FQRN, "--", *words).returncode == 0


@pytest.mark.parametrize(
    "walk",
    [("find", TOP), ("find", TOP, "-printf", "%s"), ("ls", "-lR", TOP)],
    ids=["find", "sizes", "ls"],
)
def test_a_walk_asks_for_each_catalog_once(
    origin: Nginx, dist: Path, walk: tuple[str, ...]
) -> None:
    run(dist, *walk)
    asked = catalogs(origin)
    assert len(asked) == len(set(asked)) == ROOT_CATALOG + PARTS


def test_opening_three_paths_asks_for_three_catalogs(origin: Nginx, dist: Path) -> None:
    paths = [f"{TOP}/{NAMES[number]}/directory/file" for number in (0, 1, 2)]
    run(dist, "cat", *paths)
    assert len(catalogs(origin)) == ROOT_CATALOG + len(paths)


def test_listing_three_directories_asks_for_few_catalogs(
    origin: Nginx, dist: Path
) -> None:
    run(dist, "ls", "-l", TOP, *(f"{TOP}/{NAMES[number]}" for number in (0, 20, 30)))
    assert len(catalogs(origin)) <= ROOT_CATALOG + 3 + 2


def test_catalogs_come_ahead_of_a_walk(origin: Nginx, dist: Path) -> None:
    walk = f"ls {TOP}/{NAMES[0]} {TOP}/{NAMES[1]} && exec sleep 600"
    with started_exec(dist, FQRN, "--", "sh", "-c", walk):
        wait_until(
            lambda: len(catalogs(origin)) >= ROOT_CATALOG + 4, "more come than listed"
        )


def test_reading_ahead_can_be_switched_off(origin: Nginx, dist: Path) -> None:
    with (dist / "etc/cvmfs/default.local").open("a") as file:
        file.write("CVMFS_READ_AHEAD=no\n")
    run(dist, "ls", *(f"{TOP}/{name}" for name in NAMES[:4]))
    assert len(catalogs(origin)) == ROOT_CATALOG + 4
