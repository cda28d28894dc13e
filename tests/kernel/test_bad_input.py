"""Command lines, configurations, caches and machines that do not do: refused at once.

Each is a real session with the real command. Servers, documents and catalogs are in
``test_bad_documents`` and ``test_bad_content``.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.cli import exit_codes
from tests.support.commands import (
    COMMAND_PATIENCE_S,
    client_dist,
    give_to_ordinary_user,
    run_cvmfs,
    run_exec,
)
from tests.support.hostile_places import (
    PAYLOAD,
    TOP,
    Place,
    hostile_place,
    publish_victim,
    refuse,
    refuse_repository,
)
from tests.support.http_server import Status
from tests.support.published import FQRN, PublishedRepository, publish_tree
from tests.support.sessions import ORDINARY_UID, ROOT, Caller, skip_unless_possible

CONFIG_REPOSITORY = "config.example.org"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can forbid things")


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_victim(tmp_path_factory.mktemp("victim"))


@pytest.fixture
def place(victim: PublishedRepository) -> Iterator[Place]:
    with hostile_place(victim) as made:
        yield made


# Command lines


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "..", ".", "/etc", "a/b", "x" * 300, "", " ", "a b", "a\nb", "$HOME"),
        *("\udcff\udcfe.org", "ä.org", "a\x1b[31m.org", ".hidden.org", "a;b", "a..b"),
    ],
)
def test_a_name_that_no_repository_has(place: Place, name: str) -> None:
    sentence = refuse(place.dist, name, "--", *PAYLOAD, status=exit_codes.CONFIGURATION)
    assert "is not a repository name" in sentence
    assert sentence.endswith("a name looks like atlas.cern.ch")


@pytest.mark.parametrize(
    "words",
    [
        (),
        (FQRN,),
        (FQRN, *PAYLOAD),
        ("-x", FQRN, "--", *PAYLOAD),
        ("--nonsense", FQRN, "--", *PAYLOAD),
        (FQRN, "-N", "--", *PAYLOAD),
        ("-m", "--", *PAYLOAD),
        ("--mode", "--", *PAYLOAD),
        ("--mode=x", FQRN, "--", *PAYLOAD),
    ],
)
def test_words_that_make_no_sense(place: Place, words: tuple[str, ...]) -> None:
    done = run_exec(place.dist, *words)
    assert done.returncode == exit_codes.USAGE
    assert done.stdout == ""
    complaint, usage, joining = done.stderr.splitlines()
    assert complaint.startswith("cvmfsexec: ")
    assert usage.startswith("Usage: cvmfsexec ")
    assert joining.startswith("       cvmfsexec --join ")


def test_a_mode_of_another_command_is_named(place: Place) -> None:
    done = run_exec(place.dist, "--mode", "1", FQRN, "--", *PAYLOAD)
    assert (done.returncode, done.stdout) == (exit_codes.USAGE, "")
    assert "use mountrepo instead" in done.stderr


def test_a_missing_scratch_image_is_named(place: Place) -> None:
    sentence = refuse(
        place.dist,
        *("-m", "/no/image"),
        *(FQRN, "--", *PAYLOAD),
        status=exit_codes.CONFIGURATION,
    )
    assert "/no/image" in sentence


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ("/no/such/command", exit_codes.COMMAND_NOT_FOUND),
        ("no-such-command", exit_codes.COMMAND_NOT_FOUND),
        ("", exit_codes.COMMAND_NOT_FOUND),
        ("/etc", exit_codes.CANNOT_EXECUTE),
        (f"{TOP}/file", exit_codes.CANNOT_EXECUTE),
        (f"{TOP}/nothing", exit_codes.COMMAND_NOT_FOUND),
        ("x" * 300, exit_codes.COMMAND_NOT_FOUND),
    ],
)
def test_a_payload_that_cannot_be_run(place: Place, payload: str, status: int) -> None:
    sentence = refuse(place.dist, FQRN, "--", payload, status=status)
    assert payload[:20] in sentence


def test_a_short_name_without_a_default_domain(place: Place) -> None:
    sentence = refuse(
        place.dist, "atlas", "--", *PAYLOAD, status=exit_codes.CONFIGURATION
    )
    assert "CVMFS_DEFAULT_DOMAIN" in sentence


# Configurations


@pytest.mark.parametrize("dist", ["/nowhere", "", "/etc/passwd", "/proc/self/mem/x"])
def test_a_dist_that_is_not_there(dist: str) -> None:
    sentence = refuse(Path(dist), FQRN, "--", *PAYLOAD, status=2)
    assert "no configuration: there is no directory" in sentence
    assert "--dist" in sentence


def test_a_dist_without_any_file(place: Place) -> None:
    shutil.rmtree(place.dist / "etc/cvmfs")
    (place.dist / "etc/cvmfs").mkdir()
    sentence = refuse_repository(place, status=exit_codes.CONFIGURATION)
    assert f"unknown repository {FQRN}" in sentence
    assert "CVMFS_SERVER_URL" in sentence


@pytest.mark.parametrize(
    ("settings", "status", "reason"),
    [
        ({"CVMFS_SERVER_URL": ""}, 2, "unknown repository"),
        ({"CVMFS_SERVER_URL": ";;"}, 23, "CVMFS_SERVER_URL"),
        ({"CVMFS_SERVER_URL": "gopher://x/@fqrn@"}, 2, "not a server's URL"),
        ({"CVMFS_SERVER_URL": "http://x y/@fqrn@"}, 2, "not a server's URL"),
        ({"CVMFS_HTTP_PROXY": ""}, 2, "CVMFS_HTTP_PROXY required"),
        ({"CVMFS_HTTP_PROXY": "auto"}, 23, "CVMFS_HTTP_PROXY"),
        ({"CVMFS_HTTP_PROXY": "http://"}, 2, "CVMFS_HTTP_PROXY"),
        ({"CVMFS_HTTP_PROXY": "socks5://p:1"}, 2, "CVMFS_HTTP_PROXY"),
        ({"CVMFS_TIMEOUT": "soon"}, 2, "CVMFS_TIMEOUT"),
        ({"CVMFS_TIMEOUT": "-1"}, 2, "CVMFS_TIMEOUT"),
        ({"CVMFS_MAX_RETRIES": "9" * 30}, 2, "CVMFS_MAX_RETRIES"),
        ({"CVMFS_ROOT_HASH": "latest"}, 2, "CVMFS_ROOT_HASH"),
        ({"CVMFS_ROOT_HASH": "ab" * 20}, 16, "no server has data/ab/"),
        ({"CVMFS_REPOSITORY_DATE": "yesterday"}, 2, "a date looks like"),
        ({"CVMFS_REPOSITORY_DATE": "2001-01-01T00:00:00Z"}, 22, "cvmfs tags"),
        ({"CVMFS_REPOSITORY_TAG": "no such"}, 22, "has no tag 'no such'"),
        ({"CVMFS_MAGIC_XATTRS_VISIBILITY": "x"}, 2, "none of always, rootonly, never"),
        ({"CVMFS_PUBLIC_KEY": "/no/key.pub"}, 2, "cannot read master key"),
        ({"CVMFS_PUBLIC_KEY": "/etc/cvmfs/default.local"}, 2, "no RSA public key"),
        ({"CVMFS_KEYS_DIR": "/etc/cvmfs/default.local"}, 2, "cannot read the master"),
        ({"CVMFS_UID_MAP": "/no/map"}, 2, "CVMFS_UID_MAP"),
        ({"CVMFS_UID_MAP": "/etc/cvmfs/default.local"}, 2, "default.local"),
        ({"CVMFS_BLACKLIST": "/proc/self/mem"}, 2, "CVMFS_BLACKLIST"),
        ({"CVMFS_STRICT_MOUNT": "yes"}, 2, "add it to CVMFS_REPOSITORIES"),
        ({"CVMFS_ALIEN_CACHE": "/x", "CVMFS_QUOTA_LIMIT": "9"}, 9, "CVMFS_ALIEN_CACHE"),
        ({"CVMFS_CACHE_DIR": "/x", "CVMFS_CACHE_BASE": "/y"}, 9, "mutually exclusive"),
    ],
)
def test_a_parameter_that_makes_no_sense(
    victim: PublishedRepository, settings: dict[str, str], status: int, reason: str
) -> None:
    with hostile_place(victim, **settings) as place:
        sentence = refuse_repository(place, status=status)
    assert reason in sentence


@pytest.mark.parametrize(
    "text",
    [
        "CVMFS_TIMEOUT='5\n",
        "if true; then\nCVMFS_TIMEOUT=5\n",
        "CVMFS_TIMEOUT=$(exit 3) && exit 3\nCVMFS_X=1\n",
        ". /no/such/file\nCVMFS_TIMEOUT=5\n",
        "\0\0\0",
        "CVMFS_TIMEOUT=\udcff\n",
    ],
)
def test_a_configuration_file_that_is_none_does_no_harm(
    place: Place, text: str
) -> None:
    """As in the original, what a file of shell text does wrong is its own affair."""
    path = place.dist / "etc/cvmfs/default.conf"
    path.write_text(text, errors="surrogateescape")
    done = run_exec(place.dist, FQRN, "--", "cat", f"{TOP}/file")
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, exit_codes.CONFIGURATION), done.stderr
    if done.returncode:
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("cvmfsexec: ")
        assert done.stdout == ""


def test_a_configuration_that_cannot_be_read(place: Place) -> None:
    path = place.dist / "etc/cvmfs/default.local"
    path.chmod(0)
    sentence = refuse_repository(place, status=exit_codes.CONFIGURATION)
    assert str(path) in sentence


@pytest.fixture
def with_config_repository(
    tmp_path: Path, victim: PublishedRepository
) -> Iterator[Place]:
    """Yield a place whose servers come from a configuration repository."""
    domain = {"example.org.conf": b'CVMFS_SERVER_URL="$CVMFS_SERVER_URL"\n'}
    configuring = publish_tree(
        tmp_path,
        {"etc": {"cvmfs": {"default.conf": b"", "domain.d": domain}}},
        CONFIG_REPOSITORY,
    )
    with hostile_place(
        victim, victim.master_key_pem, configuring.master_key_pem
    ) as place:
        os.symlink(configuring.directory, place.repository.output / CONFIG_REPOSITORY)
        default_d = place.dist / "etc/cvmfs/default.d"
        default_d.mkdir()
        (default_d / "50.conf").write_text(
            f"CVMFS_CONFIG_REPOSITORY={CONFIG_REPOSITORY}\n"
        )
        yield place


def test_a_configuration_repository_that_works(with_config_repository: Place) -> None:
    done = with_config_repository.run("cat file; ls /cvmfs")
    assert done.stdout.split() == ["content", CONFIG_REPOSITORY, FQRN], done.stderr


def test_a_configuration_repository_that_cannot_be_had(
    with_config_repository: Place,
) -> None:
    place = with_config_repository
    place.server.misbehave(Status(404), CONFIG_REPOSITORY)
    done = place.run(f"cat file; ls -A /cvmfs/{CONFIG_REPOSITORY}")
    assert done.stdout == "content\n", done.stderr
    told = done.stderr.splitlines()
    assert told
    assert all(line.startswith("cvmfsexec: ") for line in told)
    assert any(CONFIG_REPOSITORY in line and "HTTP status 404" in line for line in told)
    assert any("going on without the configuration repository" in line for line in told)


def test_a_configuration_repository_that_must_be_had(
    with_config_repository: Place,
) -> None:
    place = with_config_repository
    place.configure(CVMFS_CONFIG_REPO_REQUIRED="yes")
    place.server.misbehave(Status(404), CONFIG_REPOSITORY)
    done = run_exec(place.dist, FQRN, "--", *PAYLOAD)
    assert done.returncode == exit_codes.CONFIGURATION
    assert done.stdout == ""
    assert "the required configuration repository" in done.stderr


# Caches


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("/proc/nowhere", "/proc/nowhere"),
        ("/etc/passwd", "/etc/passwd"),
        ("/dev/full", "/dev/full"),
    ],
)
def test_a_cache_that_cannot_be_made(place: Place, base: str, reason: str) -> None:
    place.configure(CVMFS_CACHE_BASE=base)
    sentence = refuse_repository(place, status=exit_codes.CACHE)
    assert reason in sentence


def test_a_cache_that_others_can_write(place: Place) -> None:
    cache = place.dist.parent / "caches" / FQRN
    cache.mkdir(parents=True)
    give_to_ordinary_user(cache.parent)
    cache.chmod(0o777)
    place.configure(CVMFS_CACHE_BASE=str(cache.parent))
    sentence = refuse_repository(place, status=exit_codes.CACHE)
    assert str(cache) in sentence


def test_a_breadcrumb_that_is_none_is_told_and_replaced(place: Place) -> None:
    assert place.run("cat file").stdout == "content\n"
    crumb = place.cache / f"cvmfschecksum.{FQRN}"
    crumb.write_bytes(b"\0" * 5000)
    done = place.run("cat file")
    assert (done.returncode, done.stdout) == (0, "content\n")
    assert done.stderr.count("\n") == 1
    assert "is damaged and is ignored" in done.stderr
    assert crumb.read_bytes().endswith(b"R1")


# Machines


def drop_root() -> tuple[str, ...]:
    """Return what runs the following words as an ordinary user."""
    uid = str(ORDINARY_UID)
    drop = ("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups")
    return drop if os.geteuid() == 0 else ()


def run_in(
    preparation: str, dist: Path, *words: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``cvmfsexec`` as an ordinary user on a machine that root has prepared.

    ``preparation`` is a shell script; it ends by running ``"$@"``.
    """
    skip_unless_possible(Caller.ORDINARY)
    line = ("unshare", "--mount", "sh", "-ec", preparation, "sh", *drop_root())
    return run_by(line, dist, *words, environment=environment)


def run_by(
    line: tuple[str, ...], dist: Path, *words: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``cvmfsexec`` by a command line that runs what follows it."""
    return subprocess.run(
        (*line, str(ROOT / "cvmfsexec"), "--dist", str(dist), *words),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment,
        timeout=COMMAND_PATIENCE_S,
    )


@as_root
@pytest.mark.parametrize(
    "preparation",
    [
        'mount --bind /dev/null /dev/fuse; exec "$@"',
        'touch /dev/shm/f; chmod 0 /dev/shm/f; mount --bind /dev/shm/f /dev/fuse; "$@"',
        'mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; exec "$@"',
    ],
    ids=["something else", "forbidden", "missing"],
)
def test_no_fuse_device(place: Place, preparation: str) -> None:
    sentence = refuse(
        place.dist,
        *(FQRN, "--", *PAYLOAD),
        status=exit_codes.MOUNT_FAILED,
        about=FQRN,
        run=functools.partial(run_in, preparation),
    )
    assert "/dev/fuse" in sentence
    Path("/dev/shm/f").unlink(missing_ok=True)


@as_root
def test_a_chroot_where_there_are_no_user_namespaces(
    place: Place, tmp_path: Path
) -> None:
    enter = 'PATH=$PATH:/usr/sbin:/sbin; exec chroot . "$@"'
    preparation = f"mount --rbind / {tmp_path}; cd {tmp_path}; {enter}"
    sentence = refuse(
        place.dist,
        *(FQRN, "--", *PAYLOAD),
        status=exit_codes.MOUNT_FAILED,
        run=functools.partial(run_in, preparation),
    )
    assert "a chroot or a security module forbids it" in sentence


def run_without_namespaces(
    dist: Path, *words: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``cvmfsexec`` in a user namespace in which there can be no other."""
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'
    line = ("unshare", "--user", "--map-root-user", "sh", "-ec", forbid, "sh")
    return run_by((*drop_root(), *line), dist, *words, environment=environment)


def test_user_namespaces_that_are_switched_off(victim: PublishedRepository) -> None:
    skip_unless_possible(Caller.ORDINARY)
    with client_dist("http://127.0.0.1:1", victim.master_key_pem) as dist:
        sentence = refuse(
            dist,
            *(FQRN, "--", *PAYLOAD),
            status=exit_codes.MOUNT_FAILED,
            run=run_without_namespaces,
        )
    assert "user namespaces are switched off here" in sentence
    assert "sysctl -w user.max_user_namespaces=15000" in sentence


@as_root
@pytest.mark.parametrize("script", ['exec "$@" <&-', 'exec "$@" 0>&- 1>&-'])
def test_closed_descriptors_are_no_reason_to_fail(place: Place, script: str) -> None:
    done = run_in(
        script,
        place.dist,
        *(FQRN, "--", "sh", "-c", f"test -e {TOP}/file"),
        environment={"PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stderr) == (0, "")


@as_root
def test_a_refusal_with_nobody_to_hear_it_has_its_status(place: Place) -> None:
    done = run_in(
        'exec "$@" 2>&-',
        place.dist,
        *("no/name", "--", *PAYLOAD),
        environment={"PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == exit_codes.CONFIGURATION


def test_few_descriptors_are_enough_or_it_is_told(place: Place) -> None:
    done = place.run("cat file other")
    assert done.returncode == 0
    for limit in (12, 16, 24, 40):
        words = (str(ROOT / "cvmfsexec"), "--dist", str(place.dist), FQRN, "--", "true")
        script = f'ulimit -n {limit}; exec "$@"'
        done = run_script(script, *words)
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode:
            assert done.stdout == ""
            assert done.stderr.startswith("cvmfsexec: ")
            assert done.stderr.count("\n") == 1


def run_script(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script with words as an ordinary user."""
    skip_unless_possible(Caller.ORDINARY)
    return subprocess.run(
        (*drop_root(), "sh", "-c", script, "sh", *words),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        timeout=COMMAND_PATIENCE_S,
    )


# The other command


@pytest.mark.parametrize(
    "words",
    [("ls", FQRN), ("cat", FQRN, "file"), ("verify", FQRN), ("tags", FQRN)],
)
def test_the_tool_refuses_in_one_sentence_too(
    place: Place, words: tuple[str, ...]
) -> None:
    place.server.stop()
    done = run_cvmfs(place.dist, *words)
    assert done.returncode == exit_codes.REPOSITORY
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"cvmfs: cannot download .cvmfspublished")


def test_nothing_of_the_users_is_left_behind(place: Place) -> None:
    give_to_ordinary_user(place.dist.parent)
    place.configure(CVMFS_SERVER_URL="http://127.0.0.1:1/@fqrn@")
    before = sorted(place.dist.parent.rglob("*"))
    refuse_repository(place, status=exit_codes.REPOSITORY)
    made = set(place.dist.parent.rglob("*")) - set(before)
    cache = place.dist / "var"
    assert all(path.is_relative_to(cache) for path in made)
    assert {path.name for path in made if path.is_file()} <= {"cvmfsexec.ledger"}
