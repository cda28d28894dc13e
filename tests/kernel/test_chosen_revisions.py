"""Revisions of the past, mounted by tag, date and root hash; and what is refused."""

import contextlib
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfsexec.cli import exit_codes
from tests.support.commands import client_dist, run_cvmfs, run_exec
from tests.support.fixtures import fixture_key, fixture_repository
from tests.support.published import publish_tree, serve

FQRN = "conformance.example.org"
TAGS = ("v1", "v2", "v3", "v4", "v5", "v6")

tags = pytest.mark.parametrize("tag", TAGS)


@pytest.fixture(scope="module")
def dist() -> Iterator[Path]:
    with (
        serve(fixture_repository(FQRN).parent) as base_url,
        client_dist(base_url, fixture_key()) as made,
    ):
        yield made


@contextlib.contextmanager
def configured(dist: Path, line: str) -> Iterator[None]:
    """Let one more line stand in the configuration."""
    file = dist / "etc/cvmfs/default.local"
    before = file.read_text()
    file.write_text(before + line + "\n")
    try:
        yield
    finally:
        file.write_text(before)


@functools.cache
def known(dist: Path) -> dict[str, dict[str, Any]]:
    listed = run_cvmfs(dist, "tags", FQRN, "--json")
    return {one["name"]: one for one in json.loads(listed.stdout)}


@functools.cache
def names_of(dist: Path, revision: str) -> list[bytes]:
    """Return what a revision holds, as found without any mount."""
    return sorted(run_cvmfs(dist, "find", f"{FQRN}@{revision}").stdout.split(b"\n"))


def date_of(dist: Path, tag: str) -> str:
    return time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(known(dist)[tag]["timestamp_s"])
    )


def newest_of_its_second(dist: Path, tag: str) -> str:
    """Return the tag that the date of a tag means: v3 and v4 were made at once."""
    at_s = known(dist)[tag]["timestamp_s"]
    made = [one for one in known(dist).values() if one["timestamp_s"] <= at_s]
    return str(max(made, key=lambda one: int(one["revision"]))["name"])


SCRIPT = (
    "import os, sys; top = sys.argv[1];"
    "print(*(os.getxattr(top, 'user.' + name).decode() for name in"
    " ('tag', 'root_hash', 'revision', 'expires')), sep='|')"
)


def told(dist: Path, name: str) -> list[str]:
    """Mount, and return tag, root hash, revision and expiry."""
    done = run_exec(dist, name, "--", "python3", "-c", SCRIPT, f"/cvmfs/{FQRN}")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.rstrip("\n").split("|")


def expected(dist: Path, tag: str) -> list[str]:
    one = known(dist)[tag]
    never = "never (fixed root catalog)"
    return [tag, one["root_catalog"], str(one["revision"]), never]


@tags
def test_a_tag_after_the_name_is_mounted_at_the_name(dist: Path, tag: str) -> None:
    assert told(dist, f"{FQRN}@{tag}") == expected(dist, tag)


@tags
def test_a_date_after_the_name_finds_the_newest_tag(dist: Path, tag: str) -> None:
    wanted = expected(dist, newest_of_its_second(dist, tag))
    assert told(dist, f"{FQRN}@{date_of(dist, tag)}")[1:] == wanted[1:]


@tags
def test_a_root_hash_after_the_name_is_mounted(dist: Path, tag: str) -> None:
    root = known(dist)[tag]["root_catalog"]
    assert told(dist, f"{FQRN}@{root}") == ["", *expected(dist, tag)[1:]]


@tags
def test_the_parameters_mount_the_same(dist: Path, tag: str) -> None:
    wanted = expected(dist, tag)
    with configured(dist, f"CVMFS_REPOSITORY_TAG={tag}"):
        assert told(dist, FQRN) == wanted
    with configured(dist, f"CVMFS_REPOSITORY_DATE={date_of(dist, tag)}"):
        newest = expected(dist, newest_of_its_second(dist, tag))
        assert told(dist, FQRN)[1:] == newest[1:]
    with configured(dist, f"CVMFS_ROOT_HASH={wanted[1]}"):
        assert told(dist, FQRN) == ["", *wanted[1:]]


def test_what_is_typed_overrides_what_is_configured(dist: Path) -> None:
    root = known(dist)["v2"]["root_catalog"]
    with configured(dist, f"CVMFS_ROOT_HASH={root}"):
        assert told(dist, f"{FQRN}@v3") == expected(dist, "v3")
        shown = run_cvmfs(dist, "showconfig", f"{FQRN}@v3").stdout.decode()
    assert "CVMFS_REPOSITORY_TAG=v3    # from the command line\n" in shown


def test_a_day_means_its_end(dist: Path) -> None:
    day = date_of(dist, "v6")[:10]
    made = [
        one for one in known(dist).values() if date_of(dist, one["name"]) <= day + "Z"
    ]
    last = max(made, key=lambda one: int(one["revision"]))
    assert told(dist, f"{FQRN}@{day}")[1] == last["root_catalog"]


@tags
def test_a_tree_of_the_past_is_the_one_that_was_published(dist: Path, tag: str) -> None:
    # By catalogs alone, and by kernel: names cannot differ.
    script = f"cd /cvmfs/{FQRN} && find . -print0"
    done = run_exec(dist, f"{FQRN}@{tag}", "--", *("unshare", "-r", "sh", "-c", script))
    assert done.returncode == 0, done.stderr
    seen = {name for name in done.stdout.split("\0") if "\n" not in name}
    listed = names_of(dist, tag)
    assert len(seen) > 3
    assert {name[1:].encode(errors="surrogateescape") for name in seen - {"", "."}} <= {
        name if name.startswith(b"/") else b"/" + name for name in listed
    }


def test_an_unknown_tag_is_told_and_has_its_own_status(dist: Path) -> None:
    done = run_exec(dist, f"{FQRN}@v99", "--", "true")
    assert done.returncode == exit_codes.HISTORY
    assert f"{FQRN} has no tag 'v99'" in done.stderr
    assert "cvmfs tags" in done.stderr


def test_a_date_before_all_tags_has_the_same_status(dist: Path) -> None:
    assert run_exec(dist, f"{FQRN}@1999-12-31", "--", "true").returncode == 22


def test_an_unknown_root_hash_is_no_repository(dist: Path) -> None:
    done = run_exec(dist, f"{FQRN}@{'ab' * 20}", "--", "true")
    assert done.returncode == exit_codes.REPOSITORY
    assert done.stderr


@pytest.mark.parametrize("revision", ["", "no tag", "2026-02-31"])
def test_what_is_no_revision_is_refused_at_once(dist: Path, revision: str) -> None:
    done = run_exec(dist, f"{FQRN}@{revision}", "--", "true")
    assert done.returncode == exit_codes.CONFIGURATION
    assert done.stderr.startswith("cvmfsexec: ")


@pytest.mark.parametrize("other", [f"{FQRN}@v2", FQRN, f"{FQRN}@2026-01-31"])
def test_two_revisions_in_one_session_are_refused(dist: Path, other: str) -> None:
    done = run_exec(dist, f"{FQRN}@v1", other, "--", "true")
    assert done.returncode == exit_codes.CONFIGURATION
    assert "in two revisions, v1 and " in done.stderr


def test_the_same_revision_twice_is_one(dist: Path) -> None:
    done = run_exec(dist, f"{FQRN}@v1", f"{FQRN}@v1", "--", "ls", "/cvmfs")
    assert (done.returncode, done.stdout) == (0, f"{FQRN}\n")


def test_two_sessions_show_two_revisions_at_once(tmp_path: Path) -> None:
    fqrn = "test.example.org"
    publish_tree(tmp_path, {"file": b"old\n"}, tag="old")
    made = publish_tree(tmp_path, {"file": b"new\n"}, tag="new")
    with (
        serve(made.output) as base_url,
        client_dist(base_url, made.master_key_pem) as d,
    ):
        outer = f"cat /cvmfs/{fqrn}/file"
        old = run_exec(d, f"{fqrn}@old", "--", "sh", "-c", outer)
        new = run_exec(d, fqrn, "--", "sh", "-c", outer)
        listed = run_cvmfs(d, "cat", f"{fqrn}@old", "/file")
    assert (old.stdout, new.stdout, listed.stdout) == ("old\n", "new\n", b"old\n")


def test_inside_of_a_session_no_revision_can_be_chosen(dist: Path) -> None:
    done = run_exec(dist, "--", "sh", "-c", f'"$CVMFSMOUNT" {FQRN}@v1')
    assert done.returncode == exit_codes.CONFIGURATION
    assert f"cvmfsexec {FQRN}@v1 -- …" in done.stderr
