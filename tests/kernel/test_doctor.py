"""``cvmfs doctor`` on real machines: as they are, and with something taken away."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.apptainer import Machine, apptainer_machine
from tests.support.commands import client_dist, plain_environment
from tests.support.host_mounts import REPOSITORIES, Site, kill, site
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import (
    ROOT,
    Caller,
    Place,
    callers,
    places,
    wait_until,
    wrap,
)

pytestmark = pytest.mark.kernel

SECCOMP = (sys.executable, str(ROOT / "tests/support/seccomp.py"))


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, bytes]]:
    repository = publish_tree(tmp_path_factory.mktemp("published"), {"hello": b"hi\n"})
    with serve(repository.output) as base_url:
        yield base_url, repository.master_key_pem


@pytest.fixture
def dist(published: tuple[str, bytes]) -> Iterator[Path]:
    with client_dist(*published) as made:
        yield made


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made
        made.clean()


def examine(
    dist: Path,
    *words: str,
    caller: Caller = Caller.ORDINARY,
    place: Place = Place.PLAIN,
    inside: tuple[str, ...] = (),
) -> tuple[int, dict[str, Any]]:
    line = (*inside, str(ROOT / "cvmfs"), "doctor", "--json", *words)
    done = subprocess.run(
        wrap(line, caller, place),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**plain_environment(), "CVMFSEXEC_DIST": str(dist)},
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def states(told: dict[str, Any], subject: str) -> list[str]:
    return [one["state"] for one in told["findings"] if one["subject"] == subject]


@callers
@places
def test_a_good_machine_is_said_to_be_good(
    dist: Path, caller: Caller, place: Place
) -> None:
    status, told = examine(dist, FQRN, caller=caller, place=place)
    assert (status, told["best_mode"]) == (0, 3)
    assert told["has_pid_namespace"] is (place is Place.PLAIN)
    assert told["modes"]["3"] == {"works": True, "reason": "", "hint": ""}
    assert states(told, FQRN) == ["ok"]


def test_nothing_is_left_of_what_was_tried(dist: Path) -> None:
    directory = dist.parent / "tmp"
    inside = ("env", f"TMPDIR={directory}")
    assert examine(dist, inside=inside)[1]["modes"]["1"]["works"]
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    assert not list(directory.iterdir())


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("unshare", "cannot create a user namespace"),
        ("mount", "cannot mount"),
        ("pivot_root", ""),
    ],
)
def test_what_is_forbidden_is_named(dist: Path, call: str, reason: str) -> None:
    inside = (*SECCOMP, call, "EPERM", "--")
    status, told = examine(dist, inside=inside)
    three = told["modes"]["3"]
    if reason:
        assert (status, told["best_mode"]) == (1, None)
        assert three["reason"].startswith(reason)
        assert "seccomp" in three["hint"]
    else:  # what sessions can do without is no reason
        assert three["works"]


def test_a_repository_that_cannot_be_opened_is_a_failure(dist: Path) -> None:
    status, told = examine(dist, "absent.example.org")
    assert (status, states(told, "absent.example.org")) == (1, ["failure"])


def test_people_are_told_in_lines(dist: Path) -> None:
    done = subprocess.run(
        wrap((str(ROOT / "cvmfs"), "doctor", "--dist", str(dist)), Caller.ORDINARY),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=plain_environment(),
    )
    assert done.returncode == 0
    assert "ok       mode 3: " in done.stdout
    assert "cvmfsexec works here, in mode 3" in done.stdout.splitlines()[-1]


def test_without_a_configuration_the_machine_is_examined(tmp_path: Path) -> None:
    status, told = examine(tmp_path / "absent")
    assert (status, told["best_mode"]) == (0, 3)
    assert states(told, "configuration") == ["warning"]


def test_a_dead_mount_is_found_and_taken_away(here: Site) -> None:
    one = REPOSITORIES[0]
    assert here.run("mountrepo", one).returncode == 0
    for keeper in here.pids("cvmfs-keeper"):
        kill(keeper)
    kill(here.server_pid(one))
    wait_until(lambda: not here.has_process(), "file server and keeper are gone")
    assert len(here.mounts()) == 1
    _, told = examine(here.dist)
    # The mount, and the socket at which it was talked to.
    assert states(told, "left behind") == ["warning"] * 2
    assert len(here.mounts()) == 1
    status, told = examine(here.dist, "--fix")
    assert (status, states(told, "left behind")) == (0, ["ok"] * 2)
    assert not here.mounts()


def test_an_unfinished_file_of_the_dead_is_found_and_removed(dist: Path) -> None:
    examine(dist, FQRN)
    pending = dist / "var/lib/cvmfs" / FQRN / "txn"
    pending.mkdir(exist_ok=True)
    file = pending / "cvmfsexec.of-the-dead"
    file.touch()
    for path in (pending, file):
        status = pending.parent.stat()
        os.chown(path, status.st_uid, status.st_gid)
    _, told = examine(dist)
    assert states(told, "left behind") == ["warning"]
    assert file.exists()
    examine(dist, "--fix")
    assert not file.exists()


# -- Apptainer ------------------------------------------------------------------------


def examine_at(machine: Machine, dist: Path, **variables: str) -> dict[str, Any]:
    line = (str(ROOT / "cvmfs"), "doctor", "--json", "--dist", str(dist))
    done = machine.run(*line, TMPDIR=str(dist.parent / "tmp"), **variables)
    assert done.stderr == ""
    assert not list((dist.parent / "tmp").iterdir())
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_apptainer_is_examined_and_tried(dist: Path) -> None:
    with apptainer_machine() as machine:
        told = examine_at(machine, dist)
        version = machine.run("apptainer", "version").stdout.strip()
        path = machine.run("sh", "-c", "which singularity apptainer").stdout.split()[0]
        starter = machine.run("sh", "-c", "ls /usr/lib*/*/apptainer/bin/starter-suid")
    assert told["modes"]["4"] == {"works": True, "reason": "", "hint": ""}
    assert told["container_program"] == {
        "path": path,
        "version": version,
        "configuration": "/etc/apptainer/apptainer.conf",
        "has_setuid": starter.returncode == 0,
        "allows_fusemount": True,
        "allows_pid_namespace": True,
    }
    assert states(told, "container program") == ["ok"]


def test_without_apptainer_there_is_no_mode_four(dist: Path) -> None:
    with apptainer_machine() as machine:
        told = examine_at(machine, dist, SINGCMD="absent")
    assert told["container_program"] is None
    assert told["modes"]["4"]["reason"].startswith("there is no ")


def test_what_its_admin_forbids_is_found(dist: Path) -> None:
    settings = {"enable fusemount": "no", "allow pid ns": "no"}
    with apptainer_machine(settings=settings) as machine:
        told = examine_at(machine, dist)
    assert not told["modes"]["4"]["works"]
    assert "enable fusemount = no" in told["modes"]["4"]["reason"]
    assert states(told, "container program") == ["ok", "warning", "warning"]
    assert told["best_mode"] == 3
