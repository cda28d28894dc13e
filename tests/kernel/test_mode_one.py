"""mountrepo and umountrepo, with the real helper: mounts of the host that stay."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.namespaces.fusermount import find_helper
from tests.support.commands import client_dist, give_to_ordinary_user
from tests.support.host_mounts import (
    CONFIG,
    DIST_NAME,
    REPOSITORIES,
    Site,
    configure,
    kill,
)
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Caller, callers, wait_until, wrap

pytestmark = pytest.mark.kernel

ONE, TWO, THREE = REPOSITORIES
KEEPER = "cvmfs-keeper"


def mount(here: Site, *words: str, caller: Caller = Caller.ORDINARY) -> None:
    done = here.run("mountrepo", *words, caller=caller)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def as_user(*words: str) -> str:
    """Run as the ordinary user, for whom alone the mounts are."""
    done = subprocess.run(
        wrap(words, Caller.ORDINARY), capture_output=True, text=True, check=False
    )
    return done.stdout or done.stderr


def hello(path: Path) -> str:
    return as_user("cat", str(path / "hello"))


@callers
def test_a_mount_appears_below_the_dist_and_goes_again(
    here: Site, caller: Caller
) -> None:
    mountpoint = here.mountpoint(ONE)
    mount(here, ONE, caller=caller)
    (line,) = here.mounts()
    assert (line.mountpoint, line.fstype, line.source) == (
        str(mountpoint),
        "fuse",
        "/dev/fuse",
    )
    assert {"ro", "nosuid", "nodev"} <= set(line.options)
    assert "allow_other" not in line.super_options
    if caller is Caller.ORDINARY:
        assert hello(mountpoint) == ONE
    done = here.run("umountrepo", ONE, caller=caller)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Unmounting {ONE}\n", "")
    assert not here.mounts()
    assert not mountpoint.exists()
    assert not here.pids(f"cvmfs:{ONE}"[:15])
    wait_until(lambda: not here.has_process(), "the keeper has nothing to keep")


def test_the_file_server_is_nobodys(here: Site) -> None:
    reading, writing = os.pipe()
    line, environment = here.command("mountrepo", ONE)
    subprocess.run(
        line, env=environment, check=True, cwd=here.temporary, pass_fds=[writing]
    )
    os.close(writing)
    assert os.read(reading, 1) == b""  # the daemon does not hold it open
    os.close(reading)
    for pid in (here.server_pid(ONE), *here.pids(KEEPER)):
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        streams = [os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)]
        assert streams == ["/dev/null"] * 3
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        group, process_session, terminal = map(int, status[2:5])
        assert terminal == 0
        assert os.getsid(0) != process_session
        assert os.getpgrp() != group


def test_callers_may_ignore_the_ends_of_children(here: Site) -> None:
    inside = ("sh", "-c", 'trap "" CHLD; exec "$@"', "sh")
    done = here.run("mountrepo", ONE, inside=inside)
    assert (done.returncode, done.stderr) == (0, "")
    done = here.run("mountrepo", "missing.example.org", inside=inside)
    assert done.returncode == 16
    with subprocess.Popen(
        wrap_in_directory(here, ONE), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"in\n"
        assert here.run("umountrepo", ONE, inside=inside).returncode == 32
        user.communicate(b"\n")
    assert here.run("umountrepo", ONE, inside=inside).returncode == 0


def test_what_is_mounted_already_is_no_error(here: Site) -> None:
    mount(here, ONE)
    served_by = here.server_pid(ONE)
    mount(here, ONE)
    assert len(here.mounts()) == 1
    assert here.server_pid(ONE) == served_by


def test_of_many_at_once_one_mounts_and_all_succeed(here: Site) -> None:
    line, environment = here.command("mountrepo", ONE)
    started = [
        subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    said = [process.communicate()[1] for process in started]
    assert said == [""] * 5
    assert [process.returncode for process in started] == [0] * 5
    assert len(here.mounts()) == 1
    here.server_pid(ONE)


def test_configuration_repository_comes_first_and_goes_last(here: Site) -> None:
    configure(here.dist)
    for fqrn in REPOSITORIES:
        mount(here, fqrn)
    names = [os.path.basename(one.mountpoint) for one in here.mounts()]
    assert names == [CONFIG, *REPOSITORIES]
    assert as_user("readlink", str(here.mountpoint(ONE) / "which")) == CONFIG + "\n"
    done = here.run("umountrepo", "-a")
    assert done.returncode == 0
    assert done.stdout.split("\n") == [
        *(f"Unmounting {fqrn}" for fqrn in (THREE, TWO, ONE, CONFIG)),
        "",
    ]
    assert not here.mounts()


def test_a_lost_configuration_repository_is_a_warning(here: Site) -> None:
    configure(here.dist)
    shutil.rmtree(here.dist / "var/lib/cvmfs" / CONFIG, ignore_errors=True)
    (here.dist / "etc/cvmfs/config.d").mkdir(exist_ok=True)
    lost = here.dist / f"etc/cvmfs/config.d/{CONFIG}.conf"
    lost.write_text("CVMFS_SERVER_URL=http://127.0.0.1:1/@fqrn@\n")
    done = here.run("mountrepo", ONE)
    assert done.returncode == 0
    assert "going on without the configuration repository" in done.stderr
    assert [one.mountpoint for one in here.mounts()] == [str(here.mountpoint(ONE))]


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name
)
def test_a_killed_file_server_leaves_no_mount(
    here: Site, number: signal.Signals
) -> None:
    mount(here, ONE)
    mount(here, TWO)
    os.kill(here.server_pid(ONE), number)
    wait_until(lambda: len(here.mounts()) == 1, "the keeper has unmounted")
    assert hello(here.mountpoint(TWO)) == TWO


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1], ids=lambda n: n.name
)
def test_other_signals_do_not_end_it(here: Site, number: signal.Signals) -> None:
    mount(here, ONE)
    os.kill(here.server_pid(ONE), number)
    (keeper,) = here.pids(KEEPER)
    os.kill(keeper, number)
    assert hello(here.mountpoint(ONE)) == ONE
    assert here.pids(KEEPER) == [keeper]


def kill_all_of(here: Site, fqrn: str) -> None:
    """Do as a batch system that ends a cgroup; leave a dead mount."""
    pids = (*here.pids(KEEPER), here.server_pid(fqrn))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # or the keeper might be quicker
    kill(*pids)
    wait_until(lambda: not here.has_process(), "all are dead")
    # What was asked while it died gets the other answer.
    told = hello(here.mountpoint(fqrn))
    assert "not connected" in told or "connection abort" in told


def test_a_dead_mount_is_healed_by_the_next_mount(here: Site) -> None:
    mount(here, ONE)
    kill_all_of(here, ONE)
    mount(here, ONE)
    assert len(here.mounts()) == 1
    assert hello(here.mountpoint(ONE)) == ONE


def test_a_dead_mount_can_be_unmounted(here: Site) -> None:
    mount(here, ONE)
    kill_all_of(here, ONE)
    assert here.run("umountrepo", ONE).returncode == 0
    assert not here.mounts()


@contextlib.contextmanager
def stopped_server(here: Site) -> Iterator[None]:
    """Have a mount whose file server does not answer."""
    mount(here, ONE)
    pid = here.server_pid(ONE)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("options", [(), ("-z",)], ids=["at once", "lazily"])
def test_a_hung_file_server_holds_up_no_unmount(
    here: Site, options: tuple[str, ...]
) -> None:
    with stopped_server(here):
        done = here.run("umountrepo", *options, ONE)
        assert (done.returncode, done.stderr) == (0, "")
        assert not here.mounts()
    wait_until(lambda: not here.has_process(), "it ends when it goes on")


def test_what_hangs_is_not_mounted_again_but_told_of(here: Site) -> None:
    with stopped_server(here):
        done = here.run("mountrepo", ONE)
        assert (done.returncode, done.stdout) == (4, "")
        assert "is mounted, but its file server does not answer" in done.stderr
        assert "umountrepo -z" in done.stderr
        mount(here, TWO)
        told = here.run("cvmfs", "doctor").stdout
        assert f"the file server of {here.mountpoint(ONE)} does not answer" in told
        done = here.run("cvmfs", "status", ONE)
        assert "no answer for" in done.stderr
    assert hello(here.mountpoint(ONE)) == ONE


def test_a_repository_that_cannot_be_mounted_leaves_nothing(here: Site) -> None:
    done = here.run("mountrepo", "missing.example.org")
    assert done.returncode == 16
    assert done.stdout == ""
    assert done.stderr.startswith("mountrepo: missing.example.org: ")
    assert done.stderr.count("\n") == 1
    assert not here.mounts()
    wait_until(lambda: not here.has_process(), "no process is left")


def test_messages_of_a_file_server_are_kept_in_the_log(
    here: Site, tmp_path: Path
) -> None:
    repository = publish_tree(tmp_path, {"hello": b"content"})
    repository.spoil_files()
    with (
        serve(repository.output) as base_url,
        client_dist(base_url, repository.master_key_pem) as dist,
    ):
        mount(here, "--dist", str(dist), FQRN)
        try:
            assert "Input/output error" in hello(dist / "cvmfs" / FQRN)
            kept = (dist.parent / "log" / f"{FQRN}.log").read_text()
        finally:
            here.run("umountrepo", "--dist", str(dist), "-a")
    assert f" ERROR {FQRN}: " in kept


def test_the_helper_says_why(here: Site) -> None:
    if "\nuser_allow_other" in Path("/etc/fuse.conf").read_text():
        pytest.skip("only root may not allow others here")
    done = here.run("mountrepo", "--allow-other", ONE)
    assert done.returncode == 4
    assert done.stdout == ""
    assert "option allow_other only allowed if 'user_allow_other' is set" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_rights_the_helper_is_looked_at(here: Site) -> None:
    line, environment = here.command("mountrepo", ONE)
    if line[0] != "setpriv":
        line = ("setpriv", *line)
    line = (line[0], "--no-new-privs", *line[1:])
    done = subprocess.run(
        line, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "set-uid programs have no effect here (no_new_privs)" in done.stderr


@pytest.mark.parametrize("has_helper", [True, False])
def test_root_of_a_user_namespace_can_mount_there(
    here: Site, *, has_helper: bool
) -> None:
    hide = "" if has_helper else f"mount --bind /dev/null {find_helper('')}; "
    script = (
        f'{hide}"$1/mountrepo" "$2" && cat "$3/hello" && '
        'grep -c "$4.* /dev/fuse " /proc/self/mountinfo && "$1/umountrepo" "$2"'
    )
    words = (str(ROOT), ONE, str(here.mountpoint(ONE)), here.dist.parent.name)
    done = here.run("/usr/bin/unshare", "-rm", "sh", "-c", script, "sh", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ONE}1\nUnmounting {ONE}\n"


def test_what_is_not_mounted_cannot_be_unmounted(here: Site) -> None:
    done = here.run("umountrepo", ONE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{ONE} not mounted\n"
    assert here.run("umountrepo", "-a").returncode == 0


def test_a_repository_in_use_stays_unless_lazily(here: Site) -> None:
    mount(here, ONE)
    mount(here, TWO)
    line = wrap_in_directory(here, ONE)
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"in\n"
        done = here.run("umountrepo", "-a")
        assert done.returncode == 32
        assert f"{here.mountpoint(ONE)} is in use" in done.stderr
        assert [one.mountpoint for one in here.mounts()] == [str(here.mountpoint(ONE))]
        done = here.run("umountrepo", "-z", ONE)
        assert (done.returncode, done.stdout) == (0, f"Lazily unmounting {ONE}\n")
        assert not here.mounts()
        mount(here, ONE)  # a new one, while the old one is still in use
        rest = user.communicate(b"\n")[0]
        assert rest == ONE.encode()
    assert hello(here.mountpoint(ONE)) == ONE


def wrap_in_directory(here: Site, fqrn: str) -> tuple[str, ...]:
    """Return a command that sits in a repository until its input says go on."""
    script = f"cd '{here.mountpoint(fqrn)}' && echo in && read -r _ && cat hello"
    return wrap(("sh", "-c", script), Caller.ORDINARY)


def test_mounts_of_another_dist_are_left_alone(here: Site) -> None:
    with client_dist(here.base_url, here.master_key, name=DIST_NAME + "2") as other:
        # Beside the first one, so that one path begins like the other.
        beside = here.dist.parent / (DIST_NAME + "2")
        os.rename(other, beside)
        try:
            mount(here, ONE)
            mount(here, "--dist", str(beside), ONE)
            assert here.run("umountrepo", "-a").returncode == 0
            (left,) = here.mounts()
            assert left.mountpoint == str(beside / "cvmfs" / ONE)
            assert here.run("umountrepo", "--dist", str(beside), "-a").returncode == 0
        finally:
            here.clean()
            os.rename(beside, other)


def test_a_read_only_dist_is_mounted_at_a_place_of_the_user(here: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give the dist away")
    kept = {"HOME": "/nonexistent"}
    own = [here.dist, here.dist / "cvmfs"]
    own[1].mkdir(exist_ok=True)
    for directory in own:
        os.chown(directory, 0, 0)
    try:
        done = here.run("mountrepo", ONE, environment=kept)
        assert done.returncode == 0
        (line,) = here.mounts()
        assert line.is_below(str(here.temporary))
        assert f"{here.dist} cannot be written: mounting below " in done.stderr
        assert hello(Path(line.mountpoint)) == ONE
        assert here.run("umountrepo", "-a", environment=kept).returncode == 0
        assert not here.mounts()
    finally:
        give_to_ordinary_user(here.dist)


def test_the_steps_of_glideinwms_find_what_they_look_for(here: Site) -> None:
    configure(here.dist)
    for fqrn in (CONFIG, ONE, TWO):
        mount(here, fqrn)
    # cvmfs_setup.sh: "df -h | grep -c /cvmfs" is the number of repositories and one.
    assert df_lines(here) == 3
    assert {str(here.mountpoint(fqrn)) for fqrn in (CONFIG, ONE, TWO)} <= set(findmnt())
    # cvmfs_umount.sh
    assert here.run("umountrepo", "-a").returncode == 0
    assert not any(one.startswith(str(here.dist)) for one in findmnt())


def df_lines(here: Site) -> int:
    """Count as the pilot does, but only what is here: others may mount as well."""
    script = 'df -h 2>/dev/null | grep "$0" | grep -c /cvmfs || true'
    return int(as_user("sh", "-c", script, here.dist.parent.name))


def findmnt() -> list[str]:
    line = ("findmnt", "-n", "-r", "-t", "fuse", "-S", "/dev/fuse", "-o", "TARGET")
    said = subprocess.run(line, capture_output=True, check=False).stdout
    targets = said.decode("unicode_escape").encode("latin-1").decode()
    return targets.splitlines()
