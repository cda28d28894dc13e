"""Sessions whose repositories the host mounts, by the real helper."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.commands import (
    client_dist,
    give_to_ordinary_user,
    started_exec,
)
from tests.support.host_mounts import (
    CONFIG,
    DIST_NAME,
    REPOSITORIES,
    Site,
    configure,
    kill,
)
from tests.support.sessions import (
    PATIENCE_S,
    ROOT,
    Caller,
    Place,
    Started,
    places,
    wait_until,
    wrap,
)

pytestmark = pytest.mark.kernel

ONE, TWO, THREE = REPOSITORIES
KEEPER = "cvmfs-keeper"
INIT = "cvmfsexec-init"
FILE_SERVER = f"cvmfs:{ONE}"[:15]
MODE = ("--mode", "2")
WAIT = ("--", "sh", "-c", "echo up; exec sleep 60")

OLD_KERNEL = (sys.executable, str(ROOT / "tests/support/old_kernel.py"))

STRICT_DEVICE = (
    "unshare",
    "-m",
    "sh",
    "-c",
    "mount -t tmpfs -o mode=755 none /media && mknod -m 600 /media/fuse c 10 229 && "
    'mount --bind /media/fuse /dev/fuse && exec "$@"',
    "sh",
)
"""Only root may use /dev/fuse; the helper goes by the rights of its user, too."""

WITHOUT_HELPER = (
    "unshare",
    "-m",
    "sh",
    "-c",
    "for path in /usr/bin/fusermount3 /usr/bin/fusermount; do "
    '[ ! -e $path ] || mount --bind /dev/null $path; done; exec "$@"',
    "sh",
)

SHARED = (
    "unshare",
    "-m",
    "sh",
    "-c",
    'mount --make-rshared / && "$@"; status=$?; '
    "! grep /session- /proc/self/mountinfo >&2 || exit 99; exit $status",
    "sh",
)
"""A host that shares its mounts, as those do that systemd has started."""

SHARED_EXEC = ("unshare", "-m", "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh")
"""The same for who wants to know the process."""

UNSHARED = ("unshare", "-m")

CHROOT = (
    "unshare",
    "-m",
    "sh",
    "-c",
    'mount --rbind / /mnt && exec /usr/sbin/chroot /mnt "$@"',
    "sh",
)
"""The kernel makes no user namespace for who is in a chroot."""


@pytest.fixture
def elsewhere() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make such a place")


needs_elsewhere = pytest.mark.usefixtures("elsewhere")


def left_behind(here: Site) -> list[object]:
    """Return what is left on the host: mounts, and files in ``$TMPDIR``."""
    return [*here.mounts(), *here.temporary.rglob("*")]


@contextmanager
def session(here: Site, *words: str, place: Place = Place.PLAIN) -> Iterator[Started]:
    """Start a session that has printed "up"."""
    with started_exec(here.dist, *MODE, *words, place=place) as started:
        assert started.process.stdout is not None
        line = started.process.stdout.readline()
        if not line:
            pytest.fail(str(started.process.communicate()))
        assert line == "up\n"
        yield started


def run_inside(
    here: Site,
    script: str,
    *words: str,
    host: tuple[str, ...] = SHARED,
    place: Place = Place.PLAIN,
) -> tuple[str, str, int]:
    """Run a script in a session; output, complaints, and status."""
    line = ("cvmfsexec", *words, "--", "sh", "-c", script)
    done = here.run(*line, inside=wrap(host, Caller.ROOT, place))
    return done.stdout, done.stderr, done.returncode


@contextmanager
def session_of_sharing_host(here: Site, *words: str) -> Iterator[Started]:
    """Start a session that has printed "up", on a host that shares its mounts."""
    line, environment = here.command("cvmfsexec", *MODE, *words, inside=SHARED_EXEC)
    with subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "up\n"
            yield Started(process, here.mark)
        finally:
            process.kill()


@places
def test_one_repository_is_seen_and_gone_afterwards(here: Site, place: Place) -> None:
    script = f"cat /cvmfs/{ONE}/hello; id -u; echo oops >&2; exit 7"
    done = here.run(
        "cvmfsexec",
        *MODE,
        ONE,
        "--",
        "sh",
        "-c",
        script,
        place=place,
    )
    uid = 1001 if os.geteuid() == 0 else os.getuid()
    if place is Place.MASKED_PROC and uid == os.getuid():
        uid = 0  # who is not root masks in a namespace, and is root there
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{ONE}{uid}\n", "oops\n")
    assert left_behind(here) == []
    assert not here.has_process()


def test_the_session_has_one_line_for_each_repository(here: Site) -> None:
    configure(here.dist)
    script = (
        "grep -c ' /cvmfs' /proc/self/mounts; "
        "grep -c '^cvmfs2 /cvmfs' /proc/$$/mounts; "
        f"df -h | grep -c /cvmfs; readlink /cvmfs/{ONE}/which; ls /cvmfs"
    )
    done = here.run("cvmfsexec", *MODE, *REPOSITORIES, "--", "sh", "-c", script)
    names = sorted((*REPOSITORIES, CONFIG))
    assert done.stderr == ""
    assert done.stdout.split() == ["4", "4", "4", CONFIG, *names]
    assert left_behind(here) == []


def test_the_payload_gets_its_input_and_its_directory(here: Site) -> None:
    done = here.run(
        "cvmfsexec", *MODE, ONE, "--", "sh", "-c", "pwd; cat", stdin="said\n"
    )
    assert (done.returncode, done.stdout) == (0, "/\nsaid\n")


def test_a_repository_that_cannot_be_mounted_ends_the_run(here: Site) -> None:
    done = here.run("cvmfsexec", *MODE, ONE, "missing.example.org", "--", "echo", "no")
    assert (done.returncode, done.stdout) == (16, "")
    assert done.stderr.startswith("cvmfsexec: missing.example.org: ")
    assert done.stderr.count("\n") == 1
    assert left_behind(here) == []
    assert not here.has_process()


def test_a_lost_configuration_repository_is_done_without(here: Site) -> None:
    configure(here.dist)
    (here.dist / "etc/cvmfs/config.d").mkdir(exist_ok=True)
    lost = here.dist / f"etc/cvmfs/config.d/{CONFIG}.conf"
    lost.write_text("CVMFS_SERVER_URL=http://127.0.0.1:1/@fqrn@\nCVMFS_CACHE_BASE=/x\n")
    done = here.run("cvmfsexec", *MODE, ONE, "--", "cat", f"/cvmfs/{ONE}/hello")
    assert (done.returncode, done.stdout) == (0, ONE)
    assert "going on without the configuration repository" in done.stderr
    assert left_behind(here) == []


@places
@pytest.mark.parametrize(
    ("name", "number", "statuses"),
    [
        ("supervisor", signal.SIGKILL, {-9}),
        ("supervisor", signal.SIGTERM, {143}),
        ("supervisor", signal.SIGINT, {130}),
        (INIT, signal.SIGKILL, {6}),
        (INIT, signal.SIGTERM, {143}),
        (FILE_SERVER, signal.SIGKILL, {6}),
        (FILE_SERVER, signal.SIGTERM, {143}),
        ("sleep", signal.SIGKILL, {137}),
        ("sleep", signal.SIGTERM, {143}),
    ],
)
def test_nothing_is_left_when_one_is_killed(
    here: Site, name: str, number: signal.Signals, statuses: set[int], place: Place
) -> None:
    configure(here.dist)
    with session(here, ONE, TWO, *WAIT, place=place) as started:
        os.kill(started.pid_of(name), number)
        assert started.finish() in statuses
        wait_until(started.is_gone, "no process is left")
        wait_until(lambda: not left_behind(here), "nothing is left")


def test_a_lost_file_server_is_told(here: Site) -> None:
    with session(here, ONE, *WAIT) as started:
        os.kill(started.pid_of(FILE_SERVER), signal.SIGKILL)
        said = started.process.communicate()[1]
    assert said == (
        f"cvmfsexec: the file server of {ONE} was killed by SIGKILL; "
        "the session has ended\n"
    )


def test_a_payload_that_will_not_end_is_killed_when_a_server_is_lost(
    here: Site,
) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    with session(here, ONE, "--", "sh", "-c", script) as started:
        os.kill(started.pid_of(FILE_SERVER), signal.SIGKILL)
        assert started.finish() == 6
    assert left_behind(here) == []


def test_what_a_killed_job_leaves_the_next_start_clears_away(here: Site) -> None:
    with session(here, ONE, TWO, *WAIT) as started:
        pids = started.pids()
        for pid in pids:  # as a batch system does: all at once
            os.kill(pid, signal.SIGSTOP)
        kill(*pids)
        wait_until(started.is_gone, "no process is left")
        assert len(here.mounts()) == 2
    done = here.run(
        "cvmfsexec", *MODE, ONE, "--", "true", environment={"TMPDIR": tmpdir(here)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert left_behind(here) == []


def tmpdir(here: Site) -> str:
    return str(here.temporary)


def test_a_session_that_lives_is_not_taken_for_one_that_was_killed(here: Site) -> None:
    script = f"echo up; read -r _; cat /cvmfs/{ONE}/hello"
    words = (*MODE, ONE, "--", "sh", "-c", script)
    line, environment = here.command("cvmfsexec", *words)
    with subprocess.Popen(
        line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "up\n"
        for _ in range(3):
            assert here.run("cvmfsexec", *MODE, ONE, "--", "true").returncode == 0
        assert len(here.mounts()) == 1
        assert first.communicate("\n")[0] == ONE
    assert left_behind(here) == []


def test_an_interruption_before_the_start_leaves_nothing(here: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        silent.settimeout(PATIENCE_S)
        (here.dist / "etc/cvmfs/config.d").mkdir(exist_ok=True)
        (here.dist / "etc/cvmfs/config.d/mute.example.org.conf").write_text(
            f"CVMFS_SERVER_URL=http://127.0.0.1:{port}/@fqrn@\nCVMFS_TIMEOUT_DIRECT=60\n"
        )
        words = (*MODE, ONE, "mute.example.org", "--", "true")
        with started_exec(here.dist, *words) as started, silent.accept()[0]:
            started.process.terminate()
            assert started.finish() == 143
    assert left_behind(here) == []


def test_two_installations_side_by_side_do_not_meet(here: Site) -> None:
    with client_dist(here.base_url, here.master_key, name=DIST_NAME) as other:
        script = f"echo up; read -r _; cat /cvmfs/{ONE}/hello"
        words = (*MODE, ONE, "--", "sh", "-c", script)
        line, environment = here.command("cvmfsexec", *words)
        with subprocess.Popen(
            line,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "up\n"
            second = here.run(
                "cvmfsexec",
                "--dist",
                str(other),
                *MODE,
                ONE,
                "--",
                "cat",
                f"/cvmfs/{ONE}/hello",
            )
            assert (second.returncode, second.stdout) == (0, ONE)
            assert first.communicate("\n")[0] == ONE
    assert left_behind(here) == []


def test_a_read_only_dist_is_enough(here: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give the dist away")
    for directory, _, _ in os.walk(here.dist):
        os.chown(directory, 0, 0)
    before = sorted(here.dist.rglob("*"))
    try:
        words = (*MODE, ONE, "--", "cat", f"/cvmfs/{ONE}/hello")
        done = here.run("cvmfsexec", *words, environment={"HOME": "/nonexistent"})
        assert (done.returncode, done.stdout, done.stderr) == (0, ONE, ""), done.stderr
    finally:
        give_to_ordinary_user(here.dist)
    assert sorted(here.dist.rglob("*")) == before
    assert not here.mounts()
    kept = here.temporary / "cvmfsexec-1001"  # the cache, as in mode 3
    assert not list(kept.glob("session-*"))
    shutil.rmtree(kept)


def test_the_runtime_directory_is_preferred(here: Site) -> None:
    run = here.dist.parent / "run"
    run.mkdir(mode=0o700)
    give_to_ordinary_user(here.dist.parent)
    script = f"grep -c ' {run}/cvmfsexec/session-' /proc/self/mounts"
    words = (*MODE, ONE, "--", "sh", "-c", script)
    done = here.run("cvmfsexec", *words, environment={"XDG_RUNTIME_DIR": str(run)})
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert list(run.iterdir()) == []
    run.rmdir()


def test_root_can_have_one_too(here: Site) -> None:
    with client_dist(here.base_url, here.master_key) as dist:
        top = dist.parent
        for directory, _, files in os.walk(top):
            for name in (".", *files):
                os.chown(os.path.join(directory, name), os.geteuid(), os.getegid())
        words = ("--dist", str(dist), *MODE, ONE, "--", "cat", f"/cvmfs/{ONE}/hello")
        temporary = {"TMPDIR": str(top / "tmp")}
        done = here.run("cvmfsexec", *words, caller=Caller.ROOT, environment=temporary)
        assert (done.returncode, done.stdout, done.stderr) == (0, ONE, "")
        assert list((top / "tmp").iterdir()) == []


def test_it_can_be_joined(here: Site) -> None:
    name = f"mode-two-{here.mark}"
    with session(here, "--name", name, ONE, *WAIT):
        done = here.run("cvmfsexec", "--join", name, "--", "cat", f"/cvmfs/{ONE}/hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, ONE, ""), done.stderr
    assert left_behind(here) == []


# -- from inside ---------------------------------------------------------------------


@needs_elsewhere
@places
def test_a_repository_is_mounted_and_unmounted_later(here: Site, place: Place) -> None:
    count = "grep -c '^cvmfs2 /cvmfs' /proc/$$/mounts; df | grep -c /cvmfs"
    script = (
        f"$CVMFSMOUNT {TWO} && cat /cvmfs/*/hello; echo; {count}; "
        f"$CVMFSUMOUNT {TWO} && ls -A /cvmfs; {count}; "
        f"$CVMFSMOUNT {TWO} && $CVMFSMOUNT {TWO} && cat /cvmfs/{TWO}/hello; {count}"
    )
    told = f"{ONE}{TWO}\n2\n2\nUnmounting {TWO}\n{ONE}\n1\n1\n{TWO}2\n2\n"
    assert run_inside(here, script, *MODE, ONE, place=place) == (told, "", 0)
    assert left_behind(here) == []
    assert not here.has_process()


@needs_elsewhere
def test_all_can_come_later_and_be_counted(here: Site) -> None:
    configure(here.dist)
    script = (
        f"for name in {ONE} {TWO} {THREE}; do $CVMFSMOUNT $name || exit 9; done; "
        "grep cvmfs2 /proc/$$/mounts | grep -c ' /cvmfs'; "
        f"readlink /cvmfs/{ONE}/which; "
        f"for name in {ONE} {TWO} {THREE} {CONFIG}; do $CVMFSUMOUNT $name; done; "
        "ls -A /cvmfs"
    )
    output, complaint, status = run_inside(here, script, *MODE)
    names = (ONE, TWO, THREE, CONFIG)
    told = ["4", CONFIG, *(f"Unmounting {name}" for name in names)]
    assert (output.splitlines(), complaint, status) == (told, "", 0)
    assert left_behind(here) == []


@needs_elsewhere
def test_the_payload_gets_no_other_descriptor_than_to_ask(here: Site) -> None:
    script = "echo $CVMFSEXEC_CMDFD; exec ls /proc/self/fd"
    number, *found = run_inside(here, script, *MODE, ONE)[0].split()
    assert sorted(found) == sorted(("0", "1", "2", "3", number))


@needs_elsewhere
def test_everybody_gets_an_own_answer(here: Site) -> None:
    names = (ONE, TWO, THREE, "missing.example.org", "no/name")
    script = "\n".join(
        f"{{ $CVMFSMOUNT {name} 2>/dev/null; echo {name} $?; }} &" for name in names * 3
    )
    output, _, status = run_inside(here, f"{script}\nwait", *MODE, ONE)
    statuses = {"missing.example.org": 16, "no/name": 2}
    wanted = sorted(f"{name} {statuses.get(name, 0)}" for name in names * 3)
    assert (sorted(output.splitlines()), status) == (wanted, 0)
    assert left_behind(here) == []


@needs_elsewhere
@pytest.mark.parametrize("host", [SHARED, UNSHARED], ids=["shared", "unshared"])
def test_a_busy_repository_stays(here: Site, host: tuple[str, ...]) -> None:
    script = f"cd /cvmfs/{ONE}; $CVMFSUMOUNT {ONE}; s=$?; cat hello; exit $s"
    output, complaint, status = run_inside(here, script, *MODE, ONE, host=host)
    assert (output, status) == (f"Unmounting {ONE}\n{ONE}", 32)
    assert "busy" in complaint


@needs_elsewhere
def test_a_first_repository_can_go_and_come_back(here: Site) -> None:
    script = (
        f"$CVMFSMOUNT {ONE} && $CVMFSUMOUNT {ONE} && ls -A /cvmfs; "
        f"$CVMFSMOUNT {ONE} && cat /cvmfs/{ONE}/hello"
    )
    told = (f"Unmounting {ONE}\n{ONE}", "", 0)
    assert run_inside(here, script, *MODE, ONE) == told
    assert left_behind(here) == []


@needs_elsewhere
def test_a_host_that_does_not_share_its_mounts_is_no_use(here: Site) -> None:
    script = (
        f"$CVMFSMOUNT {TWO}; echo $?; $CVMFSMOUNT {ONE}; echo $?; "
        f"$CVMFSUMOUNT {ONE}; ls -A /cvmfs"
    )
    told = run_inside(here, script, *MODE, ONE, host=UNSHARED)
    sentence = (
        f"mountrepo: {TWO}: in this session the host mounts (mode 2), and does not "
        "share what it mounts later; name all repositories at the session's start\n"
    )
    assert told == (f"4\n0\nUnmounting {ONE}\n", sentence, 0)
    assert left_behind(here) == []


@needs_elsewhere
def test_a_bind_over_the_private_place_is_in_nobodys_way(here: Site) -> None:
    script = f"$CVMFSMOUNT {TWO} && cat /cvmfs/{TWO}/hello"
    bind = ("--bind", f"{here.dist}:{here.temporary}")
    assert run_inside(here, script, *MODE, *bind, ONE) == (TWO, "", 0)
    assert left_behind(here) == []


@needs_elsewhere
@pytest.mark.parametrize(
    ("name", "number", "statuses"),
    [
        ("supervisor", signal.SIGKILL, {-9}),
        ("supervisor", signal.SIGTERM, {143}),
        (INIT, signal.SIGKILL, {6}),
        (f"cvmfs:{TWO}"[:15], signal.SIGKILL, {6}),
    ],
)
def test_nothing_is_left_of_later_mounts(
    here: Site, name: str, number: signal.Signals, statuses: set[int]
) -> None:
    script = f"$CVMFSMOUNT {TWO}; echo up; sleep 60 & wait"
    words = (ONE, "--", "sh", "-c", script)
    with session_of_sharing_host(here, *words) as started:
        os.kill(started.pid_of(name), number)
        assert started.finish() in statuses
        wait_until(started.is_gone, "no process is left")
        wait_until(lambda: not left_behind(here), "nothing is left")


@needs_elsewhere
def test_a_later_server_that_is_killed_too_soon_fails_its_requester_only(
    here: Site,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        silent.settimeout(PATIENCE_S)
        (here.dist / "etc/cvmfs/config.d").mkdir(exist_ok=True)
        (here.dist / "etc/cvmfs/config.d/mute.example.org.conf").write_text(
            f"CVMFS_SERVER_URL=http://127.0.0.1:{port}/@fqrn@\nCVMFS_TIMEOUT_DIRECT=60\n"
        )
        script = (
            f"echo up; $CVMFSMOUNT mute.example.org; echo $?; cat /cvmfs/{ONE}/hello"
        )
        words = (ONE, "--", "sh", "-c", script)
        with session_of_sharing_host(here, *words) as started, silent.accept()[0]:
            # Two have the name: who waits for it in the session, and the server.
            for pid in started.pids_of("cvmfs:mute.exam"):
                kill(pid)
            said = started.process.communicate()[0]
    assert said == f"6\n{ONE}"
    assert left_behind(here) == []


# -- the choice of the mode ----------------------------------------------------------


@needs_elsewhere
def test_where_namespaces_may_not_mount_the_host_does(here: Site) -> None:
    script = f"cat /cvmfs/{ONE}/hello -; exit 3"
    words = ("cvmfsexec", "--verbose", ONE, "--", "sh", "-c", script)
    done = here.run(*words, inside=OLD_KERNEL, stdin=" and input")
    assert (done.returncode, done.stdout) == (3, f"{ONE} and input"), done.stderr
    reason = "cannot mount fuse in a user namespace: Operation not permitted"
    assert f"mode 3 is not possible ({reason}); going on in mode 2\n" in done.stderr
    quiet = here.run("cvmfsexec", ONE, "--", "true", inside=OLD_KERNEL)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert left_behind(here) == []


@needs_elsewhere
def test_what_will_be_asked_for_decides_as_well(here: Site) -> None:
    script = f"$CVMFSMOUNT {ONE} && cat /cvmfs/{ONE}/hello -"
    words = ("cvmfsexec", "--verbose", "--", "sh", "-c", script)
    done = here.run(*words, inside=(*SHARED, *OLD_KERNEL), stdin=" and input")
    assert (done.returncode, done.stdout) == (0, f"{ONE} and input"), done.stderr
    assert "going on in mode 2\n" in done.stderr
    assert left_behind(here) == []


@needs_elsewhere
def test_who_cannot_ask_for_anything_needs_no_mode(here: Site) -> None:
    inside = (*OLD_KERNEL, *WITHOUT_HELPER)
    for words in (("-N",), ("--mode", "3")):
        done = here.run("cvmfsexec", "--verbose", *words, "--", "true", inside=inside)
        assert done.returncode == 0, done.stderr
        assert "mode 2" not in done.stderr


@needs_elsewhere
def test_a_session_without_repositories_runs_where_nothing_can_be_mounted(
    here: Site,
) -> None:
    inside = (*OLD_KERNEL, *WITHOUT_HELPER)
    script = f"$CVMFSMOUNT {ONE}; echo $?; ls -A /cvmfs"
    output, complaint, status = run_inside(here, script, host=inside)
    assert (output, status) == ("4\n", 0)
    assert complaint.startswith(f"mountrepo: {ONE}: ")
    assert "cannot mount fuse on" in complaint
    assert left_behind(here) == []


@needs_elsewhere
def test_on_demand_is_refused_where_the_host_mounts(here: Site) -> None:
    done = here.run("cvmfsexec", "--on-demand", "--", "true", inside=OLD_KERNEL)
    assert done.returncode == 4
    assert "--on-demand is only possible in mode 3 (mode 2)" in done.stderr


@needs_elsewhere
@pytest.mark.parametrize(
    ("scene", "native"),
    [("plain", {"alias", "directory", "file", "nothing"}), ("mounted", {TWO})],
)
def test_what_the_host_has_stays_beside_it(
    here: Site, scene: str, native: set[str]
) -> None:
    host = (sys.executable, str(ROOT / "tests/support/native_host.py"), scene, "--")
    words = (*MODE, ONE, "--", "sh", "-c", f"ls /cvmfs; cat /cvmfs/{ONE}/hello")
    variables = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "NATIVE_NAME": TWO}
    done = here.run("cvmfsexec", *words, inside=host, environment=variables)
    assert (done.returncode, done.stderr) == (0, "")
    *names, content = done.stdout.split("\n")
    assert content == ONE
    assert set(names) == native | {ONE}
    assert left_behind(here) == []


@needs_elsewhere
def test_who_insists_on_a_mode_gets_no_other(here: Site) -> None:
    words = ("cvmfsexec", "--mode", "3", ONE, "--", "true")
    done = here.run(*words, inside=OLD_KERNEL)
    assert done.returncode == 4
    assert "cannot mount fuse in a user namespace: Operation" in done.stderr
    words = ("cvmfsexec", *MODE, ONE, "--", "true")
    done = here.run(*words, inside=WITHOUT_HELPER)
    assert done.returncode == 4
    assert "there is neither fusermount3 nor fusermount; " in done.stderr


@needs_elsewhere
def test_where_neither_works_both_are_explained(here: Site) -> None:
    inside = (*STRICT_DEVICE, *WITHOUT_HELPER)
    done = here.run("cvmfsexec", ONE, "--", "true", inside=inside)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot open /dev/fuse: Permission denied (mode 3); " in done.stderr
    assert "there is neither fusermount3 nor fusermount (mode 2); " in done.stderr
    assert done.stderr.count("\n") == 1
    done = here.run("cvmfsexec", ONE, "--", "true", inside=STRICT_DEVICE)
    assert done.returncode == 4
    assert "failed to open /dev/fuse: Permission denied (mode 2); " in done.stderr
    assert "chmod 666 /dev/fuse" in done.stderr
    assert left_behind(here) == []


@needs_elsewhere
def test_where_only_the_helper_works_mountrepo_is_named_and_works(here: Site) -> None:
    done = here.run("cvmfsexec", ONE, "--", "true", inside=CHROOT)
    assert done.returncode == 4
    assert "mountrepo (mode 1) needs no namespaces" in done.stderr
    script = '"$1/mountrepo" "$2" && cat "$3/hello" && "$1/umountrepo" -a'
    root = str(Path(__file__).resolve().parents[2])
    words = ("/bin/sh", "-c", script, "sh", root, ONE, str(here.mountpoint(ONE)))
    done = here.run(*words, inside=CHROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ONE}Unmounting {ONE}\n"
