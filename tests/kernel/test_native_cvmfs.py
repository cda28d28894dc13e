"""A host, container or session that has a ``/cvmfs`` already."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import client_dist, plain_environment
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import (
    PATIENCE_S,
    ROOT,
    Caller,
    Place,
    places,
    skip_unless_possible,
    wrap,
)

CONFIG = "config.example.org"
HOST = (sys.executable, str(ROOT / "tests/support/native_host.py"))
WHO = f"cat /cvmfs/{FQRN}/who"

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("published")
    one = publish_tree(home, {"who": b"ours\n", "in": "$(NATIVE_SET:-no)"})
    publish_tree(home, {"who": b"ours too\n"}, CONFIG)
    with (
        serve(one.output) as base_url,
        client_dist(base_url, one.master_key_pem) as made,
    ):
        yield made


def run_on_host(
    scenes: tuple[str, ...],
    *words: str,
    name: str = FQRN,
    place: Place = Place.PLAIN,
    variables: tuple[tuple[str, str], ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run ``cvmfsexec WORDS...`` as an ordinary user of such a host."""
    if os.geteuid() != 0:
        pytest.skip("only root can give the host a /cvmfs of its own")
    skip_unless_possible(Caller.ORDINARY)
    session = wrap((str(ROOT / "cvmfsexec"), *words), Caller.ORDINARY, place)
    return subprocess.run(
        (*HOST, *scenes, "--", *session),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={
            **plain_environment(),
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
            "NATIVE_NAME": name,
            **dict(variables),
        },
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S * 3,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def shell(dist: Path, script: str, *repositories: str) -> tuple[str, ...]:
    return ("--dist", str(dist), *(repositories or (FQRN,)), "--", "sh", "-c", script)


@places
def test_repositories_of_the_host_stay_beside_ours(dist: Path, place: Place) -> None:
    script = f"{WHO} /cvmfs/other.example.org/who; ls -A /cvmfs"
    line = shell(dist, script)
    done = run_on_host(("mounted",), *line, name="other.example.org", place=place)
    assert told(done).split() == ["ours", "host", "other.example.org", FQRN]


def test_each_repository_is_one_line_of_the_mount_table(dist: Path) -> None:
    script = "grep -c ' /cvmfs' /proc/self/mounts; grep -c ^cvmfs2 /proc/self/mounts"
    done = run_on_host(("mounted",), *shell(dist, script), name="other.example.org")
    assert told(done).split() == ["2", "1"]


def test_whatever_else_is_there_stays_as_it_is(dist: Path) -> None:
    script = (
        f"{WHO} /cvmfs/alias/who /cvmfs/file; readlink /cvmfs/alias;"
        "ls -A /cvmfs/nothing; stat -c %F /cvmfs/nothing"
    )
    done = run_on_host(("plain",), *shell(dist, script))
    assert told(done).split("\n")[:-1] == [
        "ours",
        "host",
        "a file",
        "directory",
        "directory",
    ]


def test_host_can_be_left_out(dist: Path) -> None:
    line = ("--replace-native", *shell(dist, f"ls -A /cvmfs; {WHO}"))
    assert told(run_on_host(("plain", "mounted"), *line)).split() == [FQRN, "ours"]


def test_directory_cannot_be_changed(dist: Path) -> None:
    script = "mkdir /cvmfs/new || touch /cvmfs/new || rm /cvmfs/alias || echo no"
    done = run_on_host(("plain",), *shell(dist, script))
    assert done.stdout == "no\n"


# -- what is asked for and there already -----------------------------------------------


@pytest.mark.parametrize("scene", ["mounted", "tree", "link"])
def test_what_the_host_has_is_used(dist: Path, scene: str) -> None:
    script = f"{WHO}; ps -A -o comm= | grep -c ^cvmfs:"
    done = run_on_host((scene,), *shell(dist, script))
    assert done.stdout.split() == ["host", "0"], done.stderr


def test_a_revision_is_not_looked_for_in_what_the_host_has(dist: Path) -> None:
    words = ("--dist", str(dist), f"{FQRN}@trunk", "--", "sh", "-c", WHO)
    done = run_on_host(("mounted",), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "trunk was asked for, but the host has the repository itself" in done.stderr
    assert told(run_on_host(("mounted",), "--replace-native", *words)) == "ours\n"


@pytest.mark.parametrize("scene", ["dead", "empty", "hidden"])
@places
def test_what_is_of_no_use_is_replaced(dist: Path, scene: str, place: Place) -> None:
    assert told(run_on_host((scene,), *shell(dist, WHO), place=place)) == "ours\n"


def test_server_that_never_answers_is_not_waited_for(dist: Path) -> None:
    assert told(run_on_host(("hung",), *shell(dist, WHO))) == "ours\n"


@pytest.mark.parametrize("scene", ["dead", "hung"])
def test_useless_mount_that_nobody_asked_for_does_no_harm(
    dist: Path, scene: str
) -> None:
    done = run_on_host((scene,), *shell(dist, WHO), name="other.example.org")
    assert told(done) == "ours\n"


def test_configuration_repository_of_the_host_is_used(dist: Path) -> None:
    defaults = dist / "etc/cvmfs/default.d"
    defaults.mkdir()
    (defaults / "50.conf").write_text(f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n")
    try:
        script = f"{WHO}; cat /cvmfs/{CONFIG}/who; ps -A -o comm= | grep ^cvmfs:"
        done = run_on_host(("mounted",), *shell(dist, script), name=CONFIG)
    finally:
        (defaults / "50.conf").unlink()
        defaults.rmdir()
    assert told(done).split() == ["ours", "host", f"cvmfs:{FQRN}"[:15]]


# -- automounter -----------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [FQRN, "there.example.org"])
def test_automounter_is_not_awakened(dist: Path, tmp_path: Path, wanted: str) -> None:
    asked = tmp_path / "asked"
    script = f"cat /cvmfs/there.example.org/who; ls -A /cvmfs; cat /cvmfs/{wanted}/who"
    line = shell(dist, script, wanted)
    done = run_on_host(("automount",), *line, variables=(("NATIVE_ASKED", str(asked)),))
    if "no automounter here" in done.stderr:
        pytest.skip(done.stderr)
    if wanted == FQRN:
        assert told(done).split() == ["host", FQRN, "there.example.org", "ours"]
    else:
        assert told(done).split() == ["host", "there.example.org", "host"]
    assert not asked.exists()


# -- a session in a session ------------------------------------------------------------


@places
def test_session_shows_those_of_the_session_around_it(dist: Path, place: Place) -> None:
    inner = f"{ROOT / 'cvmfsexec'} --dist {dist} {CONFIG}"
    script = f"{inner} -- sh -c 'cat /cvmfs/*/who; grep -c cvmfs2 /proc/self/mounts'"
    done = run_on_host((), *shell(dist, script), place=place)
    assert told(done).split("\n")[:-1] == ["ours too", "ours", "2"]


def test_session_uses_what_the_session_around_it_has(dist: Path) -> None:
    inner = f"{ROOT / 'cvmfsexec'} --dist {dist} {FQRN}"
    script = f"{inner} -- sh -c '{WHO}; ps -A -o comm= | grep -c ^cvmfs:'"
    done = run_on_host((), *shell(dist, script))
    assert done.stdout.split() == ["ours", "0"]
