"""Tools for caches while sessions run on them."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import (
    give_to_ordinary_user,
    plain_environment,
    run_cvmfs,
    run_exec,
    started_exec,
)
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import PATIENCE_S, ROOT, Caller, Started, wait_until, wrap
from tests.support.terminal import Terminal

pytestmark = pytest.mark.kernel

FILES = {f"f{number}": b"%d\n" % number * 9999 for number in range(60)}
TREE: Tree = {"sub": {".cvmfscatalog": b"", **FILES}}
SUM = f"cd /cvmfs/{FQRN} && cat sub/* | md5sum"
FIXED, NOT_FIXED = 1, 4


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


@pytest.fixture
def session(dist: Path) -> Iterator[Started]:
    """Return a session that has read everything, and will once more at a word."""
    script = f"({SUM}); read line; ({SUM})"
    line = ("--name", "tools", FQRN, "--", "sh", "-c", script)
    with started_exec(dist, *line, takes_input=True) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline()
        yield session


def cache_of(dist: Path) -> Path:
    return dist / "var/lib/cvmfs" / FQRN


def spoil_files(dist: Path) -> int:
    """Flip a byte of every file in the cache; return how many there are."""
    count = 0
    for path in cache_of(dist).glob("??/*"):
        content = path.read_bytes()
        if len(content) > 9999 and not content.startswith(b"SQLite"):
            path.write_bytes(content[:-1] + b"?")
            count += 1
    return count


def test_a_cache_in_use_is_checked_and_repaired(
    dist: Path, session: Started, origin: Nginx
) -> None:
    assert run_cvmfs(dist, "fsck").returncode == 0
    count = spoil_files(dist)
    assert count == len(FILES)
    checked = run_cvmfs(dist, "fsck", "-j2", "--json")
    assert checked.returncode == NOT_FIXED, checked
    assert len(json.loads(checked.stdout)[0]["faults"]) == count
    assert run_cvmfs(dist, "fsck", "-p", "-j2").returncode == FIXED
    origin.forget_requests()
    out, err = session.process.communicate("go\n", timeout=PATIENCE_S)
    assert session.process.returncode == 0, err
    again = run_exec(dist, FQRN, "--", "sh", "-c", SUM)
    assert again.stdout == out
    assert len(origin.objects()) == count
    assert run_cvmfs(dist, "fsck").returncode == 0


def test_a_corrupt_catalog_in_use_is_told_to_be(dist: Path, session: Started) -> None:
    for path in cache_of(dist).glob("??/*"):
        content = path.read_bytes()
        if content.startswith(b"SQLite"):
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    repaired = run_cvmfs(dist, "fsck", "-p")
    assert repaired.returncode == FIXED
    assert repaired.stdout.count(b"a session has it open") == 2
    out, err = session.process.communicate("go\n", timeout=PATIENCE_S)
    assert (session.process.returncode, len(out)) == (0, len("d41d  -\n") + 28), err


def test_catalogs_in_use_survive_a_cleanup(dist: Path, session: Started) -> None:
    cleaned = run_cvmfs(dist, "cache", "cleanup")
    assert cleaned.returncode == 0, cleaned
    left = [path.read_bytes() for path in cache_of(dist).glob("??/*")]
    assert left
    assert all(content.startswith(b"SQLite") for content in left)
    usage = run_cvmfs(dist, "cache", "usage", "--json")
    (report,) = json.loads(usage.stdout)
    assert report["pinned_bytes"] == report["used_bytes"] > 0
    assert report["limit_in_force_bytes"] > 0
    session.process.communicate("go\n", timeout=PATIENCE_S)
    assert session.process.returncode == 0
    ended = run_cvmfs(dist, "cache", "usage", "--json")
    assert json.loads(ended.stdout)[0]["pinned_bytes"] == 0


def test_mounts_tell_how_well_the_cache_serves(dist: Path, session: Started) -> None:
    told = run_cvmfs(dist, "cache", "hit-rate", "--json")
    assert told.returncode == 0, told
    (rate,) = json.loads(told.stdout)
    assert rate["repository"] == FQRN
    assert rate["pid"] in session.pids()
    assert 0 <= rate["percent"] < 100
    assert rate["downloads"] >= len(FILES)


def test_mounts_go_by_another_limit(dist: Path, session: Started) -> None:
    assert run_cvmfs(dist, "cache", "limit", "1500").returncode == 0
    limit = run_cvmfs(dist, "cache", "limit", "--json")
    assert json.loads(limit.stdout)[0]["limit_in_force_bytes"] == 1500 << 20
    assert run_cvmfs(dist, "cache", "limit", "1").returncode == 1  # too low
    session.process.communicate("go\n", timeout=PATIENCE_S)
    ended = run_cvmfs(dist, "cache", "limit", "2000")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"nothing is mounted" in ended.stderr


def test_a_killed_prefetch_goes_on_where_it_was(dist: Path, origin: Nginx) -> None:
    line = (str(ROOT / "cvmfs"), "prefetch", "--connections", "1", FQRN, "/")
    origin.forget_requests()
    environment = {**plain_environment(), "CVMFSEXEC_DIST": str(dist)}
    with subprocess.Popen(wrap(line, Caller.ORDINARY), env=environment) as process:
        wait_until(lambda: len(origin.objects()) > 10, "some objects were fetched")
        process.kill()
    done = run_cvmfs(dist, "prefetch", "--json", FQRN, "/")
    (report,) = json.loads(done.stdout)
    assert (report["present"] + report["fetched"], report["failed"]) == (
        report["objects"],
        [],
    )
    fetched = origin.objects()
    assert len(fetched) <= len(set(fetched)) + 1  # the one that was under way
    assert run_cvmfs(dist, "fsck").returncode == 0


# What is planted in a cache that is in use


def sound_objects(dist: Path) -> list[Path]:
    """Return objects of regular files, always the same ones."""
    found = (path for path in cache_of(dist).glob("??/*") if path.stat().st_size > 9999)
    return sorted(path for path in found if not path.read_bytes().startswith(b"SQLite"))


def plant(dist: Path) -> tuple[Path, list[str]]:
    """Damage a cache in many ways; return what cannot be mended, and foreign names."""
    cut, grown, flipped, empty, loose, linked, odd, fifo, pinned = sound_objects(dist)[
        :9
    ]
    content = flipped.read_bytes()
    os.truncate(cut, 5)
    grown.write_bytes(grown.read_bytes() + b"more")
    flipped.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    os.truncate(empty, 0)
    os.truncate(pinned, 7)
    loose.chmod(0o666)
    for path in (linked, odd, fifo):
        path.unlink()
    linked.symlink_to("/etc/passwd")
    odd.mkdir()
    os.mkfifo(fifo)
    foreign = [".nfs0001", "00/note.txt", "note.txt"]
    for name in foreign:
        (cache_of(dist) / name).parent.mkdir(exist_ok=True)
        (cache_of(dist) / name).touch()
    give_to_ordinary_user(cache_of(dist))
    return odd, foreign


def test_whatever_is_planted_is_found_and_mended(dist: Path, session: Started) -> None:
    assert run_cvmfs(dist, "cache", "pin", FQRN, "/sub").returncode == 0
    pending = cache_of(dist) / "txn"
    pending.mkdir()
    dead, alive = pending / "cvmfsexec.0123.0", pending / "cvmfsexec.4567.0"
    dead.write_bytes(b"half")
    with alive.open("wb") as under_way:
        fcntl.flock(under_way, fcntl.LOCK_EX)
        odd, foreign = plant(dist)
        checked = run_cvmfs(dist, "fsck", "--json")
        assert checked.returncode == NOT_FIXED, checked
        (report,) = json.loads(checked.stdout)
        assert sorted(report["foreign"]) == foreign
        problems = sorted(one["problem"] for one in report["faults"])
        odd_ones = ["wrong_type", "lost_pin"] * 3  # only the pins have the objects
        others = ["leftover", "writable", *odd_ones]
        assert problems == sorted([*["corrupt"] * 5, *others])

        repaired = run_cvmfs(dist, "fsck", "-p", "--json")
        assert repaired.returncode == FIXED | NOT_FIXED
        (report,) = json.loads(repaired.stdout)
        left = [one["path"] for one in report["faults"] if not one["fixed"]]
        name = f"{odd.parent.name}/{odd.name}"  # what is in it may be somebody's
        assert sorted(left) == sorted(
            [name, f"cvmfsexec.pinned/{name.replace('/', '')}"]
        )
        assert alive.exists()
    assert not dead.exists()
    assert all((cache_of(dist) / name).exists() for name in foreign)
    odd.rmdir()
    out, err = session.process.communicate("go\n", timeout=PATIENCE_S)
    assert session.process.returncode == 0, err
    assert run_exec(dist, FQRN, "--", "sh", "-c", SUM).stdout == out
    run_cvmfs(dist, "fsck", "-p")
    assert run_cvmfs(dist, "fsck").returncode == 0
    told = json.loads(run_cvmfs(dist, "cache", "pinned", "--json").stdout)
    assert sum(one["kind"] == "file" for one in told) == len(FILES)


READ_ONLY = (
    "unshare --user --map-root-user --mount "
    'sh -c \'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"\''
)


@pytest.mark.parametrize(
    ("words", "sound", "damaged"),
    [
        ("fsck", 0, NOT_FIXED),
        ("fsck -p", 0, NOT_FIXED),
        ("fsck -f", 8, 8 | NOT_FIXED),  # the bytes cannot be counted anew
        ("cache usage", 0, 0),
        ("cache cleanup", 9, 9),
        (f"cache pin {FQRN} /sub/f1", 9, 9),
        (f"cache evict {FQRN} /sub/f1", 9, 9),
    ],
)
def test_of_a_read_only_cache_is_told_what_can_be(
    dist: Path, words: str, sound: int, damaged: int
) -> None:
    assert run_cvmfs(dist, "prefetch", FQRN, "/sub/f1").returncode == 0
    script = f"{READ_ONLY} {cache_of(dist)} {ROOT}/cvmfs {words}"
    line = wrap(("sh", "-c", script), Caller.ORDINARY)
    environment = {**plain_environment(), "CVMFSEXEC_DIST": str(dist)}
    for status in (sound, damaged):
        done = subprocess.run(
            line,
            env=environment,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
        )
        if b"unshare" in done.stderr or b"mount:" in done.stderr:
            pytest.skip(done.stderr.decode())
        assert done.returncode == status, done
        assert b"Traceback" not in done.stderr
        spoil_files(dist)


@pytest.mark.parametrize(
    "words",
    [("fsck", "-p", "-j2"), ("prefetch", FQRN, "/"), ("cache", "list")],
    ids=lambda words: words[0],
)
def test_who_is_interrupted_leaves_nothing_behind(
    dist: Path, words: tuple[str, ...]
) -> None:
    assert run_cvmfs(dist, "prefetch", FQRN, "/sub/f1*").returncode == 0
    environment = {**plain_environment(), "CVMFSEXEC_DIST": str(dist)}
    line = wrap((str(ROOT / "cvmfs"), *words), Caller.ORDINARY)
    for pause_s in (0.05, 0.15, 0.25):  # wherever it is then
        with subprocess.Popen(
            line,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(pause_s)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (0, -signal.SIGINT, 130), err
        assert b"Traceback" not in err
    assert list(cache_of(dist).glob("txn/*")) == []
    assert run_cvmfs(dist, "fsck").returncode == 0


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("is_full", [True, False], ids=["full", "closed"])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("cache usage", 1),
        ("cache list --json", 1),
        (f"cache pin {FQRN} /sub/f1", 1),
        (f"prefetch {FQRN} /sub/f2 /none", 1),
        ("fsck", 8),
    ],
)
def test_where_nobody_listens_nothing_breaks(
    dist: Path, words: str, status: int, stream: str, *, is_full: bool
) -> None:
    assert run_cvmfs(dist, "prefetch", FQRN, "/sub/f1").returncode == 0
    end = {"stdout": ">", "stderr": "2>"}[stream] + (" /dev/full" if is_full else "&-")
    script = f"{ROOT}/cvmfs {words} {end}"
    environment = {**plain_environment(), "CVMFSEXEC_DIST": str(dist)}
    done = subprocess.run(
        wrap(("sh", "-c", script), Caller.ORDINARY),
        env=environment,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    missing = 1 if "/none" in words else 0
    wanted = status if is_full and stream == "stdout" else missing
    assert done.returncode == wanted, done
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("prefetch", FQRN, "/"), ("fsck", "-j4")])
def test_a_limit_of_processes_is_no_accident(
    dist: Path, words: tuple[str, ...]
) -> None:
    assert run_cvmfs(dist, "prefetch", FQRN, "/sub/f1").returncode == 0
    assert run_cvmfs(dist, "fsck", "-f").returncode == 0  # nothing is left to count
    line = ("prlimit", "--nproc=1:1", str(ROOT / "cvmfs"), *words)
    done = subprocess.run(
        wrap(line, Caller.ORDINARY),
        env={**plain_environment(), "CVMFSEXEC_DIST": str(dist)},
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if words[0] == "prefetch":
        assert (done.returncode, done.stderr) == (0, b"")
    else:
        assert done.returncode == 8
        assert done.stderr.endswith(b"unavailable; use fewer with -j\n")


def test_a_bar_is_for_terminals(dist: Path) -> None:
    line = (str(ROOT / "cvmfs"), "prefetch", "--dist", str(dist), FQRN, "/")
    with Terminal(wrap(line, Caller.ORDINARY)) as terminal:
        terminal.expect("0 failed")
        assert terminal.finish() == 0
    assert run_cvmfs(dist, "prefetch", FQRN, "/").stderr == b""
