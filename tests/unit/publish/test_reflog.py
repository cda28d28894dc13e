import sqlite3
from pathlib import Path

import pytest

from cvmfsexec.errors import PublishError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.publish.reflog import (
    Reference,
    ReferenceType,
    read_reflog,
    write_reflog,
)
from tests.support.fixtures import REPOSITORIES, fixture_repository

SOME = [
    Reference(ContentHash(b"a" * 20), ReferenceType.CATALOG, 1),
    Reference(ContentHash(b"b" * 20, HashAlgorithm.SHAKE128), ReferenceType.HISTORY, 2),
]


def test_a_written_reflog_reads_back(tmp_path: Path) -> None:
    path = str(tmp_path / "odd name?#%20")
    write_reflog(path, "x.example.org", SOME)
    assert read_reflog(path) == SOME


def test_the_first_mention_of_an_object_counts(tmp_path: Path) -> None:
    path = str(tmp_path / "reflog")
    write_reflog(path, "x.example.org", [*SOME, SOME[0]._replace(timestamp_s=9)])
    assert read_reflog(path) == SOME


@pytest.mark.parametrize("fqrn", REPOSITORIES)
def test_reflogs_of_the_original_can_be_continued(fqrn: str) -> None:
    references = read_reflog(str(fixture_repository(fqrn) / ".cvmfsreflog"))
    assert {reference.type_ for reference in references} == set(ReferenceType)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reflog").write_bytes(b"no database, however long it may be" * 100)
    with pytest.raises(PublishError, match="is damaged"):
        read_reflog(str(tmp_path / "reflog"))


@pytest.mark.parametrize("row", [("x", 0, 0), ("a" * 40, 9, 0), (None, 0, 0)])
def test_a_damaged_row_is_refused(tmp_path: Path, row: tuple[object, ...]) -> None:
    path = str(tmp_path / "reflog")
    write_reflog(path, "x.example.org", SOME)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO refs VALUES (?, ?, ?)", row)
    connection.commit()
    connection.close()
    with pytest.raises(PublishError, match="damaged"):
        read_reflog(path)
