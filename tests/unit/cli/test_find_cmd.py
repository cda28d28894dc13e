import json
import os

import pytest

from tests.support.cvmfs_command import CvmfsCommand
from tests.support.published import FQRN
from tests.unit.cli.conftest import Bent, Home

BELOW_NESTED = ["/nested/.cvmfscatalog", "/nested/deep", "/nested/deep/leaf"]


def find(cvmfs: CvmfsCommand, dist: str, *words: str) -> list[str]:
    told = cvmfs("find", "--dist", dist, FQRN, *words)
    assert (told.status, told.err) == (0, "")
    return [os.fsdecode(line) for line in told.out.split(b"\n")[:-1]]


def test_a_tree_is_listed_from_the_top(cvmfs: CvmfsCommand, home: Home) -> None:
    paths = find(cvmfs, home.dist)
    assert paths[0] == "/"
    assert set(BELOW_NESTED) < set(paths)
    assert "/.dotted" in paths
    assert paths == list(dict.fromkeys(paths))


def test_a_directory_comes_before_its_content(cvmfs: CvmfsCommand, home: Home) -> None:
    assert find(cvmfs, home.dist, "nested") == ["/nested", *BELOW_NESTED]


def test_a_file_is_a_tree_of_its_own(cvmfs: CvmfsCommand, home: Home) -> None:
    assert find(cvmfs, home.dist, "hello") == ["/hello"]


@pytest.mark.parametrize(
    ("kind", "paths"),
    [
        ("d", ["/nested", "/nested/deep"]),
        ("f", ["/nested/.cvmfscatalog", "/nested/deep/leaf"]),
        ("l", []),
    ],
)
def test_one_kind_is_listed(
    cvmfs: CvmfsCommand, home: Home, kind: str, paths: list[str]
) -> None:
    assert find(cvmfs, home.dist, "/nested", "--type", kind) == paths


def test_special_files_are_a_kind(cvmfs: CvmfsCommand, home: Home) -> None:
    assert find(cvmfs, home.dist, "--type", "s") == ["/fifo"]


@pytest.mark.parametrize(
    ("glob", "paths"),
    [
        ("leaf", ["/nested/deep/leaf"]),
        ("LEAF", []),
        ("*hello", ["/hello", "/to-hello"]),
        ("[le]*", ["/empty", "/large", "/nested/deep/leaf"]),
        ("odd*", ["/odd\udcff", "\x1b[31m"]),
    ],
)
def test_names_are_matched(
    cvmfs: CvmfsCommand, home: Home, glob: str, paths: list[str]
) -> None:
    assert find(cvmfs, home.dist, "--name", glob) == paths


def test_programs_get_an_object_a_line(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("find", "--dist", home.dist, FQRN, "nested", "--json")
    paths = [json.loads(line)["path"] for line in told.lines]
    assert paths == ["/nested", *BELOW_NESTED]


def test_what_is_not_there_is_told(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("find", "--dist", home.dist, FQRN, "nothing")
    assert told.status == 1
    assert told.err == "cvmfs: /nothing: no such file or directory\n"


def test_a_tree_that_cannot_be_walked_is_an_error(
    cvmfs: CvmfsCommand, bent: Bent
) -> None:
    bent.repository.write(bent.repository.catalog_path(b"/nested"), b"spoilt")
    told = cvmfs("find", "--dist", bent.dist, FQRN)
    assert told.status == 16
    assert b"/hello" in told.out
    assert "is corrupt wherever it was fetched" in told.err
