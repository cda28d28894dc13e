import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from cvmfsexec.format.digest import ObjectKind
from tests.support.cvmfs_command import CvmfsCommand
from tests.support.looked_into import dist_of
from tests.support.published import FQRN, publish_tree
from tests.unit.cli.conftest import Bent, Home


def test_tags_are_listed(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("tags", "--dist", home.dist, FQRN)
    assert (told.status, told.err) == (0, "")
    heading, *rows = told.lines
    assert heading.split()[:2] == ["NAME", "REVISION"]
    root = str(home.repository.manifest.root_catalog)[:12]
    assert {tuple(row.split()[:2]) for row in rows} == {("v1", "1"), ("trunk", "1")}
    assert all(root in row for row in rows)


def test_the_newest_comes_first(cvmfs: CvmfsCommand, tmp_path: Path) -> None:
    for tag in ("v0", "v1"):
        publish_tree(tmp_path, {"file": tag.encode()}, tag=tag)
    repository = publish_tree(tmp_path, {"file": b"v2"}, tag="v2")
    told = cvmfs("tags", "--dist", dist_of(tmp_path, repository), FQRN, "--json")
    tags = json.loads(told.out)
    assert [tag["name"] for tag in tags if "trunk" not in tag["name"]] == [
        *("v2", "v1", "v0")
    ]
    assert [tag["revision"] for tag in tags] == [3, 3, 2, 2, 1]
    assert tags[0]["root_catalog"] == str(repository.manifest.root_catalog)


def change_tags(bent: Bent, sql: str) -> None:
    """Run a statement on the tag database, and sign what comes out."""
    history = bent.repository.manifest.history
    assert history is not None
    stored = bent.repository.directory / history.object_path(ObjectKind.HISTORY)
    scratch = bent.repository.output / "tags"
    scratch.write_bytes(zlib.decompress(stored.read_bytes()))
    with closing(sqlite3.connect(scratch)) as database, database:
        database.execute(sql)
    new = bent.repository.put(scratch.read_bytes(), ObjectKind.HISTORY)
    bent.repository.sign_manifest(history=new)


@pytest.mark.parametrize("timestamp", [2**62, 2**40, 253402300800])
def test_any_time_can_be_shown(cvmfs: CvmfsCommand, bent: Bent, timestamp: int) -> None:
    change_tags(bent, f"UPDATE tags SET timestamp = {timestamp}")  # noqa: S608
    told = cvmfs("tags", "--dist", bent.dist, FQRN)
    assert (told.status, told.err) == (0, "")
    assert len(told.lines) == 3


def test_names_do_no_harm_to_a_terminal(cvmfs: CvmfsCommand, bent: Bent) -> None:
    change_tags(
        bent,
        "UPDATE tags SET name = char(27) || '[31mred' || char(10) || name,"
        " description = char(7)",
    )
    told = cvmfs("tags", "--dist", bent.dist, FQRN)
    assert told.status == 0
    assert b"\x1b" not in told.out
    assert b"\x07" not in told.out
    assert len(told.lines) == 3


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE tags SET hash = 'no hash'",
        "UPDATE tags SET revision = -1",
        "UPDATE tags SET timestamp = 'yesterday'",
        "UPDATE properties SET value = 'other.example.org' WHERE key = 'fqrn'",
        "DROP TABLE tags",
    ],
)
def test_damaged_tags_are_an_error(cvmfs: CvmfsCommand, bent: Bent, sql: str) -> None:
    change_tags(bent, sql)
    told = cvmfs("tags", "--dist", bent.dist, FQRN)
    assert told.status in (15, 16)
    assert told.out == b""
    assert told.err.startswith("cvmfs: ")
    assert told.err.count("\n") == 1


def test_a_repository_without_tags_has_a_heading(
    cvmfs: CvmfsCommand, bent: Bent
) -> None:
    bent.repository.sign_manifest(history=None)
    told = cvmfs("tags", "--dist", bent.dist, FQRN)
    assert (told.status, len(told.lines)) == (0, 1)
