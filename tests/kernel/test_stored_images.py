"""``singcvmfs`` with images that lie in a repository, and real Apptainer."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import pytest

from cvmfsexec.format.dirent import Compression
from tests.support.apptainer import (
    Machine,
    apptainer_machine,
    bare_image,
    busybox_image,
    debian_image,
    skip_without,
)
from tests.support.commands import COMMAND_PATIENCE_S, give_to_ordinary_user
from tests.support.installs import Installation, installation, ordinary_uid
from tests.support.nginx import Nginx
from tests.support.published import FQRN, publish_tree
from tests.support.sessions import Started, wait_until

pytestmark = pytest.mark.kernel

TAG = "first"
OTHER = "other.example.org"
TOP = f"/cvmfs/{FQRN}"
IMAGE = f"{TOP}/images/busybox"
DEBIAN = f"{TOP}/images/debian"
AT_ONCE = 20


class Place(NamedTuple):
    """Where the tests run: an installation on a machine with Apptainer."""

    install: Installation
    machine: Machine

    def run(
        self, *words: str, repositories: str = FQRN, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        line = self.install.line("singcvmfs", *words)
        if repositories:
            variables["SINGCVMFS_REPOSITORIES"] = repositories
        return self.install.run(*line, host=self.machine.host, **variables)

    def started(self, *words: str) -> AbstractContextManager[Started]:
        line = self.install.line("singcvmfs", *words)
        return self.install.started(*line, host=self.machine.host)

    def start(self, *words: str) -> subprocess.Popen[str]:
        line = self.install.line("singcvmfs", *words)
        return self.install.start(
            *line, host=self.machine.host, stdin=subprocess.DEVNULL
        )

    def processes(self) -> list[str]:
        """Return the command lines that are about this installation."""
        top = str(self.install.top)
        listed = subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        )
        return [line for line in listed.stdout.splitlines() if top in line]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nginx, bytes]]:
    skip_without("machine")
    home = tmp_path_factory.mktemp("published")
    source = home / "images-source"
    images = source / "images"
    images.mkdir(parents=True)
    for image in (busybox_image(), bare_image(), debian_image()):
        subprocess.run(["cp", "-a", image, images], check=True)
    (source / "hello").write_text("hello\n")
    published = publish_tree(home, source, tag=TAG, compression=Compression.NONE)
    other = publish_tree(home, {"hello": b"other\n"}, OTHER)
    shutil.rmtree(source)
    keys = published.master_key_pem + other.master_key_pem
    with Nginx(published.output) as origin:
        yield origin, keys


@pytest.fixture
def place(served: tuple[Nginx, bytes]) -> Iterator[Place]:
    origin, keys = served
    with (
        installation(origin.url, keys) as install,
        apptainer_machine(install.top / "home") as machine,
    ):
        yield Place(install, machine)
        wait_until(lambda: not install.leftovers(), f"{install.leftovers()} is left")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("exec", IMAGE, "cat", f"{TOP}/hello"), "hello\n", id="exec"),
        pytest.param(("run", IMAGE, "cat", f"{TOP}/hello"), "hello\n", id="run"),
        pytest.param(
            ("exec", f"{TOP}/images/bare", "/say", f"{TOP}/hello"), "hello\n", id="bare"
        ),
        pytest.param(
            ("exec", f"{TOP}/images/debian", "perl", "-e", "print $>"),
            str(ordinary_uid()),
            id="debian",
        ),
        pytest.param(
            ("-q", "exec", "-B", "/cvmfs", "--userns", IMAGE, "cat", f"{TOP}/hello"),
            "hello\n",
            id="options",
        ),
    ],
)
def test_an_image_of_a_repository_is_run(
    place: Place, words: tuple[str, ...], said: str
) -> None:
    done = place.run(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_a_shell_reads_what_is_typed(place: Place) -> None:
    line = place.install.line("singcvmfs", "shell", IMAGE)
    process = place.install.start(*line, host=place.machine.host, stdin=subprocess.PIPE)
    out, err = process.communicate(f"cat {TOP}/hello; exit 3\n", COMMAND_PATIENCE_S)
    assert (process.returncode, out, err) == (3, "hello\n", "")


def test_the_image_names_its_repository(place: Place) -> None:
    done = place.run("exec", IMAGE, "ls", "/cvmfs", repositories="")
    assert (done.stdout, done.stderr) == (f"{FQRN}\n", "")


def test_the_short_form_takes_it(place: Place) -> None:
    done = place.run("ls", "/cvmfs", repositories=OTHER, SINGCVMFS_IMAGE=IMAGE)
    assert (done.stdout, done.stderr) == (f"{OTHER}\n{FQRN}\n", "")


def test_what_its_admin_forbids_does_not_matter(place: Place) -> None:
    settings = {"enable fusemount": "no"}
    with apptainer_machine(place.install.top / "home", settings=settings) as machine:
        there = place._replace(machine=machine)
        done = there.run("exec", IMAGE, "cat", f"{TOP}/hello")
        refused = there.run("exec", str(busybox_image()), "cat", f"{TOP}/hello")
    assert (done.stdout, done.stderr) == ("hello\n", "")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "'enable fusemount = no'" in refused.stderr


def test_a_link_of_the_host_leads_to_it(place: Place) -> None:
    link = place.install.top / "home/link"
    link.symlink_to(IMAGE)
    done = place.run("exec", str(link), "cat", f"{TOP}/hello")
    assert (done.stdout, done.stderr) == ("hello\n", "")


def test_exit_status_and_signals_are_those_of_the_payload(place: Place) -> None:
    assert place.run("exec", IMAGE, "sh", "-c", "exit 7").returncode == 7
    killed = place.run("exec", IMAGE, "sh", "-c", "kill -TERM $$")
    assert killed.returncode == 143


def test_an_image_that_is_not_there_is_said(place: Place) -> None:
    done = place.run("exec", f"{TOP}/absent", "true")
    assert done.returncode == 255
    assert "absent" in done.stderr


def test_a_repository_that_is_not_there_is_said(place: Place) -> None:
    done = place.run("exec", "/cvmfs/absent.example.org/image", "true")
    assert (done.returncode, done.stdout) == (16, "")
    assert "absent.example.org" in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_nothing_is_left_of_a_killed_container(place: Place, name: str) -> None:
    with place.started("exec", IMAGE, "sleep", "600") as session:
        wait_until(lambda: bool(session.pids_of("sleep")), "the container runs")
        os.kill(session.process.pid, signal.Signals[name])
        session.process.wait()
        wait_until(session.is_gone, "nothing is left")


def test_many_at_once_share_a_cache_whoever_is_killed(
    place: Place, served: tuple[Nginx, bytes]
) -> None:
    origin, _ = served
    words = ("exec", IMAGE, "sh", "-c", f"cat {DEBIAN}/usr/bin/[a-m]* | md5sum")
    processes = [place.start(*words) for _ in range(AT_ONCE)]
    for process in processes[::4]:
        time.sleep(0.2)  # each at another point of its life
        process.kill()
    results = [one.communicate(timeout=6 * COMMAND_PATIENCE_S) for one in processes]
    good = {
        result
        for one, result in zip(processes, results, strict=True)
        if one.returncode == 0
    }
    assert len(good) == 1, results
    assert sum(one.returncode != 0 for one in processes) <= len(processes[::4])
    wait_until(lambda: not place.processes(), f"{place.processes()} is left")

    origin.forget_requests()
    again = place.run(*words)
    assert (again.stdout, again.stderr) in good
    assert origin.objects() == []


def test_the_cache_and_logs_go_where_they_are_wanted(place: Place) -> None:
    cache, logs = place.install.top / "home/cache", place.install.top / "home/logs"
    variables = {
        "SINGCVMFS_CACHEDIR": str(cache),
        "SINGCVMFS_LOGDIR": str(logs),
        "SINGCVMFS_LOGLEVEL": "debug",
    }
    assert place.run("exec", IMAGE, "true", **variables).returncode == 0
    assert cache.exists()
    assert [one.name for one in logs.glob("*debug*")] == [f"{FQRN}-debug.log"]
    assert not (place.install.directory / "dist/var").exists()


def test_an_image_file_keeps_the_cache(place: Place) -> None:
    file = place.install.top / "home/cache.img"
    with file.open("wb") as stream:
        stream.truncate(64 << 20)
    make = ("mkfs.ext3", "-q", "-F", str(file))
    subprocess.run(make, check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    give_to_ordinary_user(file.parent)
    variables = {"SINGCVMFS_CACHEIMAGE": str(file), "SINGCVMFS_CACHEDIR": "/kept"}
    words = ("exec", "-B", "/e2fs:/mnt", IMAGE, "sh", "-c", "ls /mnt/kept; df /mnt")
    done = place.run(*words, **variables)
    assert done.returncode == 0, done.stderr
    assert FQRN in done.stdout or "shared" in done.stdout


def test_a_revision_of_the_past_has_images_too(place: Place) -> None:
    line = ("exec", IMAGE, "cat", f"{TOP}/hello")
    done = place.run(*line, repositories=f"{FQRN}@{TAG}")
    assert (done.stdout, done.stderr) == ("hello\n", "")
    absent = place.run(*line, repositories=f"{FQRN}@absent")
    assert (absent.returncode, absent.stdout) == (22, "")


# -- instances ------------------------------------------------------------------------


def test_an_instance_lives_on_with_its_repositories(place: Place) -> None:
    started = place.run("instance", "start", IMAGE, "one")
    assert started.returncode == 0, started.stderr
    try:
        inside = place.run("exec", "instance://one", "cat", f"{TOP}/hello")
        assert inside.stdout == "hello\n"
        words = ("apptainer", "exec", "--userns", "instance://one")
        plain = place.machine.run(*words, "cat", f"{TOP}/images/bare/etc/issue")
        assert plain.stdout == "any image\n"
        assert "one" in place.run("instance", "list").stdout
    finally:
        stopped = place.run("instance", "stop", "one")
    assert stopped.returncode == 0
    assert "one" not in place.run("instance", "list").stdout


def test_the_session_ends_with_the_instance(place: Place) -> None:
    with place.started("instance", "start", IMAGE, "one") as session:
        assert session.finish() == 0
        assert session.pids_of(f"cvmfs:{FQRN}"[:15])
        assert place.run("instance", "stop", "-F", "one").returncode == 0
        wait_until(session.is_gone, "nothing is left")


def test_an_instance_ends_with_its_session(place: Place) -> None:
    with place.started("instance", "start", IMAGE, "one") as session:
        assert session.finish() == 0
        listing = place.install.line("cvmfs", "sessions", "--json")
        (listed,) = json.loads(place.install.run(*listing).stdout)
        assert listed["repositories"] == [FQRN]
        os.kill(listed["pid"], signal.SIGTERM)
        wait_until(session.is_gone, "nothing is left")
    assert "one" not in place.run("instance", "list").stdout


def test_an_instance_that_cannot_start_leaves_nothing(place: Place) -> None:
    with place.started("instance", "start", f"{TOP}/absent", "one") as session:
        assert session.finish() == 255
        wait_until(session.is_gone, "nothing is left")
