"""Repositories of the original server tools, mounted, against the truth about them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import SYSTEM_PYTHON, client_dist, run_cvmfs, run_exec
from tests.support.fixtures import fixture_key, fixture_repository, fixture_truth
from tests.support.published import serve
from tests.support.sessions import ROOT

CONFIGURATION = {
    "conformance.example.org": "CONFVAR=value-from-config\n",
    "shake.example.org": "",
    "config.example.org": "",
}

# ``ino`` is the original's numbering, ``uid`` and ``gid`` are the user's here, and
# the listed names hold each magic attribute twice.
NOT_COMPARED = {"uid", "gid", "ino", "xattr_names_listed", "magic", "xattrs_hex"}

repositories = pytest.mark.parametrize("fqrn", list(CONFIGURATION))


@contextlib.contextmanager
def client_of(fqrn: str, settings: str = "") -> Iterator[Path]:
    directory = fixture_repository(fqrn)
    with (
        serve(directory.parent) as base_url,
        client_dist(
            base_url, fixture_key(), settings=CONFIGURATION[fqrn] + settings
        ) as dist,
    ):
        yield dist


def facts(dist: Path, fqrn: str, paths: list[str], *magic: str) -> dict[str, Any]:
    """Ask a payload. It is root of a namespace of its own, to read mode 0000 files."""
    done = run_exec(
        dist,
        *(fqrn, "--", "unshare", "-r", SYSTEM_PYTHON),
        *(str(ROOT / "tests/support/tree_facts.py"), f"/cvmfs/{fqrn}", *magic),
        stdin=json.dumps(paths),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def differences(truth: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for path, expected in truth["entries"].items():
        entry = found["entries"][path]
        for key in expected.keys() - NOT_COMPARED:
            if entry.get(key) != expected[key]:
                yield f"{path!r} {key}: {entry.get(key)!r}, not {expected[key]!r}"
        magic = {k: v.encode().hex() for k, v in expected.get("magic", {}).items()}
        for name, value in magic.items():
            if entry["magic"].get(name) != value:
                yield f"{path!r} {name}: {entry['magic'].get(name)}, not {value}"
        if path and entry["xattrs_hex"] != expected.get("xattrs_hex", {}):
            yield f"{path!r} xattrs: {entry['xattrs_hex']}"


def hardlink_groups(entries: dict[str, Any]) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for path, entry in entries.items():
        if entry["nlink"] > 1 and entry["type"] != "dir":
            groups.setdefault(entry["ino"], set()).add(path)
    return {frozenset(paths) for paths in groups.values()}


@repositories
def test_every_entry_is_as_the_original_client_shows_it(fqrn: str) -> None:
    truth = fixture_truth(fqrn)
    names = [name for name in truth["root_magic"] if name != "user.version"]
    with client_of(fqrn) as dist:
        found = facts(dist, fqrn, list(truth["entries"]), *names)
    assert list(differences(truth, found)) == []
    assert found["root_magic"] == {n: truth["root_magic"][n] for n in names}
    assert hardlink_groups(found["entries"]) == hardlink_groups(truth["entries"])


@repositories
def test_a_listing_shows_what_is_not_hidden_and_nothing_else(fqrn: str) -> None:
    truth = fixture_truth(fqrn)["entries"]
    with client_of(fqrn) as dist:
        top = f"/cvmfs/{fqrn}"
        script = f"cd {top} && find . -print0"
        done = run_exec(dist, fqrn, "--", "unshare", "-r", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    seen = {name[1:] for name in done.stdout.split("\0") if name}
    assert len(seen) == done.stdout.count("\0")
    assert seen <= truth.keys()
    hidden = truth.keys() - seen
    listed = dict.fromkeys(truth, 0)
    for path in seen - {""}:
        listed[path.rpartition("/")[0]] += 1
    for path, entry in truth.items():
        if entry["type"] == "dir" and path not in hidden:
            assert listed[path] == entry["nentries"], path
    # Hidden entries can be named all the same: the first test has looked at them.
    assert all(any(h.startswith(p) for p in (".", "/.")) or h for h in hidden)


@pytest.mark.parametrize("tag", ["v1", "v2", "v3", "v4", "v5", "v6"])
def test_tags_are_mounted(tag: str) -> None:
    fqrn = "conformance.example.org"
    with client_of(fqrn, f"CVMFS_REPOSITORY_TAG={tag}\n") as dist:
        found = facts(dist, fqrn, [""], "user.tag", "user.expires", "user.root_hash")
        listed = run_cvmfs(dist, "tags", fqrn, "--json")
    assert found["root_magic"]["user.tag"] == tag
    assert found["root_magic"]["user.expires"] == "never (fixed root catalog)"
    (wanted,) = (one for one in json.loads(listed.stdout) if one["name"] == tag)
    assert found["root_magic"]["user.root_hash"] == wanted["root_catalog"]


def test_configuration_repository_brings_up_another() -> None:
    """Its key and its server are all that is configured locally."""
    top = fixture_repository("config").parent
    assert fixture_repository("conformance").parent == top
    with serve(top) as base_url, client_dist("http://127.0.0.1:1") as dist:
        etc = dist / "etc/cvmfs"
        (etc / "default.local").write_text(
            # The repository's own domain file names a fixed port, ours is any.
            "CVMFS_HTTP_PROXY=DIRECT\n"
        )
        (etc / "default.d").mkdir()
        (etc / "default.d/50.conf").write_text(
            "CVMFS_CONFIG_REPOSITORY=config.example.org\n"
        )
        (etc / "config.d").mkdir()
        (etc / "config.d/config.example.org.conf").write_text(
            f"CVMFS_SERVER_URL={base_url}/@fqrn@\n"
            "CVMFS_PUBLIC_KEY=/etc/cvmfs/keys/key.pub\n"
        )
        (etc / "config.d/conformance.example.org.local").write_text(
            f"CVMFS_SERVER_URL={base_url}/@fqrn@\n"
        )
        (etc / "keys/key.pub").write_bytes(fixture_key())
        done = run_exec(
            dist,
            *("conformance.example.org", "--", "sh", "-c"),
            "cat /cvmfs/conformance.example.org/README; ls /cvmfs; "
            "readlink /cvmfs/conformance.example.org/symlinks/var",
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("conformance fixture")
    assert lines[1:3] == ["config.example.org", "conformance.example.org"]


@repositories
def test_verify_believes_every_object(fqrn: str) -> None:
    with client_of(fqrn) as dist:
        done = run_cvmfs(dist, "verify", fqrn, "--objects")
    assert done.returncode == 0, done.stderr
    assert b"FAILED" not in done.stdout
