"""What a payload finds around it: itself, its root, its mounts, its /proc."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sessions import (
    DRIVER,
    ORDINARY_UID,
    ROOT,
    Caller,
    Place,
    callers,
    environment,
    mount_table,
    places,
    run,
    started,
    wait_until,
    wrap,
)

SERVED = ("--service", "a.example.org=serve")


def uid_of(caller: Caller) -> int:
    if caller is Caller.ORDINARY and os.geteuid() == 0:
        return ORDINARY_UID
    return os.geteuid()


def output_of(*words: str, **settings: object) -> str:
    done = run(*words, **settings)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- identity ---------------------------------------------------------------------


@callers
@places
def test_payload_has_the_users_own_ids(caller: Caller, place: Place) -> None:
    told = output_of("sh", "-c", "id -u; id -g", caller=caller, place=place)
    number = str(uid_of(caller))
    if place is Place.MASKED_PROC and os.geteuid() != 0:
        number = "0"  # what "unshare -r" made of it outside
    assert told.split() == [number, number]


def test_payload_of_an_ordinary_user_has_no_capabilities() -> None:
    told = output_of("grep", "CapEff", "/proc/self/status")
    assert int(told.split()[1], 16) == 0


@callers
@pytest.mark.parametrize(
    "words",
    [
        "mount -t tmpfs none /mnt",
        "umount /cvmfs/a.example.org",
        "umount -l /cvmfs/a.example.org",
        "mount -o remount,rw /",
        "umount /proc",
        "mkdir /new",
        "mkdir /cvmfs/new",
        "touch /cvmfs/a.example.org/new",
    ],
)
def test_payload_cannot_change_what_it_was_given(words: str, caller: Caller) -> None:
    done = run("sh", "-c", f"{words} && echo done", options=SERVED, caller=caller)
    assert done.returncode != 0
    assert done.stdout == ""


@callers
@places
def test_payload_can_create_namespaces_of_its_own(caller: Caller, place: Place) -> None:
    script = "mount -t tmpfs none /mnt && ls /cvmfs/a.example.org && id -u"
    line = ("unshare", "-rm", "sh", "-c", script)
    assert output_of(*line, options=SERVED, caller=caller, place=place) == "0\n"


@callers
def test_payload_can_create_a_pid_namespace_of_its_own(caller: Caller) -> None:
    line = ("unshare", "-rmpf", "--mount-proc", "sh", "-c", "echo $$")
    assert output_of(*line, caller=caller) == "1\n"


@callers
@places
def test_session_runs_inside_a_session(caller: Caller, place: Place) -> None:
    inner = (*DRIVER, "--service", "b.example.org=serve", "--", "ls", "/cvmfs")
    told = output_of(*inner, options=SERVED, caller=caller, place=place)
    assert told == "b.example.org\n"


@callers
def test_session_runs_with_no_new_privileges(caller: Caller) -> None:
    line = wrap(("setpriv", "--no-new-privs", *DRIVER, "--", "true"), caller)
    subprocess.run(line, env=environment(), check=True, timeout=60)


# -- root -------------------------------------------------------------------------


@callers
@places
def test_root_shows_every_entry_of_the_host(caller: Caller, place: Place) -> None:
    told = output_of("ls", "-A", "/", caller=caller, place=place).split("\n")
    assert set(told) - {""} == set(os.listdir("/")) | {"cvmfs"}


def test_links_in_the_root_are_what_they_were() -> None:
    links = {name for name in os.listdir("/") if os.path.islink(f"/{name}")}
    for name in links:
        assert output_of("readlink", f"/{name}").rstrip("\n") == os.readlink(f"/{name}")


@pytest.mark.parametrize("mode", [0o000, 0o700])
@pytest.mark.parametrize("kind", ["directory", "file"])
def test_unreadable_entry_of_the_root_does_no_harm(kind: str, mode: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can put something into /")
    path = Path(f"/unreadable entry {os.getpid()}")
    path.mkdir() if kind == "directory" else path.touch()
    path.chmod(mode)
    try:
        told = output_of("stat", "-c", "%F %a", str(path))
    finally:
        path.rmdir() if kind == "directory" else path.unlink()
    words = "directory" if kind == "directory" else "regular empty file"
    assert told == f"{words} {mode:o}\n"


def test_root_is_in_order_whatever_the_umask() -> None:
    done = run("stat", "-c", "%a", "/", "/cvmfs", "/cvmfs/a.example.org",
               options=("--service", "a.example.org=idle"),
               preexec_fn=lambda: os.umask(0o077))  # fmt: skip
    assert done.stdout.split() == ["755", "755", "755"]


@callers
def test_root_works_where_the_host_cannot_pivot(caller: Caller) -> None:
    # As on a diskless node that runs from its initial ramfs.
    seccomp = (sys.executable, str(ROOT / "tests/support/seccomp.py"))
    script = "ls /cvmfs/a.example.org && ls -d /usr && touch /x 2>/dev/null || id -u"
    inner = (*DRIVER, *SERVED, "--", "unshare", "-r", "sh", "-c", script)
    line = wrap((*seccomp, "pivot_root", "EINVAL", "--", *inner), caller)
    done = subprocess.run(
        line, env=environment(), capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.stdout, done.stderr) == ("/usr\n0\n", "")


# -- mounts -----------------------------------------------------------------------


@callers
@places
def test_mount_table_has_one_line_for_each_repository(
    caller: Caller, place: Place
) -> None:
    options = (*SERVED, "--service", "b.example.org=serve")
    script = "grep cvmfs /proc/$$/mounts"
    told = output_of("sh", "-c", script, options=options, caller=caller, place=place)
    lines = [line.split()[:3] for line in sorted(told.splitlines())]
    assert lines == [
        ["cvmfs2", "/cvmfs/a.example.org", "fuse"],
        ["cvmfs2", "/cvmfs/b.example.org", "fuse"],
    ]
    assert all(" ro,nosuid,nodev," in line for line in told.splitlines())


@callers
@places
def test_no_mount_of_the_old_root_is_left_over(caller: Caller, place: Place) -> None:
    told = output_of("cat", "/proc/self/mounts", caller=caller, place=place)
    points = [line.split()[1] for line in told.splitlines()]
    assert points.count("/") == 1
    assert not [point for point in points if ".old" in point]


@callers
@places
def test_host_sees_nothing_of_a_session(caller: Caller, place: Place) -> None:
    before = mount_table()
    with started("sleep", "60", options=SERVED, caller=caller, place=place) as session:
        session.pid_of("sleep")
        assert mount_table() == before
    assert mount_table() == before


def test_mount_that_the_host_makes_later_appears() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount something outside")
    script = """
        mount -t tmpfs none /media && mkdir /media/home && mount --make-rshared /
        "$@" & sleep 0.3
        mount -t tmpfs none /media/home && touch /media/home/flag && wait $!
    """
    payload = (
        "for i in $(seq 200); do test -e /media/home/flag && exit 7; sleep .05; done"
    )
    inner = wrap((*DRIVER, "--", "sh", "-c", payload), Caller.ORDINARY)
    line = ("unshare", "-m", "sh", "-c", script, "sh", *inner)
    done = subprocess.run(line, env=environment(), check=False, timeout=60)
    assert done.returncode == 7


@pytest.mark.parametrize("cwd", ["with  two spaces", "ünï/cødé", "-dash", "new\nline"])
def test_working_directory_is_the_callers(tmp_path: Path, cwd: str) -> None:
    directory = tmp_path / cwd
    directory.mkdir(parents=True)
    for parent in (directory, *directory.parents):
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    told = output_of("pwd", "-P", cwd=directory)
    assert told == f"{directory}\n"


def test_working_directory_that_is_hidden_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    script = "import sys; from tests.support.session_command import *;" + (
        "sys.exit(main(['--', 'true']))"
    )
    code = f"import os; os.getcwd = lambda: '/nowhere/at/all'; {script}"
    line = wrap((sys.executable, "-c", code), Caller.ORDINARY)
    done = subprocess.run(
        line, env=environment(), capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 4
    assert "cannot enter /nowhere/at/all inside the session" in done.stderr


# -- /proc --------------------------------------------------------------------------


@callers
def test_proc_shows_the_session_only(caller: Caller) -> None:
    told = output_of("sh", "-c", "echo /proc/[0-9]*; echo $$", caller=caller)
    shown, own = told.splitlines()
    assert own == "2"
    assert set(shown.split()) == {"/proc/1", "/proc/2"}


@callers
def test_session_runs_where_there_may_be_no_pid_namespace(caller: Caller) -> None:
    script = 'echo 0 > /proc/sys/user/max_pid_namespaces && exec "$@"'
    outer = ("unshare", "-rm", "sh", "-c", script, "sh")
    line = wrap((*outer, *DRIVER, *SERVED, "--", "ls", "/cvmfs"), caller)
    done = subprocess.run(
        line, env=environment(), capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.stdout, done.stderr) == ("a.example.org\n", "")


@callers
def test_masked_proc_is_kept_and_payload_finds_itself_there(caller: Caller) -> None:
    script = 'test "$(readlink /proc/self)" != "" && cat /proc/$$/comm; echo $PPID'
    told = output_of("sh", "-c", script, caller=caller, place=Place.MASKED_PROC)
    name, parent = told.split()
    assert name == "sh"
    assert int(parent) > 2  # not PID 1 of a namespace


# -- services ---------------------------------------------------------------------


def test_service_waits_for_those_that_it_comes_after() -> None:
    options = ("--service", "config.org=idle", "--service", "a.org=serve,config.org")
    assert output_of("ls", "/cvmfs", options=options) == "a.org\nconfig.org\n"


@callers
@places
def test_session_goes_on_without_a_service_that_it_can_do_without(
    caller: Caller, place: Place
) -> None:
    services = ("config.org=absent", "a.org=lonely,config.org", "b.org=serve")
    options = tuple(word for one in services for word in ("--service", one))
    done = run("echo", "on", options=options, caller=caller, place=place)
    assert (done.stdout, done.stderr, done.returncode) == ("on\n", "", 0)


def test_service_learns_that_those_that_it_comes_after_are_there() -> None:
    options = ("--service", "config.org=idle", "--service", "a.org=lonely,config.org")
    done = run("echo", "never", options=options)
    assert "a.org is not alone" in done.stderr
    assert done.stdout == ""


def test_services_have_no_terminal_streams_and_no_directory_of_the_user() -> None:
    with started("sleep", "60", options=SERVED) as session:
        session.pid_of("sleep")
        for name in ("cvmfs:a.example", "cvmfsexec-init"):
            pid = session.pid_of(name)
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
            for number in (0, 1):
                held = os.stat(f"/proc/{pid}/fd/{number}")
                assert held.st_rdev == os.stat(os.devnull).st_rdev


def test_mount_is_there_before_the_payload_and_only_if_all_are_ready() -> None:
    options = (*SERVED, "--service", "b.org=hang")
    with started("touch", "/tmp/never", options=options) as session:
        session.pid_of("cvmfs:a.example")
        pid = session.pid_of("cvmfs:b.org")
        table = Path(f"/proc/{pid}/mounts")
        wait_until(lambda: "cvmfs2" in table.read_text(), "a.example.org is mounted")
        assert session.process.poll() is None
    assert not Path("/tmp/never").exists()


@callers
@places
@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        ("refuse", 9, "ServiceFailedError: no way to b.org (walk)"),
        ("raise", 6, "ServiceFailedError: no cache for b.org (buy one)"),
        ("crash", 6, "ZeroDivisionError"),
        ("crash", 6, "SessionError: the file server of b.org ended with status 1"),
        ("leave", 6, "SessionError: the file server of b.org ended with status 3"),
    ],
)
def test_service_that_cannot_start_ends_the_session_in_its_words(
    behaviour: str, status: int, words: str, caller: Caller, place: Place
) -> None:
    options = (*SERVED, "--service", f"b.org={behaviour}")
    done = run("echo", "never", options=options, caller=caller, place=place)
    assert done.returncode == status
    assert words in done.stderr
    assert done.stdout == ""


# -- refusals ---------------------------------------------------------------------


def refused(line: tuple[str, ...]) -> str:
    """Return what a session says that cannot be."""
    done = subprocess.run(
        line, env=environment(), capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 4, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@callers
def test_forbidden_unshare_is_explained(caller: Caller) -> None:
    seccomp = (sys.executable, str(ROOT / "tests/support/seccomp.py"))
    inner = (*seccomp, "unshare", "EPERM", "--", *DRIVER, "--", "true")
    told = refused(wrap(inner, caller))
    assert "cannot create namespaces for the session: Operation not permitted" in told
    assert "seccomp" in told


@callers
def test_forbidden_mount_is_explained(caller: Caller) -> None:
    seccomp = (sys.executable, str(ROOT / "tests/support/seccomp.py"))
    inner = (*seccomp, "mount", "EPERM", "--", *DRIVER, "--", "true")
    assert "security profile" in refused(wrap(inner, caller))


@callers
def test_limit_of_user_namespaces_is_explained(caller: Caller) -> None:
    script = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    outer = ("unshare", "-rm", "sh", "-c", script, "sh")
    told = refused(wrap((*outer, *DRIVER, "--", "true"), caller))
    assert "sysctl -w user.max_user_namespaces=15000" in told


def run_limited(option: str, limit: int) -> subprocess.CompletedProcess[str]:
    """Run a session below a limit of the shell's ``ulimit``."""
    script = f'ulimit {option} {limit} && exec "$@"'
    words = ("bash", "-c", script, "bash", *DRIVER, *SERVED, "--", "true")
    return subprocess.run(
        wrap(words, Caller.ORDINARY),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("processes", range(1, 6))
def test_limit_of_processes_is_explained(processes: int) -> None:
    done = run_limited("-u", processes)
    if done.returncode == 0:
        assert processes > 1
    else:
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == (
            "NamespaceError: cannot run the session: Resource temporarily unavailable "
            "(the limit of processes is reached (ulimit -u, or the job's cgroup))\n"
        )


@pytest.mark.parametrize("files", range(6, 20))
def test_limit_of_open_files_is_explained(files: int) -> None:
    done = run_limited("-n", files)
    if done.returncode != 0:
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == (
            "NamespaceError: cannot run the session: Too many open files "
            "(the limit of open files is reached (ulimit -n))\n"
        )


def test_missing_proc_is_explained() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can hide /proc")
    script = 'mount -t tmpfs none /proc && exec "$@"'
    inner = wrap((*DRIVER, "--", "true"), Caller.ORDINARY)
    complaint = refused(("unshare", "-m", "sh", "-c", script, "sh", *inner))
    assert complaint.startswith(
        "NamespaceError: cannot use /proc/self/fd: No such file or directory"
    )


def test_chroot_is_explained() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can change its root directory")
    script = 'mount --rbind / /media && exec chroot /media "$@"'
    line = ("unshare", "-m", "sh", "-c", script, "sh", *DRIVER, "--", "true")
    assert "chroot" in refused(line)


def test_fuse_device_that_may_not_be_used_is_explained() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can hide the device")
    script = """
        mount -t tmpfs -o mode=755 none /media && mknod -m 600 /media/fuse c 10 229 &&
        mount --bind /media/fuse /dev/fuse && exec "$@"
    """
    inner = wrap((*DRIVER, *SERVED, "--", "true"), Caller.ORDINARY)
    line = ("unshare", "-m", "sh", "-c", script, "sh", *inner)
    done = subprocess.run(
        line, env=environment(), capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 4
    assert "cannot open /dev/fuse: Permission denied" in done.stderr
    assert "chmod 666 /dev/fuse" in done.stderr
