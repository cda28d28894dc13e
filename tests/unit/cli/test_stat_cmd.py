import json
import os
from typing import Any

import pytest

from tests.support.cvmfs_command import CvmfsCommand
from tests.support.looked_into import LARGE, MTIME_S
from tests.support.published import FQRN
from tests.unit.cli.conftest import Bent, Home


def described(cvmfs: CvmfsCommand, dist: str, path: str) -> dict[str, Any]:
    told = cvmfs("stat", "--dist", dist, FQRN, path, "--json")
    assert (told.status, told.err) == (0, "")
    (entry,) = json.loads(told.out)
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", {"path": "/", "type": "dir", "mode": "0755"}),
        ("hello", {"path": "/hello", "type": "file", "mode": "4755", "size": 6}),
        ("hello", {"mtime": MTIME_S, "mtime_ns": 0, "nlink": 1, "chunks": 1}),
        ("hello", {"compression": "zlib", "external": False}),
        ("hello", {"uid": os.getuid(), "gid": os.getgid()}),
        ("large", {"size": len(LARGE)}),
        ("fifo", {"type": "fifo", "size": 0}),
        ("to-hello", {"type": "symlink", "target": "hello", "rawlink": "hello"}),
        ("nested", {"type": "dir", "nlink": 3}),
        ("nested/deep/leaf", {"size": 5}),
    ],
)
def test_everything_is_told(
    cvmfs: CvmfsCommand, home: Home, path: str, expected: dict[str, Any]
) -> None:
    entry = described(cvmfs, home.dist, path)
    assert {key: entry[key] for key in expected} == expected


def test_the_catalog_is_told(cvmfs: CvmfsCommand, home: Home) -> None:
    root = str(home.repository.manifest.root_catalog)
    assert described(cvmfs, home.dist, "nested")["catalog"] == root
    assert described(cvmfs, home.dist, "nested/deep")["catalog"] != root


def test_chunks_are_counted(cvmfs: CvmfsCommand, home: Home) -> None:
    assert described(cvmfs, home.dist, "large")["chunks"] > 2


def test_people_get_lines(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("stat", "--dist", home.dist, FQRN, "hello", "to-hello")
    assert told.status == 0
    lines = [line.strip() for line in told.lines]
    assert "path: /hello" in lines
    assert "target: hello" in lines
    assert "external: false" in lines


def test_control_characters_do_no_harm_to_a_terminal(
    cvmfs: CvmfsCommand, home: Home
) -> None:
    told = cvmfs("stat", "--dist", home.dist, FQRN, os.fsdecode(b"odd\xff\n\x1b[31m"))
    assert told.status == 0
    assert b"\x1b" not in told.out
    assert b"path: /odd\\udcff\\n\\x1b[31m\n" in told.out


def test_what_is_not_there_is_told_and_the_rest_is_described(
    cvmfs: CvmfsCommand, home: Home
) -> None:
    told = cvmfs("stat", "--dist", home.dist, FQRN, "nothing", "hello", "--json")
    assert told.status == 1
    assert [entry["path"] for entry in json.loads(told.out)] == ["/hello"]
    assert told.err == "cvmfs: /nothing: no such file or directory\n"


def test_attributes_and_devices_are_told(cvmfs: CvmfsCommand, bent: Bent) -> None:
    bent.repository.execute(
        "UPDATE catalog SET mode = :mode, size = :size, xattr = :xattr"
        " WHERE name = 'fifo'",
        {
            "mode": 0o060600,
            "size": os.makedev(8, 1),
            "xattr": b"\1\1\4\2user\0\xff",
        },
    )
    entry = described(cvmfs, bent.dist, "fifo")
    assert entry["type"] == "blk"
    assert entry["rdev"] == [8, 1]
    assert entry["xattrs_hex"] == {"user": "00ff"}


@pytest.mark.parametrize(
    "cells",
    ["mtime = 4611686018427387904", "size = 9223372036854775807", "uid = 4294967295"],
)
def test_huge_numbers_are_told(cvmfs: CvmfsCommand, bent: Bent, cells: str) -> None:
    bent.repository.execute(f"UPDATE catalog SET {cells} WHERE name = 'hello'")  # noqa: S608
    column, _, value = cells.partition(" = ")
    assert described(cvmfs, bent.dist, "hello")[column] == int(value)
