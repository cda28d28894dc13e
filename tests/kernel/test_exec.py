"""``cvmfsexec`` from end to end on a repository of our own making."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import (
    SYSTEM_PYTHON,
    client_dist,
    give_to_ordinary_user,
    run_exec,
    started_exec,
)
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import mount_table, wait_until

TOP = f"/cvmfs/{FQRN}"
FILE_SERVER = f"cvmfs:{FQRN}"[:15]  # what ps shows
SECOND = "second.example.org"

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A dist for two published repositories, served as long as the module's tests."""
    home = tmp_path_factory.mktemp("published")
    tree = home / "tree"
    _write_software(tree)
    one = publish_tree(home, tree)
    two = publish_tree(home, {"who": b"second\n"}, SECOND)
    keys = (one.master_key_pem, two.master_key_pem)
    with serve(one.output) as base_url, client_dist(base_url, *keys) as made:
        yield made


def _write_software(tree: Path) -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "lib/package").mkdir(parents=True)
    shutil.copy(shutil.which("true") or "/bin/true", tree / "bin/true")
    shutil.copy(os.path.realpath(SYSTEM_PYTHON), tree / "bin/python3")
    (tree / "bin/hello").write_text("#!/bin/sh\necho hello from $0\n")
    (tree / "bin/hello").chmod(0o755)
    (tree / "bin/secret").write_text("#!/bin/sh\n")
    (tree / "bin/secret").chmod(0o600)
    (tree / "lib/package/__init__.py").write_text("VALUE = 42\n")
    (tree / "lib/program.c").write_text("int main(void) { return 7; }\n")
    (tree / "empty").touch()
    (tree / "link").symlink_to("bin/hello")
    (tree / "nested").mkdir()
    (tree / "nested/.cvmfscatalog").touch()
    for number in range(300):
        (tree / f"nested/file{number:03}").write_text(f"content {number}\n" * 100)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q", tree / "repository"], check=True)
    (tree / "repository/README").write_text("read me\n")
    subprocess.run([*git, "add", "README"], cwd=tree / "repository", check=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=tree / "repository", check=True)


def output(dist: Path, *words: str) -> str:
    done = run_exec(dist, FQRN, "--", *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def requests(dist_output: str) -> dict[str, int]:
    rows = (line.split(",") for line in dist_output.split())
    return {kind: int(count) for kind, count in rows}


def test_a_program_in_the_repository_runs(dist: Path) -> None:
    assert output(dist, f"{TOP}/link") == f"hello from {TOP}/link\n"


def test_binaries_are_executed_and_mapped_from_the_mount(dist: Path) -> None:
    script = "import sys; print(sys.version_info[0])"
    assert output(dist, f"{TOP}/bin/python3", "-I", "-c", script) == "3\n"
    assert output(dist, f"{TOP}/bin/true") == ""


def test_python_imports_from_the_mount(dist: Path) -> None:
    script = f"import sys; sys.path.insert(0, '{TOP}/lib'); import package"
    told = output(dist, SYSTEM_PYTHON, "-I", "-c", f"{script}; print(package.VALUE)")
    assert told == "42\n"


def test_git_clones_from_the_mount(dist: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    script = (
        f"export HOME=$(mktemp -d) && git clone -q {TOP}/repository $HOME/c "
        "&& cat $HOME/c/README; rm -rf $HOME"
    )
    assert output(dist, "sh", "-c", script) == "read me\n"
    assert not clone.exists()


def test_gcc_compiles_from_the_mount(dist: Path) -> None:
    script = f"f=$(mktemp) && gcc -o $f {TOP}/lib/program.c && $f; r=$?; rm $f; exit $r"
    assert run_exec(dist, FQRN, "--", "sh", "-c", script).returncode == 7


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (f": > {TOP}/new", "Read-only file system"),
        (f"echo x >> {TOP}/bin/hello", "Read-only file system"),
        (f"rm {TOP}/empty", "Read-only file system"),
        (f"mkdir {TOP}/d", "Read-only file system"),
        (f"mv {TOP}/empty {TOP}/full", "Read-only file system"),
        (f"chmod 777 {TOP}/empty", "Read-only file system"),
        (f"ln {TOP}/empty {TOP}/again", "Read-only file system"),
        (f"touch {TOP}/empty", "Read-only file system"),
        (f"cat {TOP}/nothing", "No such file"),
        (f"{TOP}/bin/secret", "Permission denied"),
        ("mkdir /cvmfs/d", "Read-only file system"),
        ("touch /new", "Read-only file system"),
    ],
)
def test_what_cannot_be_done_says_why(dist: Path, script: str, complaint: str) -> None:
    done = run_exec(dist, FQRN, "--", "sh", "-c", f"{script} && exit 9")
    assert done.returncode not in (0, 9)
    assert complaint in done.stderr


def test_a_second_walk_and_a_second_tar_ask_us_nothing(dist: Path) -> None:
    script = (
        f"exec 2>/dev/null; walk() {{ find {TOP} -printf '%s\\n';"
        f" tar cf - -C {TOP} . | cat; }} >/dev/null;"
        f"tell() {{ getfattr -n user.fuse_requests --only-values {TOP}; }};"
        "walk; tell; echo .; walk; tell"
    )
    first, second = output(dist, "sh", "-c", script).split(".\n")
    before, after = requests(first), requests(second)
    # What asks is a request itself, and find and tar ask for the kind of file system.
    unavoidable = {"GETXATTR", "STATFS"}
    new = {kind: after[kind] - before.get(kind, 0) for kind in after}
    # On a busy machine the kernel lets go of a page of hundreds now and then.
    assert new.pop("READ") <= before["READ"] / 100
    assert {kind for kind, count in new.items() if count} <= unavoidable
    assert before["READDIRPLUS"] > 0
    assert before.get("OPEN", 0) <= 1


def test_ls_asks_for_labels_once_not_for_each_file(dist: Path) -> None:
    tell = f"getfattr -n user.fuse_requests --only-values {TOP} 2>/dev/null"
    told = output(dist, "sh", "-c", f"ls -lR {TOP} >/dev/null; {tell}")
    assert requests(told)["GETXATTR"] < 20


def test_two_repositories_are_mounted_side_by_side(dist: Path) -> None:
    script = f"cat /cvmfs/{SECOND}/who; ls /cvmfs; grep -c ' /cvmfs' /proc/mounts"
    done = run_exec(dist, FQRN, SECOND, FQRN, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    told = done.stdout.split()
    assert told[0] == "second"
    assert sorted(told[1:3]) == [SECOND, FQRN]
    # One line for each; /cvmfs itself belongs to the private root.
    assert told[3] == "2"


def test_the_mount_table_shows_what_pilots_look_for(dist: Path) -> None:
    line = output(dist, "grep", f" {TOP} ", "/proc/mounts").split()
    assert line[:3] == ["cvmfs2", TOP, "fuse"]
    assert "ro" in line[3].split(",")
    assert output(dist, "df", TOP).count("cvmfs2") == 1


def test_a_file_server_has_no_privileges(dist: Path) -> None:
    pid = f"$(getfattr -n user.pid --only-values {TOP} 2>/dev/null)"
    told = output(dist, "sh", "-c", f"grep Cap /proc/{pid}/status")
    sets = dict(line.split(":\t") for line in told.splitlines())
    assert {sets[name] for name in ("CapEff", "CapPrm", "CapInh")} == {"0" * 16}


def test_many_sessions_start_at_once_from_one_read_only_dist(dist: Path) -> None:
    cache = dist / "var/lib/cvmfs"
    shutil.rmtree(cache, ignore_errors=True)
    words = (FQRN, "--", "sh", "-c", f"cat {TOP}/nested/* | md5sum")
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: run_exec(dist, *words), range(16)))
    assert {done.returncode for done in runs} == {0}, [r.stderr for r in runs]
    assert len({done.stdout for done in runs}) == 1
    assert not list((cache / FQRN / "txn").glob("*"))


def test_another_session_is_not_disturbed_when_one_is_killed(dist: Path) -> None:
    wait = f"cat {TOP}/link >/dev/null; echo up; sleep 60"
    survivor = (FQRN, "--", "sh", "-c", f"echo up; sleep 2; {TOP}/link")
    with started_exec(dist, *survivor) as kept:
        assert kept.process.stdout is not None
        assert kept.process.stdout.readline() == "up\n"
        with started_exec(dist, FQRN, "--", "sh", "-c", wait) as killed:
            assert killed.process.stdout is not None
            assert killed.process.stdout.readline() == "up\n"
            killed.process.send_signal(signal.SIGKILL)
        assert kept.process.stdout.readline() == f"hello from {TOP}/link\n"
        assert kept.finish() == 0


def test_verbose_tells_what_is_used_and_debug_the_plan(dist: Path) -> None:
    quiet, verbose, debug = (
        run_exec(dist, *options, FQRN, "--", "echo", "payload")
        for options in ((), ("--verbose",), ("--debug",))
    )
    for done in (quiet, verbose, debug):
        assert (done.returncode, done.stdout) == (0, "payload\n")
    assert quiet.stderr == ""
    assert f"{FQRN}: revision 1 is mounted; server http://127.0.0.1" in verbose.stderr
    assert f"{dist}/etc/cvmfs" in verbose.stderr
    assert "plan:" not in verbose.stderr
    assert "plan: make the new root read-only" in debug.stderr
    assert all(line.startswith("cvmfsexec: ") for line in debug.stderr.splitlines())


def test_nothing_is_mounted_outside(dist: Path) -> None:
    before = mount_table()
    with started_exec(dist, FQRN, "--", "sh", "-c", "echo up; sleep 60") as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        assert mount_table() == before


def test_offline_a_warm_cache_is_enough(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {"file": b"kept\n", "other": b"never read\n"})
    key = repository.master_key_pem
    with client_dist("http://127.0.0.1:1", key) as dist:
        with serve(repository.output) as base_url:
            local = dist / "etc/cvmfs/default.local"
            away = local.read_text()
            local.write_text(away.replace("http://127.0.0.1:1", base_url))
            warm = run_exec(dist, FQRN, "--", "cat", f"{TOP}/file")
            assert (warm.returncode, warm.stderr) == (0, "")
        local.write_text(away)
        cold = run_exec(dist, FQRN, "--", "cat", f"{TOP}/file", f"{TOP}/other")
    assert cold.stdout == "kept\n"
    assert cold.returncode == 1
    assert "working offline" in cold.stderr
    assert "Input/output error" in cold.stderr
    log = dist.parent / "log" / f"{FQRN}.log"
    assert not log.exists()  # gone with the dist; what it held is tested elsewhere


def test_messages_of_a_file_server_are_kept_in_the_log(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {"file": b"content\n"})
    repository.spoil_files()
    with (
        serve(repository.output) as base_url,
        client_dist(base_url, repository.master_key_pem) as dist,
    ):
        done = run_exec(dist, FQRN, "--", "cat", f"{TOP}/file")
        log = (dist.parent / "log" / f"{FQRN}.log").read_text()
    assert done.returncode == 1
    assert "Input/output error" in done.stderr
    (line,) = [line for line in log.splitlines() if "gave EIO" in line]
    for part in (FQRN, "'/file'", "data/", "corrupt", base_url):
        assert part in line


def test_a_debug_log_has_everything_and_the_user_hears_nothing(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {"file": b"content\n"})
    with (
        serve(repository.output) as base_url,
        client_dist(base_url, repository.master_key_pem) as dist,
    ):
        path = dist.parent / "log/everything"
        with open(dist / "etc/cvmfs/default.local", "a", encoding="utf-8") as local:
            local.write(f"CVMFS_DEBUGLOG={path}\n")
        done = run_exec(dist, FQRN, "--", "cat", f"{TOP}/file")
        kept = path.read_text()
        (log,) = dist.parent.glob("log/*.log")
        events = log.read_text()
    assert (done.returncode, done.stdout, done.stderr) == (0, "content\n", "")
    assert " DEBUG " in kept
    assert "is mounted" in kept
    assert " DEBUG " not in events


def test_a_new_revision_is_seen_by_the_next_session(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {"file": b"one\n"})
    with (
        serve(repository.output) as base_url,
        client_dist(base_url, repository.master_key_pem) as dist,
    ):
        assert run_exec(dist, FQRN, "--", "cat", f"{TOP}/file").stdout == "one\n"
        publish_tree(tmp_path, {"file": b"two\n"}, now_s=int(time.time()) + 1)
        assert run_exec(dist, FQRN, "--", "cat", f"{TOP}/file").stdout == "two\n"


def test_read_only_install_uses_the_users_own_directory(tmp_path: Path) -> None:
    repository = publish_tree(tmp_path, {"file": b"content\n"})
    home = tmp_path / "home"
    home.mkdir()
    with (
        serve(repository.output) as base_url,
        client_dist(base_url, repository.master_key_pem) as dist,
    ):
        user_home = dist.parent / "home"
        user_home.mkdir()
        give_to_ordinary_user(user_home)
        for directory in (dist, dist / "etc", dist / "etc/cvmfs", dist.parent):
            directory.chmod(0o555)
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(user_home)}
        done = run_exec(dist, FQRN, "--", "cat", f"{TOP}/file", environment=environment)
        cached = list(user_home.rglob("cvmfschecksum.*"))
        dist.parent.chmod(0o755)
        for directory in (dist, dist / "etc", dist / "etc/cvmfs"):
            directory.chmod(0o755)
    assert (done.returncode, done.stdout, done.stderr) == (0, "content\n", "")
    assert cached


def test_the_session_ends_when_a_file_server_dies(dist: Path) -> None:
    with started_exec(dist, FQRN, "--", "sh", "-c", "echo up; sleep 60") as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        os.kill(session.pid_of(FILE_SERVER), signal.SIGKILL)
        assert session.finish() == 6
        wait_until(session.is_gone, "no process is left")
