"""``singcvmfs`` with file servers in the container, which brings nothing for them."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.apptainer import (
    bare_image,
    busybox_image,
    debian_image,
    musl_image,
)
from tests.support.commands import COMMAND_PATIENCE_S, give_to_ordinary_user
from tests.support.nginx import Nginx
from tests.support.published import PublishedRepository, Tree, publish_tree
from tests.support.sessions import Caller, skip_unless_possible
from tests.support.singcvmfs import ContainerSite, bundled_site

FIRST, SECOND, CONFIG = (f"{name}.example.org" for name in ("one", "two", "config"))
FILES = 200
AT_ONCE = 6
BINDS_MAX = 6

CONTAINER = {"SINGCVMFS_SERVER": "container"}
READ_ALL = f"cat /cvmfs/{FIRST}/many/* | sort -n | md5sum"

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    top = tmp_path_factory.mktemp("published")
    publish_tree(top, {"hello": b"two\n"}, SECOND)
    publish_tree(
        top,
        {"etc": {"cvmfs": {"default.conf": b"CVMFS_WHICH=configured\n"}}},
        CONFIG,
    )
    many: Tree = {str(number): os.urandom(50).hex().encode() for number in range(FILES)}
    tree: Tree = {"hello": b"one\n", "which": "$(CVMFS_WHICH:-bare)", "many": many}
    return publish_tree(top, tree, FIRST)


@pytest.fixture(scope="module")
def origin(published: PublishedRepository) -> Iterator[Nginx]:
    with Nginx(published.output) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def site(origin: Nginx, published: PublishedRepository) -> Iterator[ContainerSite]:
    skip_unless_possible(Caller.ORDINARY)
    with bundled_site(origin.url, published.master_key_pem, fqrn=FIRST) as made:
        yield made


@pytest.mark.parametrize(
    ("image", "program"),
    [
        (busybox_image, "cat"),
        (debian_image, "cat"),
        (musl_image, "/bin/say"),
        (bare_image, "/say"),
    ],
    ids=["busybox", "debian", "musl", "bare"],
)
def test_any_image_has_the_repository(
    site: ContainerSite, image: Callable[[], Path], program: str
) -> None:
    words = ("exec", str(image()), program, f"/cvmfs/{FIRST}/hello")
    done = site.run(*words, **CONTAINER)
    assert (done.stdout, done.stderr, done.returncode) == ("one\n", "", 0)
    site.wait_until_gone()


def test_nothing_of_the_host_is_needed_in_the_container(site: ContainerSite) -> None:
    words = ("exec", "--containall", str(busybox_image()))
    done = site.run(*words, "cat", f"/cvmfs/{FIRST}/hello", **CONTAINER)
    assert (done.stdout, done.stderr, done.returncode) == ("one\n", "", 0)


def test_the_file_serves_from_the_host_as_well(site: ContainerSite) -> None:
    done = site.run("exec", str(bare_image()), "/say", f"/cvmfs/{FIRST}/hello")
    assert (done.stdout, done.stderr, done.returncode) == ("one\n", "", 0)


def test_a_handful_of_binds_is_added(site: ContainerSite) -> None:
    words = ("exec", str(busybox_image()), "cat", "/proc/self/mountinfo")
    places = [
        {line.split()[4] for line in done.stdout.splitlines()}
        for done in (site.run(*words, **CONTAINER), site.apptainer(*words))
    ]
    added = places[0] - places[1]
    assert f"/cvmfs/{FIRST}" in added
    assert len(added) <= BINDS_MAX + 1


def test_a_repository_configures_others(site: ContainerSite) -> None:
    assert site.command
    dist = Path(site.command).parent / ".singcvmfs/dist/etc/cvmfs"
    site.run("-V")  # unpacks
    (dist / "default.d").mkdir(exist_ok=True)
    file = dist / "default.d/50.conf"
    file.write_text(f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n")
    script = f"ls /cvmfs; readlink /cvmfs/{FIRST}/which"
    try:
        done = site.run(
            *("exec", str(busybox_image()), "sh", "-c", script),
            SINGCVMFS_REPOSITORIES=f"{FIRST},{SECOND}",
            **CONTAINER,
        )
    finally:
        file.unlink()
    assert done.stdout.split() == [*sorted((CONFIG, FIRST, SECOND)), "configured"]
    assert done.stderr == ""


def test_an_instance_has_it_until_it_is_stopped(site: ContainerSite) -> None:
    name = f"test-bundle-{os.getpid()}"
    started = site.run(
        *("--silent", "instance", "start", str(busybox_image()), name), **CONTAINER
    )
    try:
        assert started.returncode == 0, started.stderr
        done = site.run(
            "exec", f"instance://{name}", "cat", f"/cvmfs/{FIRST}/hello", **CONTAINER
        )
        assert done.stdout == "one\n"
    finally:
        site.run("--silent", "instance", "stop", "--force", name)
    site.wait_until_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_container_that_is_killed(
    site: ContainerSite, number: signal.Signals
) -> None:
    script = f"cat /cvmfs/{FIRST}/hello; exec sleep 1000"
    words = ("exec", str(busybox_image()), "sh", "-c", script)
    with site.started(*words, **CONTAINER) as container:
        assert container.process.stdout is not None
        assert container.process.stdout.readline() == "one\n"
        assert site.file_servers()
        container.process.send_signal(number)
        container.finish()
        site.wait_until_gone()


def test_servers_that_are_killed_at_work_leave_a_good_cache(
    site: ContainerSite, origin: Nginx
) -> None:
    cache = str(site.new_directory("cache"))
    variables = {**CONTAINER, "SINGCVMFS_CACHEDIR": cache}
    image = str(busybox_image())
    # The payload ends, and with it the server, while much is under way.
    script = f"cat /cvmfs/{FIRST}/many/1?? >/dev/null & sleep 0.$((RANDOM % 3)); true"
    words = ("exec", image, "sh", "-c", script)
    processes = [site.install_start(words, variables) for _ in range(AT_ONCE)]
    for process in processes:
        process.communicate(timeout=3 * COMMAND_PATIENCE_S)
        assert process.returncode == 0
    site.wait_until_gone()
    good = site.run("exec", image, "sh", "-c", READ_ALL, **CONTAINER).stdout
    assert site.run("exec", image, "sh", "-c", READ_ALL, **variables).stdout == good

    origin.forget_requests()
    assert site.run("exec", image, "sh", "-c", READ_ALL, **variables).stdout == good
    assert origin.objects() == []


def test_an_image_keeps_the_cache(site: ContainerSite, origin: Nginx) -> None:
    if not shutil.which("fuse2fs"):
        pytest.skip("fuse2fs is not installed")
    top = site.new_directory("image")
    (top / "content/shared").mkdir(parents=True)
    give_to_ordinary_user(top)
    image = top / "cache.ext3"
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    make = ("mkfs.ext3", "-q", "-d", str(top / "content"), str(image))
    subprocess.run(make, check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    give_to_ordinary_user(top)
    words = ("exec", str(busybox_image()), "sh", "-c", READ_ALL)
    done = site.run(*words, SINGCVMFS_CACHEIMAGE=str(image))
    assert done.returncode == 0
    assert done.stderr == ""

    origin.forget_requests()
    again = site.run(*words, SINGCVMFS_CACHEIMAGE=str(image))
    assert again.stdout == done.stdout
    assert origin.objects() == []


def test_an_image_is_seen_in_the_container_only(site: ContainerSite) -> None:
    file = site.new_directory("image") / "image"
    with file.open("wb") as stream:
        stream.truncate(4096)
        stream.seek(1080)
        stream.write(b"\x53\xef")
    done = site.run(
        *("exec", str(busybox_image()), "true"),
        SINGCVMFS_CACHEIMAGE=str(file),
        SINGCVMFS_SERVER="host",
    )
    assert done.returncode == 2
    assert "is seen in the container only" in done.stderr


def test_a_path_that_is_no_bind_is_told(site: ContainerSite) -> None:
    done = site.run(
        *("exec", str(busybox_image()), "true"),
        SINGCVMFS_LOGDIR=str(site.new_directory("a,b")),
        **CONTAINER,
    )
    assert done.returncode == 2
    assert "cannot be shown in a container" in done.stderr
    site.wait_until_gone()
