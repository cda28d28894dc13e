"""The file that carries everything, unpacked and run where there is nothing."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec import __version__
from cvmfsexec.namespaces.mount_table import read_mount_table
from tests.support.commands import COMMAND_PATIENCE_S, plain_environment
from tests.support.debian import minimal_system
from tests.support.original_client import client_packages
from tests.support.packages import RPM_PAYLOADS, build_rpm
from tests.support.published import FQRN
from tests.support.sessions import (
    ORDINARY_UID,
    ROOT,
    Caller,
    skip_unless_possible,
    wait_until,
)
from tests.support.single_file import (
    SingleFile,
    copied,
    in_bare_root,
    line,
    made_single_file,
    run,
)

COPY_COUNT = 100

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleFile]:
    skip_unless_possible(Caller.ORDINARY)
    with made_single_file(tmp_path_factory.mktemp("single")) as made:
        yield made


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory that everybody can reach."""
    made = Path(tempfile.mkdtemp(prefix="cvmfsexec-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def leftovers(place: Path) -> list[str]:
    wanted = (".unpacking.", ".claim-")
    return [one.name for one in place.iterdir() if one.name.startswith(wanted)]


def test_a_repository_is_read_where_there_is_only_busybox(single: SingleFile) -> None:
    script = f"./cvmfsexec {FQRN} -- cat /cvmfs/{FQRN}/hello && ls -d .cvmfsexec/dist"
    done = in_bare_root(single.file, script)
    assert (done.stdout, done.stderr) == ("hello\n.cvmfsexec/dist\n", "")


def test_more_is_mounted_from_inside_a_bare_root(single: SingleFile) -> None:
    inside = f"$CVMFSMOUNT {FQRN} && cat /cvmfs/{FQRN}/hello && $CVMFSUMOUNT {FQRN}"
    done = in_bare_root(single.file, f"./cvmfsexec -- sh -c '{inside}'")
    assert (done.stdout, done.stderr) == (f"hello\nUnmounting {FQRN}\n", "")


def test_a_minimal_debian_without_python_will_do(single: SingleFile) -> None:
    option = f"--system={minimal_system()}"
    script = f"! command -v python3 && ./cvmfsexec {FQRN} -- cat /cvmfs/{FQRN}/hello"
    done = in_bare_root(single.file, f"{script} && cat /etc/debian_version", option)
    hello, version = done.stdout.splitlines()
    assert (hello, done.stderr) == ("hello", "")
    assert version.startswith("12.")


def test_beside_a_read_only_place_the_temporary_directory_is_used(
    single: SingleFile,
) -> None:
    script = f"./cvmfsexec {FQRN} -- cat /cvmfs/{FQRN}/hello; ls -A /tmp /job"
    done = in_bare_root(single.file, script, "--read-only")
    assert done.stdout.split() == [
        "hello", "/job:", "cvmfsexec", "/tmp:", f"cvmfsexec-{ORDINARY_UID}"
    ], done.stderr  # fmt: skip


def test_where_no_program_may_run_the_next_place_is_used(single: SingleFile) -> None:
    script = "sh cvmfsexec -- echo ran; ls -A /tmp /job"
    done = in_bare_root(single.file, script, "--no-exec")
    assert done.stdout.split() == [
        "ran", "/job:", "cvmfsexec", "/tmp:", f"cvmfsexec-{ORDINARY_UID}"
    ], done.stderr  # fmt: skip


def test_a_path_with_blanks_is_a_path(single: SingleFile, top: Path) -> None:
    file = copied(single.file, top / "a  b'c\"d$(e)")
    done = run(file, FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello")
    assert (done.stdout, done.stderr) == ("hello\n", "")


def test_version_is_a_number_alone_and_unpacks(single: SingleFile, top: Path) -> None:
    file = copied(single.file, top / "one")
    done = run(file, "-v")
    assert (done.stdout, done.stderr) == (f"{__version__}\n", "")
    place = file.parent / ".cvmfsexec"
    assert (place / "dist/etc/cvmfs/default.local").is_file()
    assert all(os.access(place / n, os.X_OK) for n in ("mountrepo", "umountrepo"))


def test_many_at_once_use_what_one_unpacks(single: SingleFile, top: Path) -> None:
    file = copied(single.file, top / "one")
    processes = [
        subprocess.Popen(
            line(file, "-N", "--", "echo", "ran"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env=plain_environment(),
        )
        for _ in range(COPY_COUNT)
    ]
    said = [process.communicate(timeout=COMMAND_PATIENCE_S)[0] for process in processes]
    assert said == ["ran\n"] * COPY_COUNT
    place = file.parent / ".cvmfsexec"
    assert len(list(place.glob("runtime-*"))) == 1
    assert leftovers(place) == []


def test_an_update_disturbs_no_running_session(single: SingleFile, top: Path) -> None:
    file = copied(single.file, top / "one")
    script = f'cat /cvmfs/{FQRN}/hello && read x && cat /cvmfs/{FQRN}/late && "$@"'
    more = ("sh", "-c", '$CVMFSUMOUNT "$0" && $CVMFSMOUNT "$0"', FQRN)
    session = subprocess.Popen(
        line(file, FQRN, "--", "sh", "-c", script, "sh", *more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=plain_environment(),
    )
    try:
        assert session.stdout is not None
        assert session.stdout.readline() == "hello\n"
        fresh = copied(single.newer, top / "two")
        fresh.rename(file)
        updated = run(file, FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello")
        assert (updated.stdout, updated.stderr) == ("hello\n", "")
        rest, complaints = session.communicate("\n", COMMAND_PATIENCE_S)
    finally:
        session.kill()
        session.wait()
    assert (rest, complaints) == (f"late\nUnmounting {FQRN}\n", "")
    place = file.parent / ".cvmfsexec"
    assert len(list(place.glob("runtime-*"))) == 2
    assert (place / "dist/etc/cvmfs/config.d/new.example.org.conf").exists()


def test_mountrepo_of_what_was_unpacked_mounts_for_the_host(
    single: SingleFile, top: Path
) -> None:
    file = copied(single.file, top / "one")
    assert run(file, FQRN, "--", "true").returncode == 0
    place = file.parent / ".cvmfsexec"
    mounted = run(place / "mountrepo", FQRN)
    if mounted.returncode != 0:
        pytest.skip(f"no mounts by fusermount here: {mounted.stderr}")
    try:
        seen = run(Path("/bin/cat"), str(place / f"dist/cvmfs/{FQRN}/hello"))
        assert seen.stdout == "hello\n"
    finally:
        ended = run(place / "umountrepo", "-a")
    assert ended.returncode == 0
    assert not [one for one in read_mount_table() if one.is_below(str(place))]


def test_the_environment_arrives_as_it_was(single: SingleFile, top: Path) -> None:
    file = copied(single.file, top / "one")
    given = {
        "PATH": "/usr/bin:/bin",
        "BASH_FUNC_module%%": "() { :\n}",
        "IFS": "/",
        "LD_AUDIT": "",
        "LD_PRELOAD": "",
        "PWD": "/nowhere",
        "TMPDIR": "/absent",
    }
    for _ in range(2):
        done = subprocess.run(
            line(file, "-N", "--", "env", "-0"),
            env=given,
            capture_output=True,
            text=True,
            check=True,
            timeout=COMMAND_PATIENCE_S,
        )
        entries = done.stdout.rstrip("\0").split("\0")
        assert dict(entry.split("=", 1) for entry in entries) == given


def test_who_is_killed_while_unpacking_holds_nobody_up(
    single: SingleFile, top: Path
) -> None:
    file = copied(single.file, top / "one")
    place = file.parent / ".cvmfsexec"
    process = subprocess.Popen(
        line(file, "-v"), start_new_session=True, env=plain_environment()
    )
    try:
        wait_until(lambda: any(place.glob(".unpacking.*")), "it unpacks")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run(file, "-v").stdout == f"{__version__}\n"
    assert len(list(place.glob("runtime-*"))) == 1
    assert not list(place.glob(".claim-*"))


def test_an_unpacked_file_can_be_packed_again(single: SingleFile, top: Path) -> None:
    file = copied(single.file, top / "one")
    run(file, "-v")
    again = file.parent / "again"
    done = run(file.parent / ".cvmfsexec/makedist", "-o", str(again))
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == file.read_bytes()


def test_the_file_reads_packages_of_every_compression(
    single: SingleFile, top: Path
) -> None:
    file = copied(single.file, top / "one")
    run(file, "-v")
    makedist = file.parent / ".cvmfsexec/makedist"
    content = {"/etc/cvmfs/default.d/50.conf": b"A=1\n"}
    for payload in RPM_PAYLOADS:
        package = file.parent / f"{payload}.rpm"
        package.write_bytes(build_rpm("cvmfs-config-x", content, payload=payload))
        dist = str(file.parent / payload)
        done = run(makedist, "none", "--dist", dist, "--from", str(package))
        assert done.returncode == 0, done.stderr
        assert Path(dist, "etc/cvmfs/default.d/50.conf").read_bytes() == b"A=1\n"


def test_the_file_brings_the_original_client(top: Path) -> None:
    packages = {**client_packages()}
    (top / "packages").mkdir()
    for name, content in packages.items():
        (top / "packages" / name).write_bytes(content)
    words = ("none", "--client", "original", "-m", "rhel9-x86_64", "--from")
    make(top, *words, str(top / "packages"))
    etc = top / "dist/etc/cvmfs"
    settings = "CVMFS_SERVER_URL=http://127.0.0.1:9/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"
    (etc / "default.local").write_text(settings)
    (etc / "keys/example.org.pub").write_text("a key")
    make(top, "-o", str(top / "packed"))
    file = copied(top / "packed", top / "one place")
    done = run(file, FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello")
    assert (done.stdout, done.stderr) == (f"{FQRN} by the stand-in\n", "")
    assert make(top, "-o", str(top / "arm"), "-m", "rhel9-aarch64", is_good=False)


def make(top: Path, *words: str, is_good: bool = True) -> str:
    """Run ``makedist`` with a dist in a directory; return what it says."""
    done = subprocess.run(
        [ROOT / "makedist", "--dist", top / "dist", *words],
        capture_output=True,
        text=True,
        check=False,
        env=plain_environment(),
        timeout=COMMAND_PATIENCE_S,
    )
    assert (done.returncode == 0) == is_good, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", "rhel9-ppc64le"), "cannot pack for rhel9-ppc64le here"),
        (("-m", "vax"), "vax not a supported machine type"),
        ((), "there is no dist to pack"),
    ],
)
def test_what_cannot_be_packed_is_said(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [ROOT / "makedist", "--dist", tmp_path, *words, "-o", tmp_path / "file"],
        capture_output=True,
        text=True,
        check=False,
        env=plain_environment(),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def run_inside_of(file: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in the interpreter that a file unpacks; it gets its packages."""
    run(file, "-v")
    (runtime,) = (file.parent / ".cvmfsexec").glob("runtime-*")
    words = ("-I", "-S", "-c", script, str(runtime / "packages"))
    return run(runtime / "bin/python3", *words)


def test_every_module_can_be_imported(single: SingleFile, top: Path) -> None:
    script = (
        "import importlib, os, sys; top = sys.argv[1]; sys.path.insert(0, top)\n"
        "for directory, _, files in os.walk(top + '/cvmfsexec'):\n"
        "    for file in files:\n"
        "        name, end = os.path.splitext(os.path.join(directory, file))\n"
        "        if end == '.pyc':\n"
        "            name = os.path.relpath(name, top).replace('/', '.')\n"
        "            importlib.import_module(name.removesuffix('.__init__'))\n"
        "import pycurl, tqdm, cryptography.x509\n"
        "from cryptography.hazmat.primitives.asymmetric import rsa\n"
    )
    done = run_inside_of(copied(single.file, top / "one"), script)
    assert (done.returncode, done.stderr) == (0, "")


def test_proxy_files_run_in_an_interpreter_of_the_file(
    single: SingleFile, top: Path
) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cvmfsexec.network.pac_evaluation import evaluate\n"
        "pac = b'function FindProxyForURL(u, h) { return \"PROXY p:\" + h.length; }'\n"
        "print(evaluate(pac, ['http://abc/'], '127.0.0.1', environment={}))"
    )
    done = run_inside_of(copied(single.file, top / "one"), script)
    assert done.stdout == "['PROXY p:3']\n", done.stderr
