"""Sessions with each kind of cache: filled by one, found full by the next.

What they ask for is counted by a real nginx.
"""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cache.ram import MEMORY
from cvmfsexec.format.digest import ContentHash
from tests.support.commands import (
    client_dist,
    give_to_ordinary_user,
    plain_environment,
    run_exec,
    started_exec,
)
from tests.support.host_mounts import skip_without_fusermount
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import (
    ORDINARY_UID,
    ROOT,
    Caller,
    skip_unless_possible,
    wait_until,
)

pytestmark = pytest.mark.kernel

ANOTHER_UID = 1002
GROUP = 4321
FILES = 60
NO_READ_AHEAD = "CVMFS_READ_AHEAD=no\n"
READ_ALL = ("sh", "-c", f"cd /cvmfs/{FQRN} && find . -type f | sort | xargs cat")


def tree() -> Tree:
    small = {f"small{number:02}": b"%d\n" % number * 50 for number in range(FILES)}
    large = bytes(range(256)) * 8192
    nested = {".cvmfscatalog": b"", "more": b"one level down\n"}
    return {**small, "large": large, "nested": nested}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), tree())


@pytest.fixture(scope="module")
def truth(repository: PublishedRepository) -> str:
    files = sorted(
        f"./{path.relative_to(repository.source)}"
        for path in repository.source.rglob("*")
        if path.is_file()
    )
    read = (repository.source / path for path in files)
    return b"".join(path.read_bytes() for path in read).decode("latin-1")


@pytest.fixture
def origin(repository: PublishedRepository) -> Iterator[Nginx]:
    with Nginx(repository.output) as nginx:
        yield nginx


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that every user can reach."""
    top = Path(tempfile.mkdtemp(prefix="cvmfsexec-test-"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top, ignore_errors=True)


def read_all(dist: Path, uid: int = ORDINARY_UID, group: int = ORDINARY_UID) -> str:
    """Read every file in a session of a user who is in a group."""
    skip_unless_possible(Caller.ORDINARY)
    line = [str(ROOT / "cvmfsexec"), "--dist", str(dist), FQRN, "--", *READ_ALL]
    if os.geteuid() == 0:
        who = ("--reuid", str(uid), "--regid", str(group), "--clear-groups")
        line = ["setpriv", *who, *line]
    done = subprocess.run(
        line,
        capture_output=True,
        check=False,
        cwd="/",
        env=plain_environment(),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not done.stderr, done.stderr.decode()
    return done.stdout.decode("latin-1")


def objects_in(directory: Path) -> list[Path]:
    return [
        path for path in directory.glob("[0-9a-f][0-9a-f]/*") if len(path.name) >= 38
    ]


# -- each kind alone ------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "CVMFS_CACHE_TYPE=packed\n",
        "CVMFS_ALIEN_CACHE={place}/alien\nCVMFS_QUOTA_LIMIT=-1\n",
        "CVMFS_CACHE_PRIMARY=both\nCVMFS_CACHE_both_TYPE=tiered\n"
        "CVMFS_CACHE_both_UPPER=fast\nCVMFS_CACHE_both_LOWER=slow\n"
        "CVMFS_CACHE_fast_TYPE=posix\nCVMFS_CACHE_fast_BASE={place}/fast\n"
        "CVMFS_CACHE_slow_TYPE=packed\nCVMFS_CACHE_slow_BASE={place}/slow\n",
    ],
    ids=["posix", "packed", "alien", "tiered"],
)
def test_the_second_session_fetches_nothing(
    origin: Nginx,
    repository: PublishedRepository,
    truth: str,
    place: Path,
    settings: str,
) -> None:
    give_to_ordinary_user(place)
    with client_dist(
        origin.url, repository.master_key_pem, settings=settings.format(place=place)
    ) as dist:
        assert read_all(dist) == truth
        assert len(origin.objects()) > FILES
        origin.forget_requests()
        assert read_all(dist) == truth
        assert origin.objects() == []


def test_small_files_share_few_packs(
    origin: Nginx, repository: PublishedRepository, truth: str
) -> None:
    settings = "CVMFS_CACHE_TYPE=packed\n"
    with client_dist(origin.url, repository.master_key_pem, settings=settings) as dist:
        assert read_all(dist) == truth
        cache = dist / "var/lib/cvmfs" / FQRN
        assert len(list(cache.glob("cvmfsexec.packs/*"))) == 2
        # Two catalogs, and a file that is too large for a pack.
        assert len(objects_in(cache)) == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("CVMFS_ALIEN_CACHE=/nowhere\n", "alien cache are mutually exclusive"),
        (
            "CVMFS_CACHE_PRIMARY=p\nCVMFS_CACHE_p_TYPE=external\n",
            "asks for a cache plug-in",
        ),
        (
            "CVMFS_ALIEN_CACHE=/proc/nowhere\nCVMFS_QUOTA_LIMIT=-1\n",
            "cannot use the alien cache",
        ),
    ],
    ids=["managed alien", "external", "no directory"],
)
def test_a_cache_that_cannot_be_ends_with_the_originals_status(
    origin: Nginx, repository: PublishedRepository, settings: str, sentence: str
) -> None:
    keys = repository.master_key_pem
    with client_dist(origin.url, keys, settings=settings) as dist:
        done = run_exec(dist, FQRN, "--", "true")
        assert done.returncode == 9, done.stderr
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


# -- in memory ------------------------------------------------------------------------


RAM = "CVMFS_CACHE_PRIMARY=m\nCVMFS_CACHE_m_TYPE=ram\nCVMFS_CACHE_m_SIZE=64\n"
HOLD = ("sh", "-c", f"cat /cvmfs/{FQRN}/small00 && echo ready && read line")


def test_sessions_share_memory_and_the_last_one_clears_it(
    origin: Nginx, repository: PublishedRepository, truth: str, memory: Path
) -> None:
    with client_dist(origin.url, repository.master_key_pem, settings=RAM) as dist:
        with started_exec(dist, FQRN, "--", *HOLD, takes_input=True) as first:
            wait_until(memory.exists, "the cache is in memory")
            assert read_all(dist) == truth
            assert objects_in(memory)
            assert stat.S_IMODE(memory.stat().st_mode) == 0o700
            origin.forget_requests()
            assert read_all(dist) == truth
            assert origin.objects() == []
            assert first.process.stdin is not None
            first.process.stdin.write("\n")
            first.process.stdin.flush()
            assert first.finish() == 0
        assert not memory.exists()
        workspace = dist / "var/lib/cvmfs" / FQRN
        assert (workspace / f"cvmfschecksum.{FQRN}").exists()
        assert objects_in(workspace) == []


def test_what_the_killed_leave_in_memory_the_next_one_uses_and_clears(
    origin: Nginx, repository: PublishedRepository, memory: Path
) -> None:
    with client_dist(origin.url, repository.master_key_pem, settings=RAM) as dist:
        with started_exec(dist, FQRN, "--", *HOLD, takes_input=True) as session:
            wait_until(lambda: bool(objects_in(memory)), "something is cached")
            for pid in session.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert memory.exists()
        assert run_exec(dist, FQRN, "--", *READ_ALL).stdout
        assert not memory.exists()


@pytest.mark.usefixtures("memory")
def test_file_servers_of_the_host_leave_no_memory(
    origin: Nginx, repository: PublishedRepository
) -> None:
    skip_without_fusermount()
    with client_dist(origin.url, repository.master_key_pem, settings=RAM) as dist:
        for _ in range(3):
            done = run_exec(dist, "--mode", "2", FQRN, "--", *READ_ALL)
            assert done.returncode == 0, done.stderr
            assert list(Path(MEMORY).glob("cvmfsexec.*")) == []


# -- shared with others ---------------------------------------------------------------


@pytest.fixture
def alien(place: Path) -> Path:
    """Return an alien cache of a group, as an administrator makes it."""
    if os.geteuid() != 0:
        pytest.skip("only root can start sessions of two users")
    directory = place / "alien"
    directory.mkdir()
    os.chown(directory, 0, GROUP)
    directory.chmod(0o2770)
    return directory


def settings_for(alien: Path, more: str = "") -> str:
    return f"CVMFS_ALIEN_CACHE={alien}\nCVMFS_QUOTA_LIMIT=-1\n{NO_READ_AHEAD}{more}"


@contextlib.contextmanager
def two_users(
    origin: Nginx, repository: PublishedRepository, settings: str
) -> Iterator[tuple[Path, Path]]:
    with (
        client_dist(origin.url, repository.master_key_pem, settings=settings) as one,
        client_dist(origin.url, repository.master_key_pem, settings=settings) as two,
    ):
        for path in (two.parent, *two.parent.rglob("*")):
            os.lchown(path, ANOTHER_UID, GROUP)
        yield one, two


def test_two_users_of_a_group_share_an_alien_cache(
    origin: Nginx, repository: PublishedRepository, truth: str, alien: Path
) -> None:
    with two_users(origin, repository, settings_for(alien)) as (one, two):
        assert read_all(one, ORDINARY_UID, GROUP) == truth
        stored = objects_in(alien)
        assert len(stored) > FILES
        modes = {(path.stat().st_mode & 0o7777, path.stat().st_gid) for path in stored}
        assert modes == {(0o660, GROUP)}
        directories = {path.parent.stat().st_mode & 0o7777 for path in stored}
        assert directories == {0o2770}
        origin.forget_requests()
        assert read_all(two, ANOTHER_UID, GROUP) == truth
        assert origin.objects() == []
        # Nothing is there but what the original makes.
        others = {path.name for path in alien.iterdir() if len(path.name) != 2}
        assert others == {"txn", "quarantaine", ".cvmfscache"}


def test_what_another_user_has_changed_is_not_believed(
    origin: Nginx, repository: PublishedRepository, truth: str, alien: Path
) -> None:
    with two_users(origin, repository, settings_for(alien)) as (one, two):
        assert read_all(one, ORDINARY_UID, GROUP) == truth
        before = {path: path.read_bytes() for path in objects_in(alien)}
        for path, content in before.items():
            times = path.stat()
            path.write_bytes(bytes(byte ^ 1 for byte in content))
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        line = (str(ROOT / "cvmfsexec"), "--dist", str(two), FQRN, "--", *READ_ALL)
        who = ("--reuid", str(ANOTHER_UID), "--regid", str(GROUP), "--clear-groups")
        done = subprocess.run(
            ("setpriv", *who, *line),
            capture_output=True,
            check=False,
            cwd="/",
            env=plain_environment(),
            timeout=120,
        )
        assert done.stdout.decode("latin-1") == truth
        assert b"is damaged; replaced" in done.stderr
        assert {path: path.read_bytes() for path in objects_in(alien)} == before
        # Whoever verified the objects before does not believe the changed ones either.
        assert read_all(one, ORDINARY_UID, GROUP) == truth


def test_a_read_only_alien_cache_is_read_and_never_written(
    origin: Nginx, repository: PublishedRepository, truth: str, alien: Path
) -> None:
    with two_users(origin, repository, settings_for(alien)) as (one, two):
        assert read_all(one, ORDINARY_UID, GROUP) == truth
        missing = alien / ContentHash.of(b"").cache_path()
        assert not missing.exists()
        removed = next(path for path in objects_in(alien) if path.stat().st_size == 100)
        removed.unlink()
        for path in (alien, *alien.rglob("*")):
            os.lchown(path, 0, 0)
            path.chmod(0o755 if path.is_dir() else 0o644)
        before = sorted(alien.rglob("*"))
        origin.forget_requests()
        assert read_all(two, ANOTHER_UID, GROUP) == truth
        assert len(origin.objects()) == 1
        assert sorted(alien.rglob("*")) == before
        # What was found there was verified once, and is now in the user's own cache.
        shutil.rmtree(alien)
        alien.mkdir(mode=0o555)
        origin.forget_requests()
        assert read_all(two, ANOTHER_UID, GROUP) == truth
        assert origin.objects() == []
