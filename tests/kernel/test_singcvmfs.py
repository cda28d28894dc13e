"""``singcvmfs`` with real Apptainer: file servers on the host, any image."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.apptainer import (
    bare_image,
    busybox_image,
    debian_image,
    musl_image,
    skip_without,
)
from tests.support.commands import COMMAND_PATIENCE_S
from tests.support.nginx import Nginx
from tests.support.published import PublishedRepository, publish_tree
from tests.support.sessions import Caller, skip_unless_possible, wait_until
from tests.support.singcvmfs import ContainerSite, container_site
from tests.support.terminal import Terminal

FIRST, SECOND, THIRD = (f"{name}.example.org" for name in ("one", "two", "three"))
CONFIG = "config.example.org"
AT_ONCE = 20

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    """Three repositories, and one that can configure them."""
    skip_without("machine")
    top = tmp_path_factory.mktemp("published")
    for fqrn in (SECOND, THIRD):
        publish_tree(top, {"hello": f"{fqrn}\n".encode()}, fqrn)
    publish_tree(
        top,
        {"etc": {"cvmfs": {"default.conf": b"CVMFS_WHICH=configured\n"}}},
        CONFIG,
    )
    source = top / "source" / FIRST
    source.mkdir(parents=True)
    (source / "hello").write_text(f"{FIRST}\n")
    (source / "secret").write_text("secret\n")
    (source / "secret").chmod(0o200)
    (source / "which").symlink_to("$(CVMFS_WHICH:-bare)")
    (source / "many").mkdir()
    for number in range(50):
        (source / f"many/{number}").write_text(f"{number}\n")
    return publish_tree(top, source, FIRST)


@pytest.fixture(scope="module")
def origin(published: PublishedRepository) -> Iterator[Nginx]:
    with Nginx(published.output) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def site(origin: Nginx, published: PublishedRepository) -> Iterator[ContainerSite]:
    skip_unless_possible(Caller.ORDINARY)
    with container_site(origin.url, published.master_key_pem, fqrn=FIRST) as made:
        yield made


@contextlib.contextmanager
def configured(site: ContainerSite, more: str = "") -> Iterator[None]:
    """Let a repository configure the others."""
    file = site.install.directory / "dist/etc/cvmfs/default.d/50.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n{more}")
    try:
        yield
    finally:
        file.unlink()


def cat(fqrn: str = FIRST, name: str = "hello") -> tuple[str, ...]:
    return ("cat", f"/cvmfs/{fqrn}/{name}")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (busybox_image, ("cat",)),
        (debian_image, ("cat",)),
        (musl_image, ("/bin/say",)),
        (bare_image, ("/say",)),
    ],
    ids=["busybox", "debian", "musl", "bare"],
)
def test_any_image_has_the_repository(
    site: ContainerSite, image: object, words: tuple[str, ...]
) -> None:
    assert callable(image)
    done = site.run("exec", str(image()), *words, f"/cvmfs/{FIRST}/hello")
    assert (done.stdout, done.stderr, done.returncode) == (f"{FIRST}\n", "", 0)


@pytest.mark.parametrize(
    "option", ["--containall", "--writable-tmpfs", "--underlay", "--no-init"]
)
def test_options_of_apptainer_go_with_it(site: ContainerSite, option: str) -> None:
    done = site.run("exec", option, str(busybox_image()), *cat())
    assert (done.stdout, done.returncode) == (f"{FIRST}\n", 0)


def test_three_repositories_and_one_that_configures_them(site: ContainerSite) -> None:
    script = f"cat /cvmfs/*/hello; ls /cvmfs; readlink /cvmfs/{FIRST}/which"
    with configured(site):
        done = site.run(
            "exec",
            str(busybox_image()),
            *("sh", "-c", script),
            SINGCVMFS_REPOSITORIES=f"{FIRST},{SECOND},{THIRD}",
        )
    assert done.stderr == ""
    names = sorted((CONFIG, FIRST, SECOND, THIRD))
    read = sorted((FIRST, SECOND, THIRD))
    assert done.stdout.split() == [*read, *names, "configured"]


def test_without_the_one_that_configures_it_goes_on(site: ContainerSite) -> None:
    script = f"ls /cvmfs; readlink /cvmfs/{FIRST}/which"
    gone = "CVMFS_CONFIG_REPOSITORY=gone.example.org\n"
    with configured(site, gone):
        done = site.run("exec", str(busybox_image()), "sh", "-c", script)
    assert done.stdout.split() == [FIRST, "bare"]
    assert "going on without the configuration repository gone" in done.stderr


def test_a_required_one_that_is_gone_is_an_error(site: ContainerSite) -> None:
    more = "CVMFS_CONFIG_REPOSITORY=gone.example.org\nCVMFS_CONFIG_REPO_REQUIRED=yes\n"
    with configured(site, more):
        done = site.run("exec", str(busybox_image()), "true")
    assert (done.stdout, done.returncode) == ("", 2)
    assert "singcvmfs: the required configuration repository gone" in done.stderr


def test_it_may_be_called_singularity(
    origin: Nginx, published: PublishedRepository
) -> None:
    key = published.master_key_pem
    with container_site(origin.url, key, fqrn=FIRST, program="singularity") as site:
        done = site.run("exec", str(busybox_image()), *cat())
        assert (done.stdout, done.returncode) == (f"{FIRST}\n", 0), done.stderr
        script = f"cat /cvmfs/{FIRST}/hello /elsewhere/secret"
        (site.install.top / "tmp/secret").write_text("bound\n")
        done = site.run(
            *("exec", str(busybox_image()), "sh", "-c", script),
            SINGULARITY_BINDPATH=f"{site.install.top}/tmp:/elsewhere",
        )
        assert (done.stdout, done.stderr) == (f"{FIRST}\nbound\n", "")


def test_run_and_the_short_form(site: ContainerSite) -> None:
    image = str(busybox_image())
    done = site.run("run", image, *cat())
    assert (done.stdout, done.stderr) == (f"{FIRST}\n", "")
    done = site.run(*cat(), SINGCVMFS_IMAGE=image)
    assert (done.stdout, done.stderr) == (f"{FIRST}\n", "")


def test_shell_reads_its_commands(site: ContainerSite) -> None:
    script = f"{' '.join(cat())}\nexit 5\n"
    done = site.run("--silent", "shell", str(debian_image()), stdin=script)
    assert (done.stdout, done.returncode) == (f"{FIRST}\n", 5)


@pytest.mark.parametrize("action", ["start", "run"])
def test_an_instance_has_it_until_it_is_stopped(
    site: ContainerSite, action: str
) -> None:
    name = f"test-{action}-{os.getpid()}"
    arguments = ("sleep", "1000") if action == "run" else ()
    # An instance goes on in the background, and its streams with it.
    started = site.run(
        *("--silent", "instance", action, str(busybox_image()), name, *arguments)
    )
    try:
        assert started.returncode == 0, started.stderr
        assert site.file_servers()
        done = site.run("exec", f"instance://{name}", *cat())
        assert (done.stdout, done.returncode) == (f"{FIRST}\n", 0), done.stderr
        assert len(site.file_servers()) == 1
    finally:
        stopped = site.run("--silent", "instance", "stop", name)
    assert stopped.returncode == 0
    site.wait_until_gone()


def test_a_device_without_a_mount_is_given_back_at_once(site: ContainerSite) -> None:
    # As the original, and Apptainer, do it when an instance is joined.
    name = f"test-join-{os.getpid()}"
    site.run("--silent", "instance", "start", str(busybox_image()), name)
    logs = site.install.directory / "log"
    before = sorted(logs.rglob("*"))
    command = site.install.directory / "singcvmfs"
    spec = f"host:{command} --serve /no/such/handover {FIRST} /cvmfs/{FIRST}"
    try:
        done = site.apptainer(
            *("exec", "--fusemount", spec, f"instance://{name}", *cat())
        )
    finally:
        site.run("--silent", "instance", "stop", name)
    assert (done.stdout, done.returncode) == (f"{FIRST}\n", 0)
    assert "--serve" not in done.stderr
    site.wait_until_gone()
    assert sorted(logs.rglob("*")) == before


@pytest.mark.parametrize(
    "script", ["exit 7", "kill -TERM $$", "kill -KILL $$", "exec /no/such/program"]
)
def test_the_end_of_the_payload_is_that_of_the_command(
    site: ContainerSite, script: str
) -> None:
    words = (str(busybox_image()), "sh", "-c", script)
    ours = site.run("exec", *words)
    plain = site.apptainer("exec", "--pid", *words)  # which any mount implies
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    site.wait_until_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_container_that_is_killed(
    site: ContainerSite, number: signal.Signals
) -> None:
    script = f"cat /cvmfs/{FIRST}/hello; exec sleep 1000"
    with site.started("exec", str(busybox_image()), "sh", "-c", script) as container:
        assert container.process.stdout is not None
        assert container.process.stdout.readline() == f"{FIRST}\n"
        assert len(site.file_servers()) == 1
        container.process.send_signal(number)
        assert container.finish() != 0
        site.wait_until_gone()


def test_a_container_that_never_was_leaves_nothing(site: ContainerSite) -> None:
    done = site.run("exec", "/no/such/image", "true")
    assert done.returncode == 255
    site.wait_until_gone()


def test_polite_signals_reach_the_payload(site: ContainerSite) -> None:
    script = (
        "trap 'cat /cvmfs/*/hello; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    )
    with site.started("exec", str(busybox_image()), "sh", "-c", script) as container:
        assert container.process.stdout is not None
        assert container.process.stdout.readline() == "up\n"
        container.process.terminate()
        out = container.process.communicate(timeout=COMMAND_PATIENCE_S)[0]
    assert (out, container.process.returncode) == (f"{FIRST}\n", 3)


def test_ctrl_c_is_for_the_payload(site: ContainerSite) -> None:
    script = (
        "trap 'echo caught' INT; echo up; until read line; do :; done; "
        f"cat /cvmfs/{FIRST}/hello; exit 4"
    )
    variables = (
        f"HOME={site.machine.home}",
        f"XDG_RUNTIME_DIR={site.install.top}/run",
        f"SINGCVMFS_REPOSITORIES={FIRST}",
    )
    words = ("exec", str(busybox_image()), "sh", "-c", script)
    line = site.machine.line("env", *variables, site.command, *words)
    with Terminal(line) as terminal:
        terminal.expect("up")
        wait_until(lambda: bool(site.file_servers()), "there is a file server")
        terminal.type("\x03")
        terminal.expect("caught")
        terminal.type("go on\n")
        terminal.expect(FIRST)
        assert terminal.finish() == 4
    site.wait_until_gone()


def test_many_at_once_share_a_cache(site: ContainerSite, origin: Nginx) -> None:
    cache = str(site.new_directory("cache"))
    words = ("exec", str(busybox_image()), "sh", "-c", f"cat /cvmfs/{FIRST}/many/*")
    variables = {"SINGCVMFS_CACHEDIR": cache}
    expected = sorted(f"{number}\n" for number in range(50))
    origin.forget_requests()
    processes = [site.install_start(words, variables) for _ in range(AT_ONCE)]
    for process in processes:
        out, err = process.communicate(timeout=3 * COMMAND_PATIENCE_S)
        assert (sorted(out.splitlines(keepends=True)), err) == (expected, "")
    site.wait_until_gone()
    objects = origin.objects()
    assert len(objects) <= 1.1 * len(set(objects))  # claims are advice

    origin.forget_requests()
    done = site.run(*words, **variables)
    assert sorted(done.stdout.splitlines(keepends=True)) == expected
    assert origin.objects() == []


def test_nothing_is_written_to_a_dist(site: ContainerSite) -> None:
    dist = site.install.directory / "dist"

    def state() -> list[tuple[str, int, int]]:
        found = [(str(path), path.lstat()) for path in sorted(dist.rglob("*"))]
        return [(path, one.st_mtime_ns, one.st_mode) for path, one in found]

    before = state()
    logs = site.new_directory("logs")
    done = site.run(
        *("exec", str(busybox_image()), *cat()),
        SINGCVMFS_CACHEDIR=str(site.new_directory("cache")),
        SINGCVMFS_LOGDIR=str(logs),
        SINGCVMFS_LOGLEVEL="debug",
    )
    assert (done.stdout, done.stderr) == (f"{FIRST}\n", "")
    assert state() == before
    assert (logs / f"{FIRST}-debug.log").read_text()


def test_settings_of_another_file_count(site: ContainerSite) -> None:
    local = site.install.directory / "dist/etc/cvmfs/default.local"
    options = site.new_directory("options") / "options"
    options.write_text(f"{local.read_text()}CVMFS_WHICH=optional\n")
    done = site.run(
        *("exec", str(busybox_image()), "readlink", f"/cvmfs/{FIRST}/which"),
        SINGCVMFS_OPTSFILE=str(options),
    )
    assert (done.stdout, done.stderr) == ("optional\n", "")
    assert "optional" not in local.read_text()


def test_modes_count_and_nothing_can_be_written(site: ContainerSite) -> None:
    top = f"/cvmfs/{FIRST}"
    script = f"cat {top}/secret; touch {top}/new; ls -ln {top}/hello"
    done = site.run("exec", str(busybox_image()), "sh", "-c", script)
    said = done.stderr.splitlines()
    assert "Permission denied" in said[0]
    assert "Read-only file system" in said[1]
    uid = done.stdout.split()[2]
    whose = site.run("exec", str(busybox_image()), "id", "-u").stdout.strip()
    assert uid == whose


def test_root_of_a_container_reads_all(site: ContainerSite) -> None:
    root = ("--silent", "exec", "--fakeroot", "--ignore-fakeroot-command")
    done = site.run(*root, str(busybox_image()), *cat(name="secret"))
    assert (done.stdout, done.stderr) == ("secret\n", "")


def test_the_payload_finds_what_it_finds_without_us(site: ContainerSite) -> None:
    script = "ls -l /proc/self/fd | sed 's/.* 0[:0-9]* //' | wc -l; cat; umask; env"
    words = ("exec", str(debian_image()), "sh", "-c", script)
    variables = {"A": "a  b", "BASH_FUNC_f%%": "() { :; }"}
    ours = site.run(*words, stdin="typed\n", **variables).stdout.splitlines()
    plain = site.install.start(
        *("apptainer", *words),
        host=site.machine.host,
        stdin=subprocess.PIPE,
        SINGCVMFS_REPOSITORIES=FIRST,
        **variables,
    )
    theirs = plain.communicate("typed\n", timeout=COMMAND_PATIENCE_S)[0].splitlines()
    assert sorted(ours) == sorted(theirs)


def test_paths_with_anything_in_them(site: ContainerSite) -> None:
    top = site.new_directory("a  b,c'd\"e")
    with contextlib.ExitStack() as stack:
        for name in ("dist", "scripts", "src", ".venv", "singcvmfs"):
            (top / name).symlink_to(site.install.directory / name)
            stack.callback((top / name).unlink)
        (top / "singcvmfs").unlink()
        (top / "singcvmfs").write_bytes(
            (site.install.directory / "singcvmfs").read_bytes()
        )
        (top / "singcvmfs").chmod(0o755)
        done = site.install.run(
            str(top / "singcvmfs"),
            *("exec", str(busybox_image()), *cat()),
            host=site.machine.host,
            SINGCVMFS_REPOSITORIES=FIRST,
        )
    assert (done.stdout, done.stderr) == (f"{FIRST}\n", "")


def test_a_repository_that_is_not_there_is_told_first(site: ContainerSite) -> None:
    done = site.run(
        *("exec", str(busybox_image()), "echo", "ran"),
        SINGCVMFS_REPOSITORIES=f"{FIRST},missing.example.org",
    )
    assert (done.stdout, done.returncode) == ("", 16)
    assert done.stderr.startswith("singcvmfs: missing.example.org: ")
    assert done.stderr.count("\n") == 1
    site.wait_until_gone()


def test_a_revision_that_never_was(site: ContainerSite) -> None:
    done = site.run(
        *("exec", str(busybox_image()), "true"),
        SINGCVMFS_REPOSITORIES=f"{FIRST}@no-such-tag",
    )
    assert done.returncode == 22
