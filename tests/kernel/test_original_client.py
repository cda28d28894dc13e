"""The original client in the place of ours: modes 1 to 3, its failures, its end.

What serves is a stand-in with its command line and real FUSE; see
``tests/support/original_client.py``.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.namespaces.mount_table import read_mount_table
from tests.support.commands import (
    COMMAND_PATIENCE_S,
    give_to_ordinary_user,
    plain_environment,
    run_exec,
    started_exec,
)
from tests.support.http_server import HttpServer
from tests.support.original_client import client_packages
from tests.support.packages import build_rpm
from tests.support.sessions import (
    ROOT,
    Caller,
    Place,
    skip_unless_possible,
    wait_until,
    wrap,
)

NAME = "one.example.org"
OTHER = "two.example.org"
HELLO = f"{NAME} by the stand-in\n"
CAT = ("--", "cat", f"/cvmfs/{NAME}/hello")

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A directory with a dist that ``makedist --client original`` made of a mirror."""
    skip_unless_possible(Caller.ORDINARY)
    files = {
        "/etc/cvmfs/domain.d/example.org.conf": (
            b"CVMFS_SERVER_URL=http://127.0.0.1:9/@fqrn@\n"
            b"CVMFS_KEYS_DIR=/etc/cvmfs/keys/example.org\nCVMFS_HTTP_PROXY=DIRECT\n"
        ),
        "/etc/cvmfs/keys/example.org/example.org.pub": b"BEGIN PUBLIC KEY-----\n",
    }
    packages = {
        "cvmfs-config-default-2.1-1.noarch.rpm": build_rpm(
            "cvmfs-config-default", files
        ),
        **client_packages(),
    }
    page = "".join(f'<a href="{name}">{name}</a>\n' for name in packages).encode()
    served = {f"/mirror/{name}": content for name, content in packages.items()}
    top = Path(tempfile.mkdtemp(prefix="original client-"))
    give_to_ordinary_user(top)
    with HttpServer({"/mirror/": page, **served}) as server:
        words = ("default", "--client", "original", "-m", "rhel9-x86_64")
        done = command(top, "makedist", *words, "--from", f"{server.url}/mirror/")
    assert done.returncode == 0, done.stderr
    yield top
    shutil.rmtree(top)


@pytest.fixture
def dist(made: Path) -> Iterator[Path]:
    """A copy of it, with nothing of another test in its cache."""
    top = Path(tempfile.mkdtemp(prefix="original client-"))
    shutil.copytree(made / "dist", top / "dist", symlinks=True)
    (top / "tmp").mkdir()
    give_to_ordinary_user(top)
    yield top / "dist"
    shutil.rmtree(top)


def command(
    top: Path, name: str, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with the dist of a directory, as the ordinary user."""
    line = (str(ROOT / name), "--dist", str(top / "dist"), *words)
    return subprocess.run(
        wrap(line, Caller.ORDINARY),
        env={**plain_environment(), "HOME": str(top), **variables},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=COMMAND_PATIENCE_S,
    )


def set_locally(dist: Path, line: str) -> None:
    with (dist / "etc/cvmfs/default.local").open("a") as stream:
        stream.write(f"{line}\n")


def mounts_below(top: Path) -> list[str]:
    return [one.mountpoint for one in read_mount_table() if one.is_below(str(top))]


def without_device(dist: Path) -> None:
    """Make it a client that mounts itself, as with libfuse 2."""
    lib = dist / "usr/lib64"
    (lib / "libcvmfs_fuse3.so").unlink()
    (module,) = lib.glob("libcvmfs_fuse3.so.*")
    module.rename(lib / "libcvmfs_fuse.so")


@pytest.mark.parametrize("mode", ["2", "3"])
@pytest.mark.parametrize("has_device", [True, False], ids=["device", "mountpoint"])
def test_a_session_is_served(dist: Path, mode: str, has_device: bool) -> None:  # noqa: FBT001
    if not has_device:
        without_device(dist)
    done = run_exec(dist, "--mode", mode, NAME, *CAT)
    assert (done.stdout, done.stderr, done.returncode) == (HELLO, "", 0)
    line = run_exec(dist, "--mode", mode, NAME, "--", "cat", f"/cvmfs/{NAME}/arguments")
    words = line.stdout.splitlines()
    assert words[0] == f"{dist}/usr/bin/cvmfs2"
    assert words[4] == NAME
    assert words[5].startswith("/dev/fd/") == has_device
    assert not mounts_below(dist.parent)


def test_a_session_without_a_pid_namespace_is_served(dist: Path) -> None:
    words = ("--", "sh", "-c", f"cat /cvmfs/{NAME}/hello; exec sleep 60")
    with started_exec(dist, NAME, *words, place=Place.MASKED_PROC) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == HELLO
        session.process.send_signal(signal.SIGTERM)
        assert session.finish() == 128 + signal.SIGTERM
        wait_until(session.is_gone, "the client has ended with it")


def test_on_demand_the_first_use_mounts(dist: Path) -> None:
    done = run_exec(dist, "--on-demand", *CAT)
    assert (done.stdout, done.stderr, done.returncode) == (HELLO, "", 0)


@pytest.mark.parametrize("is_directory", [True, False], ids=["directory", "files"])
def test_debian_packages_will_do(dist: Path, *, is_directory: bool) -> None:
    top = dist.parent
    (top / "packages").mkdir()
    for name, content in client_packages(kind="deb").items():
        (top / "packages" / name).write_bytes(content)
    places = (
        [top / "packages"] if is_directory else sorted((top / "packages").iterdir())
    )
    options = [word for place in places for word in ("--from", str(place))]
    made = str(top / "made")
    words = ("none", "--client", "original", "-m", "rhel9-x86_64")
    done = command(top, "makedist", *words, *options, "--dist", made)
    assert done.returncode == 0, done.stderr
    shutil.copytree(dist / "etc/cvmfs", top / "made/etc/cvmfs", dirs_exist_ok=True)
    done = run_exec(top / "made", NAME, *CAT)
    assert (done.stdout, done.stderr, done.returncode) == (HELLO, "", 0)


def test_only_pinned_programs_are_taken(dist: Path) -> None:
    top = dist.parent
    (top / "packages").mkdir()
    packages = client_packages()
    for name, content in packages.items():
        (top / "packages" / name).write_bytes(content)
    words = (
        *("none", "--client", "original", "-m", "rhel9-x86_64"),
        *("--from", f"{top}/packages", "--pin", f"{top}/pins", "--dist", f"{top}/made"),
    )
    hashes = [hashlib.sha256(content).hexdigest() for content in packages.values()]
    (top / "pins").write_text("\n".join(hashes[1:]))
    refused = command(top, "makedist", *words)
    assert refused.returncode == 15
    assert f"SHA-256 {hashes[0]} is not pinned" in refused.stderr
    assert not (top / "made").exists()
    (top / "pins").write_text("\n".join(hashes))
    assert command(top, "makedist", *words).returncode == 0


@pytest.mark.parametrize("has_device", [True, False], ids=["device", "mountpoint"])
def test_a_mount_for_the_host_is_served(dist: Path, has_device: bool) -> None:  # noqa: FBT001
    if not has_device:
        without_device(dist)
    top = dist.parent
    mounted = command(top, "mountrepo", NAME)
    try:
        assert (mounted.stdout, mounted.returncode) == ("", 0), mounted.stderr
        again = command(top, "mountrepo", NAME)
        assert again.returncode == 0
        line = wrap(("cat", f"{dist}/cvmfs/{NAME}/hello"), Caller.ORDINARY)
        assert subprocess.check_output(line, text=True) == HELLO
    finally:
        ended = command(top, "umountrepo", "-a")
    assert ended.stdout == f"Unmounting {NAME}\n"
    wait_until(lambda: not (dist / "cvmfs" / NAME).exists(), "the place is clear")
    assert not mounts_below(top)


def test_it_sees_paths_of_this_machine(dist: Path) -> None:
    set_locally(dist, "CVMFS_USYSLOG=/var/log/cvmfs/mine.log")
    done = run_exec(dist, NAME, "--", "cat", f"/cvmfs/{NAME}/config")
    values = dict(re.findall(r"^(\w+)='?(.*?)'?$", done.stdout, re.MULTILINE))
    assert values["CVMFS_KEYS_DIR"] == f"{dist}/etc/cvmfs/keys/example.org"
    assert values["CVMFS_CACHE_BASE"] == f"{dist}/var/lib/cvmfs/original"
    assert values["CVMFS_USYSLOG"] == f"{dist.parent}/log/mine.log"
    assert values["CVMFS_SERVER_URL"] == f"http://127.0.0.1:9/{NAME}"
    assert values["CVMFS_CLIENT_PACKAGE"] == "yes"  # from the client's own package


def test_it_finds_its_libraries_and_nobody_elses(dist: Path) -> None:
    environment = {
        **plain_environment(), "LD_PRELOAD": "", "LD_LIBRARY_PATH": "/elsewhere"
    }  # fmt: skip
    words = ("--", "cat", f"/cvmfs/{NAME}/environment")
    done = run_exec(dist, NAME, *words, environment=environment)
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines())
    directories = variables["LD_LIBRARY_PATH"].split(":")
    assert directories[0] == f"{dist}/usr/lib64"
    assert directories[-1] == "/elsewhere"
    assert variables["CVMFS_LIBRARY_PATH"].split(":")[0] == f"{dist}/usr/lib64"
    assert "LD_PRELOAD" not in variables
    assert variables["BEARER_TOKEN_FILE"].startswith("/tmp/bt_u")
    assert not variables["BEARER_TOKEN_FILE"].endswith("/bt_u0")


def test_more_is_mounted_from_inside_and_unmounted(dist: Path) -> None:
    script = (
        f"$CVMFSMOUNT {OTHER} && cat /cvmfs/{OTHER}/hello && $CVMFSUMOUNT {OTHER}"
        f" && cat /cvmfs/{NAME}/hello"
    )
    done = run_exec(dist, NAME, "--", "sh", "-c", script)
    said = f"{OTHER} by the stand-in\nUnmounting {OTHER}\n{HELLO}"
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


def test_polite_signals_leave_the_software_to_the_payload(dist: Path) -> None:
    script = "trap 'cat \"$0\"; exit 5' TERM; echo up; while :; do sleep 0.05; done"
    words = ("--", "sh", "-c", script, f"/cvmfs/{NAME}/hello")
    with started_exec(dist, NAME, *words) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        (client,) = session.pids_of("cvmfs2")
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            os.kill(client, number)
        os.kill(session.process.pid, signal.SIGTERM)
        assert session.process.stdout.read() == HELLO
        assert session.finish() == 5


def test_whoever_kills_the_session_kills_the_client(dist: Path) -> None:
    words = ("--", "sh", "-c", "echo up; exec sleep 60")
    for mode in ("2", "3"):
        with started_exec(dist, "--mode", mode, NAME, *words) as session:
            assert session.process.stdout is not None
            assert session.process.stdout.readline() == "up\n"
            session.process.kill()
            wait_until(session.is_gone, "nothing is left")
    assert not mounts_below(dist.parent)


def test_a_killed_client_ends_the_session(dist: Path) -> None:
    words = ("--", "sh", "-c", "echo up; exec sleep 60")
    with started_exec(dist, NAME, *words) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        (client,) = session.pids_of("cvmfs2")
        os.kill(client, signal.SIGKILL)
        assert session.finish() == 6
        assert session.process.stderr is not None
        said = session.process.stderr.read()
    assert "the original client was killed by SIGKILL" in said


@pytest.mark.parametrize("code", [1, 3, 9, 15, 16, 23, 25])
def test_its_failure_is_told_and_its_status_is_ours(dist: Path, code: int) -> None:
    set_locally(dist, f"STAND_IN_FAILURE={code}")
    done = run_exec(dist, NAME, "--", "true")
    assert done.returncode == code
    start = f"cvmfsexec: {NAME}: the original client ended with status {code}: "
    assert done.stderr.startswith(start)
    assert f"; it said: told to fail ({code})" in done.stderr
    assert done.stderr.count("\n") == 1


def test_its_failure_is_told_in_every_mode(dist: Path) -> None:
    set_locally(dist, "STAND_IN_FAILURE=16")
    said = "the original client ended with status 16: the repository cannot be read"
    in_session = run_exec(dist, "--mode", "2", NAME, "--", "true")
    assert (in_session.returncode, said in in_session.stderr) == (16, True)
    on_host = command(dist.parent, "mountrepo", NAME)
    assert (on_host.returncode, said in on_host.stderr) == (16, True)
    wait_until(lambda: not mounts_below(dist.parent), "the mount is taken away")


def test_a_crash_at_its_start_is_told(dist: Path) -> None:
    set_locally(dist, "STAND_IN_FAILURE=-11")
    done = run_exec(dist, NAME, "--", "true")
    assert done.returncode == 6
    assert "the original client was killed by SIGSEGV" in done.stderr


def test_a_second_session_is_told_that_the_cache_is_taken(dist: Path) -> None:
    with started_exec(dist, NAME, "--", "sh", "-c", "echo up; exec sleep 60") as first:
        assert first.process.stdout is not None
        assert first.process.stdout.readline() == "up\n"
        done = run_exec(dist, NAME, "--", "true")
        assert done.returncode == 24
        assert "another client uses its cache directory" in done.stderr
        assert "CVMFS_CACHE_BASE" in done.stderr


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (
            "usr/bin/cvmfs2",
            2,
            "the original client is not there: {dist}/usr/bin/cvmfs2",
        ),
        ("usr/lib64", 2, "there is no libcvmfs_fuse3.so in {dist}/usr/lib*"),
    ],
)
def test_what_is_missing_is_named(
    dist: Path, path: str, status: int, said: str
) -> None:
    (dist / path).rename(dist / "elsewhere")
    done = run_exec(dist, NAME, "--", "true")
    assert done.returncode == status
    assert said.format(dist=dist) in done.stderr
    assert "makedist --client original" in done.stderr


def test_a_library_that_cannot_be_loaded_is_named(dist: Path) -> None:
    library = dist / "usr/lib64/libfuse3.so.3"
    library.unlink()
    library.write_bytes(b"no library")
    done = run_exec(dist, NAME, "--", "true")
    assert done.returncode == 7
    assert "a library cannot be loaded; it said: " in done.stderr
    assert "libfuse3.so.3" in done.stderr


def test_a_program_that_does_not_run_is_told(dist: Path) -> None:
    program = dist / "usr/bin/cvmfs2"
    program.write_bytes(b"neither program nor script\n")
    done = run_exec(dist, NAME, "--", "true")
    assert done.returncode == 7
    assert "Exec format error" in done.stderr


def test_a_path_that_its_options_cannot_have_is_refused(dist: Path) -> None:
    set_locally(dist, f"CVMFS_CACHE_BASE='{dist}/a,b'")
    done = run_exec(dist, NAME, "--", "true")
    assert done.returncode == 2
    assert "the original client cannot be told of" in done.stderr


def test_an_unknown_repository_is_told_as_by_our_client(dist: Path) -> None:
    done = run_exec(dist, "a.unknown.org", "--", "true")
    assert done.returncode == 2
    assert "unknown repository a.unknown.org" in done.stderr
