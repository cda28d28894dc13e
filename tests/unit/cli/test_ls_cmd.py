import json
import os
import re

import pytest

from tests.support.cvmfs_command import CvmfsCommand
from tests.support.published import FQRN
from tests.unit.cli.conftest import Bent, Home

SHOWN = [
    *("above", "circle", "dangling", "empty", "fifo", "hello", "large", "nested"),
    *("odd\udcff", "\x1b[31m", "outside", "to-hello", "to-leaf"),
]


def ls(cvmfs: CvmfsCommand, dist: str, *words: str) -> list[str]:
    told = cvmfs("ls", "--dist", dist, FQRN, *words)
    assert (told.status, told.err) == (0, "")
    return [os.fsdecode(line) for line in told.out.split(b"\n")[:-1]]


def test_names_are_listed_in_order(cvmfs: CvmfsCommand, home: Home) -> None:
    assert ls(cvmfs, home.dist) == SHOWN
    assert ls(cvmfs, home.dist, "/") == SHOWN


def test_names_with_a_dot_are_listed_on_request(
    cvmfs: CvmfsCommand, home: Home
) -> None:
    assert ls(cvmfs, home.dist, "-a") == [".dotted", *SHOWN]


def test_a_nested_directory_is_listed(cvmfs: CvmfsCommand, home: Home) -> None:
    assert ls(cvmfs, home.dist, "nested/") == ["deep"]
    assert ls(cvmfs, home.dist, "/nested/deep") == ["leaf"]


def test_what_is_no_directory_is_listed_itself(cvmfs: CvmfsCommand, home: Home) -> None:
    assert ls(cvmfs, home.dist, "hello") == ["hello"]
    assert ls(cvmfs, home.dist, "to-hello") == ["to-hello"]


def test_everything_is_told_on_request(cvmfs: CvmfsCommand, home: Home) -> None:
    lines = {
        line.split(" -> ")[0].split()[-1]: line for line in ls(cvmfs, home.dist, "-l")
    }
    assert re.fullmatch(
        r"-rwsr-xr-x +1 +\d+ +\d+ +6 2020-09-13 \d\d:\d6 hello", lines["hello"]
    )
    assert lines["to-hello"].endswith("to-hello -> hello")
    assert lines["to-hello"].startswith("lrwxrwxrwx")
    assert lines["fifo"].startswith("p")
    assert lines["nested"].startswith("drwxr-xr-x   3 ")


def test_programs_get_json(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("ls", "--dist", home.dist, FQRN, "/", "--json")
    entries = {entry["path"]: entry for entry in json.loads(told.out)}
    assert entries["/hello"]["mode"] == "4755"
    assert entries["/.dotted"]["size"] == 7
    assert entries["/odd\udcff\n\x1b[31m"]["type"] == "file"


def test_what_is_not_there_is_told(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("ls", "--dist", home.dist, FQRN, "nested/nothing")
    assert told.status == 1
    assert told.out == b""
    assert told.err == "cvmfs: /nested/nothing: no such file or directory\n"


def test_a_path_out_of_the_repository_is_refused(
    cvmfs: CvmfsCommand, home: Home
) -> None:
    told = cvmfs("ls", "--dist", home.dist, FQRN, "nested/../../etc")
    assert told.status == 2
    assert "not a path inside a repository" in told.err


@pytest.mark.parametrize("mtime", [2**62, -(2**62), 2**40, -1, 0])
def test_any_time_can_be_shown(cvmfs: CvmfsCommand, bent: Bent, mtime: int) -> None:
    bent.repository.execute(
        "UPDATE catalog SET mtime = :mtime WHERE name = 'hello'", {"mtime": mtime}
    )
    (line,) = ls(cvmfs, bent.dist, "-l", "hello")
    assert line.endswith(" hello")


def test_devices_show_their_numbers(cvmfs: CvmfsCommand, bent: Bent) -> None:
    bent.repository.execute(
        "UPDATE catalog SET mode = :mode, size = :size WHERE name = 'fifo'",
        {"mode": 0o020600, "size": os.makedev(10, 229)},
    )
    (line,) = ls(cvmfs, bent.dist, "-l", "fifo")
    assert re.match(r"crw------- .* 10, 229 ", line)


def test_a_damaged_listing_is_an_error(cvmfs: CvmfsCommand, bent: Bent) -> None:
    bent.repository.execute("UPDATE catalog SET name = '../up' WHERE name = 'hello'")
    told = cvmfs("ls", "--dist", bent.dist, FQRN)
    assert told.status == 16
    assert told.out == b""
    assert re.fullmatch(r"cvmfs: .*'\.\./up'.*\n", told.err)
