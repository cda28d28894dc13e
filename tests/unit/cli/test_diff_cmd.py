import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cvmfs_command import CvmfsCommand, Told
from tests.support.looked_into import dist_of
from tests.support.published import FQRN, Tree, publish_tree

OLD: Tree = {"d": {"gone": b"12"}, "file": b"old\n", "link": "a"}
NEW: Tree = {"d": {"came": b"123"}, "file": b"newer\n", "link": "bb", "n": {}}
DAY_S = 86400
OLD_S = (int(time.time()) // DAY_S - 3) * DAY_S + 79_200  # 22:00:00, some days ago
NEW_S = OLD_S + DAY_S

Diff = Callable[..., Told]


@pytest.fixture
def dist(tmp_path: Path) -> str:
    publish_tree(tmp_path, OLD, tag="v1", now_s=OLD_S)
    made = publish_tree(tmp_path, NEW, tag="v2", now_s=NEW_S)
    return dist_of(tmp_path, made)


@pytest.fixture
def diff(cvmfs: CvmfsCommand, dist: str) -> Diff:
    def command(*words: str) -> Told:
        return cvmfs("diff", "--dist", dist, FQRN, *words)

    return command


def test_changes_are_told_to_people(diff: Diff) -> None:
    told = diff("v1", "v2", "--header")
    assert (told.status, told.err) == (0, "")
    heading, *rest = told.lines
    old, new = (time.strftime("%b %Y", time.gmtime(at)) for at in (OLD_S, NEW_S))
    assert heading == (
        f"DELTA: v1/r1 ({time.gmtime(OLD_S).tm_mday} {old} 22:00:00)"
        f" --> v2/r2 ({time.gmtime(NEW_S).tm_mday} {new} 22:00:00)"
    )
    assert rest[:4] == [
        "d(# regular files): 0",
        "d(# symlinks): 0",
        "d(# directories): 1",
        "d(# catalogs): 0",
    ]
    assert "/d/came add file +3 bytes" in rest
    assert "/d/gone remove file -2 bytes" in rest
    assert any(line.startswith("/file modify file [size, ") for line in rest)
    assert any(line.startswith("/n add directory +") for line in rest)


def test_changes_are_told_to_programs_as_the_original_does(diff: Diff) -> None:
    told = diff("v1", "v2", "-m", "--header", "--ignore-timediff")
    heading, *rest = told.lines
    assert heading.startswith("# line descriptor: A - add, R - remove, M - modify, S -")
    assert rest[:4] == ["S F 0", "S S 0", "S D 1", "S N 0"]
    assert "A F /d/came +3" in rest
    assert "R F /d/gone -2" in rest
    assert "M[SC] F /file" in rest
    assert any(line in rest for line in ("M[SL] S /link", "M[L] S /link"))


def test_json_holds_both_revisions_and_all_changes(diff: Diff) -> None:
    told = json.loads(diff("v1", "v2", "--json").out)
    assert (told["from"]["name"], told["from"]["revision"]) == ("v1", 1)
    assert (told["to"]["name"], told["to"]["timestamp_s"]) == ("v2", NEW_S)
    assert told["statistics"]["directories"] == 1
    (came,) = (one for one in told["changes"] if one["path"] == "/d/came")
    assert came == {
        "path": "/d/came",
        "change": "add",
        "type": "file",
        "old_type": "file",
        "aspects": [],
        "old_size": None,
        "new_size": 3,
    }


def test_the_last_publication_is_compared_if_nothing_is_named(diff: Diff) -> None:
    assert diff("-m").lines == diff("v1", "v2", "-m").lines


def test_dates_name_revisions(diff: Diff) -> None:
    old, new = (time.strftime("%Y-%m-%d", time.gmtime(at)) for at in (OLD_S, NEW_S))
    assert diff(old, new, "-m").lines == diff("v1", "v2", "-m").lines
    assert diff("v1", f"{new}T22:00Z", "-m").lines == diff("v1", "v2", "-m").lines


def test_root_hashes_name_revisions(diff: Diff) -> None:
    told = json.loads(diff("v1", "v2", "--json").out)
    roots = (told["from"]["root_catalog"], told["to"]["root_catalog"])
    assert diff(*roots, "-m").lines == diff("v1", "v2", "-m").lines


def test_times_alone_are_no_change_if_so_wished(diff: Diff) -> None:
    told = diff("v1", "v1", "--ignore-timediff")
    assert (told.status, len(told.lines)) == (0, 4)


@pytest.mark.parametrize(("words", "status"), [(("v1", "v1"), 0), (("v1", "v2"), 1)])
def test_the_status_tells_if_so_wished(
    diff: Diff, words: tuple[str, str], status: int
) -> None:
    assert diff(*words, "--exit-code").status == status
    assert diff(*words).status == 0


@pytest.mark.parametrize(("words", "status"), [(("v1", "v9"), 22), (("v1", "a b"), 2)])
def test_an_unknown_revision_is_an_error(
    diff: Diff, words: tuple[str, str], status: int
) -> None:
    told = diff(*words)
    assert (told.status, told.out) == (status, b"")
    assert told.err.startswith("cvmfs: ")
