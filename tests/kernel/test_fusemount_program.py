"""The program of ``--fusemount``, started by real Apptainer in each of its ways."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.configuration.evaluate import begin
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.format.parameters import Parameter
from cvmfsexec.fusemount.handover import Handover, leave, make_place
from tests.support.apptainer import busybox_image
from tests.support.commands import give_to_ordinary_user
from tests.support.published import FQRN, PublishedRepository, publish_tree, serve
from tests.support.sessions import (
    Caller,
    Started,
    skip_unless_possible,
    wait_until,
)
from tests.support.singcvmfs import ContainerSite, container_site

READ = ("cat", f"/cvmfs/{FQRN}/hello")

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(
        tmp_path_factory.mktemp("published"), {"hello": b"hello\n", "late": b"late\n"}
    )


@pytest.fixture(scope="module")
def site(published: PublishedRepository) -> Iterator[ContainerSite]:
    skip_unless_possible(Caller.ORDINARY)
    with (
        serve(published.output) as base_url,
        container_site(base_url, published.master_key_pem, fqrn=FQRN) as made,
    ):
        yield made


def told(site: ContainerSite, **values: str) -> str:
    """Leave what a file server is told, with other parameters; return the path."""
    root = ConfigurationRoot(str(site.install.directory / "dist"))
    configuration = begin(FQRN, root, {}).finish(None)
    parameters = {
        name: Parameter(value, "test")
        for name, value in {**configuration.variables(), **values}.items()
    }
    user = site.install.top.stat()
    place = make_place(str(site.new_directory("notes")))
    path = leave(
        place,
        Handover(
            *(FQRN, root, parameters, None, None, {}), user.st_uid, user.st_gid, 0o022
        ),
    )
    give_to_ordinary_user(Path(place))
    return path


def mount(site: ContainerSite, kind: str, path: str) -> tuple[str, ...]:
    """Return the words that let Apptainer start a file server."""
    spec = f"{kind}:{site.command} --serve {path} {FQRN} /cvmfs/{FQRN}"
    return ("exec", "--fusemount", spec, str(busybox_image()))


def silent_server() -> socket.socket:
    """Listen, and never answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.listen(100)
    return listener


@pytest.mark.parametrize("kind", ["host", "host-daemon"])
def test_it_is_told_by_file_alone_and_leaves_none(
    site: ContainerSite, kind: str
) -> None:
    path = told(site)
    done = site.apptainer(*mount(site, kind, path), *READ)
    assert (done.stdout, done.stderr, done.returncode) == ("hello\n", "", 0)
    assert not os.path.exists(path)
    site.wait_until_gone()


def test_in_the_background_it_tells_that_it_cannot_serve(site: ContainerSite) -> None:
    path = told(
        site,
        CVMFS_SERVER_URL="http://127.0.0.1:1/@fqrn@",
        CVMFS_CACHE_BASE=str(site.new_directory("cache")),
    )
    done = site.apptainer(*mount(site, "host-daemon", path), "echo", "ran")
    assert done.returncode == 255
    assert "exit status 16" in done.stderr
    assert "ran" not in done.stdout
    site.wait_until_gone()


def test_in_the_foreground_it_tells_the_log(site: ContainerSite) -> None:
    logs = site.new_directory("logs")
    path = told(
        site,
        CVMFS_SERVER_URL="http://127.0.0.1:1/@fqrn@",
        CVMFS_CACHE_BASE=str(site.new_directory("cache")),
        CVMFS_USYSLOG=f"{logs}/log",
    )
    done = site.apptainer(*mount(site, "host", path), *READ)
    assert done.returncode == 1
    assert "Transport endpoint is not connected" in done.stderr
    assert "cvmfs:" not in done.stderr
    assert ".cvmfspublished" in (logs / "log").read_text()


@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_its_container_whatever_it_waits_for(
    site: ContainerSite, number: int
) -> None:
    # Apptainer waits for it without limit, and so would this test.
    with silent_server() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/@fqrn@"
        path = told(
            site,
            CVMFS_SERVER_URL=url,
            CVMFS_TIMEOUT_DIRECT="10000",
            CVMFS_CACHE_BASE=str(site.new_directory("cache")),
        )
        script = "echo up; exec sleep 1000" if number else "echo up"
        line = ("apptainer", *mount(site, "host", path), "sh", "-c", script)
        with site.install.started(*line, host=site.machine.host) as container:
            assert container.process.stdout is not None
            assert container.process.stdout.readline() == "up\n"
            if number:
                wait_until(lambda: bool(site.file_servers()), "it has been started")
                container.process.send_signal(number)
            container.finish()
            site.wait_until_gone()


def test_it_keeps_nothing_open_and_no_umask_of_others(site: ContainerSite) -> None:
    name = f"test-descriptors-{os.getpid()}"
    cache = site.new_directory("cache")
    path = told(site, CVMFS_CACHE_BASE=str(cache))
    words = mount(site, "host", path)
    image = words[-1]
    started = site.apptainer("-s", "instance", "start", *words[1:-1], image, name)
    try:
        assert started.returncode == 0, started.stderr
        (server,) = site.file_servers()
        joined = site.apptainer("exec", f"instance://{name}", *READ)
        assert joined.stdout == "hello\n"
        opened = Path(f"/proc/{server}/fd")
        targets = {int(one.name): os.readlink(one) for one in opened.iterdir()}
        assert {targets[number] for number in (0, 1, 2)} == {"/dev/null"}
        others = {text for number, text in targets.items() if number > 2}
        foreign = {text for text in others if "ns/" in text or "apptainer" in text}
        assert foreign == set()
        modes = {path.stat().st_mode & 0o022 for path in cache.rglob("*")}
        assert modes == {0}
        status = Path(f"/proc/{server}/status").read_text()
        assert f"Name:\tcvmfs:{FQRN}"[:20] in status
    finally:
        site.apptainer("-s", "instance", "stop", name)
    site.wait_until_gone()


@contextlib.contextmanager
def reading_container(site: ContainerSite) -> Iterator[Started]:
    """Start a container that has read one file, and reads another one at a word."""
    script = f"cat /cvmfs/{FQRN}/hello; read line; cat /cvmfs/{FQRN}/late || exit 3"
    line = ("apptainer", *mount(site, "host", told(site)), "sh", "-c", script)
    with site.install.started(*line, host=site.machine.host) as container:
        assert container.process.stdout is not None
        assert container.process.stdout.readline() == "hello\n"
        yield container


def go_on(container: Started) -> None:
    assert container.process.stdin is not None
    container.process.stdin.write("go on\n")
    container.process.stdin.flush()


def test_signals_for_the_payload_do_not_end_it(site: ContainerSite) -> None:
    with reading_container(site) as container:
        (server,) = site.file_servers()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
            os.kill(server, number)
        go_on(container)
        assert container.process.stdout is not None
        assert container.process.stdout.readline() == "late\n"
        assert container.finish() == 0


def test_it_ends_at_once_when_it_is_told_to(site: ContainerSite) -> None:
    with reading_container(site) as container:
        (server,) = site.file_servers()
        os.kill(server, signal.SIGTERM)
        wait_until(lambda: not site.file_servers(), "the file server has ended")
        go_on(container)
        assert container.finish() == 3
