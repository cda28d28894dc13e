"""The cache in an image of an ext file system, ``cvmfsexec -m IMAGE``."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import (
    client_dist,
    give_to_ordinary_user,
    plain_environment,
    run_exec,
    started_exec,
)
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import (
    PATIENCE_S,
    ROOT,
    Caller,
    Place,
    places,
    wait_until,
    wrap,
)

TOP = f"/cvmfs/{FQRN}"
SIZE_BYTES = 32 << 20
CACHE = f"/e2fs/cvmfscache/{FQRN}"
NOISE = os.urandom(3 << 20)

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("published")
    noise = {f"n{n}": bytes([n]) + NOISE[n:] for n in range(12)}
    one = publish_tree(home, {"hello": b"hello\n", "noise": noise})
    with (
        serve(one.output) as base_url,
        client_dist(base_url, one.master_key_pem) as made,
    ):
        yield made


@pytest.fixture
def image(dist: Path) -> Iterator[Path]:
    if not shutil.which("fuse2fs") or not _find("mkfs.ext4"):
        pytest.skip("no fuse2fs or no mkfs.ext4 here")
    path = dist.parent / "scratch image é"
    _make(path, "ext4")
    yield path
    path.unlink()


def _find(program: str) -> str:
    return shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") or ""


def _make(path: Path, kind: str, size_bytes: int = SIZE_BYTES) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size_bytes)
    line = (_find("mkfs.ext4"), "-q", "-F", "-t", kind, str(path))
    subprocess.run(line, check=True, capture_output=True)
    give_to_ordinary_user(path.parent)


def is_clean(image: Path) -> bool:
    """Whether the file system was unmounted and is sound."""
    line = (_find("e2fsck"), "-fn", str(image))
    checked = subprocess.run(line, capture_output=True, text=True, check=False)
    return checked.returncode == 0 and "recover" not in checked.stdout


def stored(image: Path) -> str:
    """List the cache in the image, without mounting it."""
    line = (_find("debugfs"), "-R", f"ls -p /cvmfscache/{FQRN}", str(image))
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
@places
def test_cache_is_in_the_image(
    dist: Path, image: Path, kind: str, place: Place
) -> None:
    _make(image, kind)
    line = ("-m", str(image), FQRN, "--", "cat", f"{TOP}/hello")
    done = run_exec(dist, *line, place=place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    assert is_clean(image)
    assert "/txn/" in stored(image)
    assert not (dist / "var/lib/cvmfs" / FQRN).exists()


def test_image_is_there_for_the_command(dist: Path, image: Path) -> None:
    script = "echo mine > /e2fs/file && grep -c ' /e2fs fuse' /proc/self/mounts"
    done = run_exec(dist, f"-m{image}", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    done = run_exec(dist, "-m", str(image), "--", "cat", "/e2fs/file")
    assert done.stdout == "mine\n"


def test_relative_path_is_the_callers(image: Path) -> None:
    line = wrap(
        (str(ROOT / "cvmfsexec"), "-m", image.name, "--", "ls", "/e2fs"),
        Caller.ORDINARY,
    )
    done = subprocess.run(
        line,
        cwd=image.parent,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout) == (0, "lost+found\n"), done.stderr


def test_configured_cache_goes_before(dist: Path, image: Path) -> None:
    settings = dist / "etc/cvmfs/default.local"
    before = settings.read_text()
    settings.write_text(f"{before}CVMFS_CACHE_BASE={dist.parent}/elsewhere\n")
    try:
        script = f"cat {TOP}/hello; ls /e2fs"
        done = run_exec(dist, "-m", str(image), FQRN, "--", "sh", "-c", script)
    finally:
        settings.write_text(before)
    assert done.stdout == "hello\nlost+found\n"
    shutil.rmtree(dist.parent / "elsewhere")


@pytest.mark.parametrize("who", ["payload", "supervisor"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@places
def test_image_is_clean_or_repaired_after_a_signal(
    dist: Path, image: Path, who: str, number: int, place: Place
) -> None:
    script = f"cat {TOP}/noise/n1 > /e2fs/copy; exec 3>>/e2fs/copy; echo up; sleep 999"
    line = ("-m", str(image), FQRN, "--", "sh", "-c", script)
    with started_exec(dist, *line, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        victim = {"payload": "sh", "supervisor": "supervisor"}[who]
        os.kill(session.pid_of(victim), number)
        session.finish()
        wait_until(session.is_gone, "no process is left")
    if who == "payload" or number == signal.SIGTERM:
        assert is_clean(image)
    done = run_exec(dist, "-m", str(image), FQRN, "--", "cat", f"{TOP}/hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    if who == "supervisor" and number == signal.SIGKILL:
        assert "was not unmounted" in done.stderr or is_clean(image)
    else:
        assert done.stderr == ""
    assert is_clean(image)


def test_image_is_for_one_run_at_a_time(dist: Path, image: Path) -> None:
    line = ("-m", str(image), "--", "sh", "-c", "echo up; exec sleep 999")
    with started_exec(dist, *line) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        done = run_exec(dist, "-m", str(image), "--", "echo", "ran")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"is in use by process {session.process.pid}" in done.stderr
    wait_until(
        lambda: run_exec(dist, "-m", str(image), "--", "true").returncode == 0,
        "it is free again",
    )


def test_full_image_does_not_keep_from_reading(dist: Path, image: Path) -> None:
    _make(image, "ext4", 8 << 20)
    script = f"cat {TOP}/noise/* | wc -c; cat {TOP}/hello"
    done = run_exec(dist, "-m", str(image), FQRN, "--", "sh", "-c", script)
    size = sum(1 + len(NOISE) - n for n in range(12))
    assert (done.returncode, done.stdout) == (0, f"{size}\nhello\n"), done.stderr
    assert is_clean(image)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("missing", "No such file or directory"),
        ("directory", "Is a directory"),
        ("read-only", "Permission denied"),
        ("text", "is not an ext2, ext3 or ext4 file system"),
        ("empty", "is not an ext2, ext3 or ext4 file system"),
    ],
)
def test_image_that_cannot_be_used_is_an_error(
    dist: Path, image: Path, what: str, sentence: str
) -> None:
    path = dist.parent / f"image-{what}"
    if what == "directory":
        path.mkdir()
    elif what == "read-only":
        shutil.copy(image, path)
        path.chmod(0o444)
    elif what != "missing":
        path.write_text("text\n" * 999 if what == "text" else "")
    if path.exists():
        os.chown(path, image.stat().st_uid, -1)
    done = run_exec(dist, "-m", str(path), FQRN, "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def test_failing_mount_ends_the_run_with_its_reason(dist: Path, image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(1024 + 96)  # features that nobody knows
        file.write(b"\xff\xff\xff\x7f")
    done = run_exec(dist, "-m", str(image), FQRN, "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot be mounted at /e2fs: " in done.stderr
    assert done.stderr.count("\n") == 1
