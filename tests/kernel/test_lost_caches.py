"""Caches that sessions cannot store in, or that are lost under them.

The payload reads what was published; the user is told once why nothing is kept.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import (
    client_dist,
    give_to_ordinary_user,
    plain_environment,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.refusing_disk import RefusingDisk
from tests.support.sessions import PATIENCE_S, ROOT, Caller, wait_until, wrap

pytestmark = pytest.mark.kernel

FILES = {f"f{number:02}": b"%d\n" % number * 9999 for number in range(60)}
LARGE = os.urandom(6_000_000)
TREE: Tree = {"sub": {".cvmfscatalog": b"", **FILES}, "large": LARGE}
READ_ALL = f"cd /cvmfs/{FQRN} && cat sub/f* large | md5sum"
NOT_KEPT = "what does not fit is read without being kept"
CACHE_STATUS = 9


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


@pytest.fixture(scope="module")
def right_sum() -> str:
    contents = b"".join([*FILES.values(), LARGE])
    done = subprocess.run(["md5sum"], input=contents, capture_output=True, check=True)
    return done.stdout.decode()


class Node(NamedTuple):
    """A client.

    Attributes:
        dist: Of the client.
        cache: Its cache of the repository, which is not there yet.
    """

    dist: Path
    cache: Path


@pytest.fixture
def node(origin: Nginx, repository: PublishedRepository) -> Iterator[Node]:
    with client_dist(origin.url, repository.master_key_pem) as dist:
        cache = dist.parent / "cache" / FQRN
        cache.parent.mkdir()
        with (dist / "etc/cvmfs/default.local").open("a") as settings:
            settings.write(f"CVMFS_CACHE_DIR={cache}\n")
        give_to_ordinary_user(cache.parent)
        yield Node(dist, cache)


@contextmanager
def mounted(cache: Path, *options: str) -> Iterator[None]:
    """Mount something at a cache directory; skip if that is not allowed."""
    cache.mkdir(exist_ok=True)
    give_to_ordinary_user(cache)
    done = subprocess.run(
        ["mount", *options, cache], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", cache], check=True)


def warnings(stderr: str) -> list[str]:
    """Return what was said, but for what concerns the revision's record."""
    return [line for line in stderr.splitlines() if "cannot remember" not in line]


@pytest.mark.parametrize(
    "options",
    ["size=1M,mode=777", "nr_inodes=20,mode=777", "nr_inodes=2,mode=777"],
    ids=["blocks", "inodes", "no-inodes"],
)
def test_a_full_disk_is_told_once(node: Node, right_sum: str, options: str) -> None:
    user = os.stat(node.cache.parent)
    owner = f",uid={user.st_uid},mode=700"
    with mounted(node.cache, "-t", "tmpfs", "-o", options + owner, "none"):
        done = run_exec(node.dist, FQRN, "--", "sh", "-c", READ_ALL)
        assert (done.returncode, done.stdout) == (0, right_sum), done.stderr
        (warning,) = warnings(done.stderr)
        assert f"{node.cache}: No space left on device; {NOT_KEPT}" in warning
        assert run_cvmfs(node.dist, "fsck", str(node.cache)).returncode in (0, 8)
        told = run_cvmfs(node.dist, "prefetch", FQRN, "/")
        assert told.returncode == CACHE_STATUS
        assert told.stderr.count(b"\n") <= 23, "failures are told up to a point"


def test_a_read_only_cache_serves_what_it_has(node: Node, right_sum: str) -> None:
    first = run_exec(node.dist, FQRN, "--", "sh", "-c", f"{READ_ALL}; rm -f sub/f00")
    assert first.stdout == right_sum
    with mounted(node.cache, "--bind", str(node.cache)):
        subprocess.run(
            ["mount", "-o", "remount,bind,ro", node.cache], check=True, timeout=60
        )
        done = run_exec(node.dist, FQRN, "--", "sh", "-c", READ_ALL)
        assert (done.stdout, done.stderr) == (right_sum, "")
        for words, text in (
            (("evict", FQRN, "/sub"), "cannot remove from"),
            (("pin", FQRN, "/sub"), "cannot pin in"),
            (("cleanup", "--dir", str(node.cache)), "it cannot be written"),
        ):
            told = run_cvmfs(node.dist, "cache", *words)
            assert (told.returncode, told.stdout) == (CACHE_STATUS, b""), told
            assert text in told.stderr.decode()
        assert run_cvmfs(node.dist, "fsck", str(node.cache)).returncode == 0


def test_an_empty_read_only_cache_is_told_once(node: Node, right_sum: str) -> None:
    with mounted(node.cache, "--bind", str(node.cache)):
        subprocess.run(
            ["mount", "-o", "remount,bind,ro", node.cache], check=True, timeout=60
        )
        done = run_exec(node.dist, FQRN, "--", "sh", "-c", READ_ALL)
    assert (done.returncode, done.stdout) == (0, right_sum)
    (warning,) = warnings(done.stderr)
    assert f"{node.cache}: Read-only file system; {NOT_KEPT}" in warning


def test_a_disk_quota_is_told_once(node: Node, right_sum: str) -> None:
    disk = RefusingDisk(node.cache, quota_bytes=1_000_000)
    line = (FQRN, "--", "sh", "-c", READ_ALL)
    done = run_exec(node.dist, *line, environment=disk.environment)
    assert (done.returncode, done.stdout) == (0, right_sum), done.stderr
    (warning,) = warnings(done.stderr)
    assert f"{node.cache}: Disk quota exceeded; {NOT_KEPT}" in warning
    assert run_cvmfs(node.dist, "fsck", str(node.cache)).returncode == 0


def run_with_limit(
    node: Node, limit: str, script: str
) -> subprocess.CompletedProcess[str]:
    """Run a session with a limit of file sizes."""
    command = (str(ROOT / "cvmfsexec"), "--dist", str(node.dist), FQRN, "--")
    line = ("prlimit", f"--fsize={limit}", *command, "sh", "-c", script)
    return subprocess.run(
        wrap(line, Caller.ORDINARY),
        cwd="/",
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def test_a_limit_of_file_sizes_is_for_the_payload(node: Node, right_sum: str) -> None:
    done = run_with_limit(node, "400000:unlimited", f"{READ_ALL}; ulimit -f")
    assert done.stdout == f"{right_sum}{400_000 // 512}\n", done.stderr
    assert done.stderr.count("\n") == 1
    assert f"{node.cache}: File too large; {NOT_KEPT}" in done.stderr


def test_a_limit_that_nobody_may_lift_stops_no_small_object(node: Node) -> None:
    script = f"cd /cvmfs/{FQRN} && cat large >/dev/null; cat sub/* | wc -c"
    done = run_with_limit(node, "400000:400000", script)
    assert int(done.stdout) == sum(len(content) for content in FILES.values())
    assert f"{node.cache}: File too large; {NOT_KEPT}" in done.stderr
    assert "raise the limit of file sizes (ulimit -f)" in done.stderr
    assert done.stderr.count(NOT_KEPT) == 1
    kept = run_cvmfs(node.dist, "prefetch", FQRN, "/sub")
    assert b", 0 fetched" in kept.stdout


def a_file(cache: Path) -> None:
    cache.touch()
    give_to_ordinary_user(cache.parent)


def a_link_to_nothing(cache: Path) -> None:
    cache.symlink_to("nowhere")


def somebody_elses(cache: Path) -> None:
    cache.mkdir(0o777)
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory of somebody else")


def not_to_be_searched(cache: Path) -> None:
    cache.mkdir()
    give_to_ordinary_user(cache.parent)
    cache.chmod(0o600)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (a_file, "cannot use the cache directory {cache}: Not a directory; set"),
        (a_link_to_nothing, "{cache}: No such file or directory; set"),
        (somebody_elses, "the cache directory {cache} belongs to another user"),
        (not_to_be_searched, "{cache}"),
    ],
)
def test_what_cannot_be_a_cache_is_refused(
    node: Node, make: Callable[[Path], object], text: str
) -> None:
    make(node.cache)
    wanted = text.format(cache=node.cache)
    done = run_exec(node.dist, FQRN, "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (CACHE_STATUS, 1), done.stderr
    assert wanted in done.stderr
    for words in (("prefetch", FQRN, "/"), ("cache", "pin", FQRN, "/sub")):
        told = run_cvmfs(node.dist, *words)
        assert (told.returncode, told.stdout) == (CACHE_STATUS, b""), told
        assert wanted in told.stderr.decode()
        assert told.stderr.count(b"\n") == 1
    for command in ("cache usage", "fsck"):
        told = run_cvmfs(node.dist, *command.split(), "--repository", FQRN)
        assert b"Traceback" not in told.stderr
        assert told.stderr.count(b"\n") <= 1


def test_a_link_to_a_cache_is_one(node: Node, right_sum: str) -> None:
    target = node.cache.parent / "elsewhere"
    target.mkdir()
    node.cache.symlink_to(target)
    give_to_ordinary_user(node.cache.parent)
    done = run_exec(node.dist, FQRN, "--", "sh", "-c", READ_ALL)
    assert (done.stdout, done.stderr) == (right_sum, "")
    assert len(list(target.glob("??/*"))) > len(FILES)
    assert run_cvmfs(node.dist, "fsck", str(node.cache)).returncode == 0


def remove(cache: Path) -> None:
    """Remove a directory in which others are at work."""
    away = cache.with_name("away")

    def is_gone() -> bool:
        shutil.rmtree(away, ignore_errors=True)
        return not away.exists()

    cache.rename(away)
    wait_until(is_gone, "the cache is removed")


def test_a_cache_that_is_removed_under_sessions_begins_anew(
    node: Node, right_sum: str
) -> None:
    # Each part is of files that the kernel has not seen yet.
    parts = [f"cat /cvmfs/{FQRN}/sub/f{digit}* | wc -c" for digit in (0, 1, 2)]
    line = (FQRN, "--", "sh", "-c", "; read line; ".join([*parts, f"({READ_ALL})"]))
    with (
        started_exec(node.dist, *line, takes_input=True) as first,
        started_exec(node.dist, *line, takes_input=True) as second,
    ):
        sessions = [first.process, second.process]
        for _ in parts:
            for session in sessions:
                assert session.stdin is not None
                assert session.stdout is not None
                assert session.stdout.readline()
            remove(node.cache)
            for session in sessions:
                assert session.stdin is not None
                session.stdin.write("go\n")
                session.stdin.flush()
        ended = [one.communicate(timeout=PATIENCE_S) for one in sessions]
        assert [out for out, _ in ended] == [right_sum] * 2, ended
        said = "".join(err for _, err in ended)
        assert f"{node.cache} was removed, and begins anew" in said
        assert NOT_KEPT not in said
    assert len(list(node.cache.glob("??/*"))) > len(FILES) // 3
    assert run_cvmfs(node.dist, "fsck", str(node.cache)).returncode == 0
