"""What the original, cvmfsexec 4.51, does wrong: each defect is a test that it fails.

Those that belong to a subject are tested there; ``ELSEWHERE`` says where.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.kernel import test_inside as inside
from tests.kernel import test_kill_matrix as kill_matrix
from tests.kernel import test_payload as payload
from tests.kernel import test_session_matrix as session_matrix
from tests.kernel import test_signals as signals
from tests.support.commands import give_to_ordinary_user
from tests.support.installs import Installation, host_with, installation
from tests.support.published import publish_tree, serve
from tests.support.sessions import Caller, skip_unless_possible

pytestmark = pytest.mark.kernel

ONE, TWO = "one.example.org", "two.example.org"
MISSING = "missing.example.org"
READ_BOTH = ("--", "cat", f"/cvmfs/{ONE}/who", f"/cvmfs/{TWO}/who")


class Published(NamedTuple):
    """Two repositories.

    Attributes:
        base_url: Of their server.
        key: Of both, PEM.
    """

    base_url: str
    key: bytes

    @contextmanager
    def installed(self, name: str = "install") -> Iterator[Installation]:
        with installation(self.base_url, self.key, name=name) as made:
            yield made


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    skip_unless_possible(Caller.ORDINARY)
    home = tmp_path_factory.mktemp("published")
    publish_tree(home, {"who": b"one\n"}, ONE)
    made = publish_tree(home, {"who": b"two\n"}, TWO)
    with serve(made.output) as base_url:
        yield Published(base_url, made.master_key_pem)


@pytest.fixture
def install(published: Published) -> Iterator[Installation]:
    with published.installed() as made:
        yield made
        assert made.leftovers() == []


def told(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def cvmfsexec(install: Installation, *words: str) -> tuple[int, str, str]:
    return told(install.run(*install.line("cvmfsexec", *words)))


def test_a_second_run_takes_nothing_from_the_first(install: Installation) -> None:
    """It removes the first one's root directory, with ``/usr``."""
    script = f"echo up; read -r _; ls -d /usr/bin && cat /cvmfs/{ONE}/who"
    line = install.line("cvmfsexec", ONE, "--", "sh", "-c", script)
    with install.started(*line) as first:
        assert first.process.stdout is not None
        assert first.process.stdout.readline() == "up\n"
        assert cvmfsexec(install, ONE, TWO, *READ_BOTH) == (0, "one\ntwo\n", "")
        assert first.process.communicate("\n") == ("/usr/bin\none\n", "")
        assert first.finish() == 0


@pytest.mark.parametrize("name", ["two words", "$(touch x) 'é\"", "-r *"])
def test_the_path_of_the_installation_is_not_looked_into(
    published: Published, name: str
) -> None:
    """A blank in it makes it remove ``/mnt``, the host's."""
    script = "mount -t tmpfs none /mnt && touch /mnt/precious && chmod 777 /mnt"
    with published.installed(name) as install, host_with(script) as host:
        line = install.line("cvmfsexec", ONE, TWO, *READ_BOTH)
        assert told(install.run(*line, host=host)) == (0, "one\ntwo\n", "")
        assert os.listdir(f"/proc/{host.anchor}/root/mnt") == ["precious"]
        assert install.leftovers() == []


@pytest.mark.parametrize(
    ("names", "status", "output"), [((ONE, TWO), 0, "one\ntwo\n"), ((MISSING,), 16, "")]
)
def test_a_read_only_installation_works(
    install: Installation, names: tuple[str, ...], status: int, output: str
) -> None:
    """It prints errors, runs the command without repositories, and returns 0."""
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    with host_with(script, str(install.directory)) as host:
        line = install.line("cvmfsexec", *names, *READ_BOTH)
        done = install.run(*line, host=host)
    assert (done.returncode, done.stdout) == (status, output)
    assert done.stderr.count("\n") == (1 if status else 0)


def test_the_users_directory_for_temporary_files_stays(install: Installation) -> None:
    """It replaces ``TMPDIR`` by a directory that it removes in the end."""
    script = 'echo "$TMPDIR"; echo result >"$(mktemp)"'
    temporary = str(install.temporary)
    line = install.line("cvmfsexec", ONE, "--", "sh", "-c", script)
    assert told(install.run(*line, TMPDIR=temporary)) == (0, f"{temporary}\n", "")
    (result,) = install.temporary.iterdir()
    assert result.read_text() == "result\n"
    result.unlink()


@pytest.mark.parametrize("option", ["-NN", "-N"])
def test_a_repeated_option_is_no_repository_and_hides_none(
    install: Installation, option: str
) -> None:
    """It counts options wrongly, and forgets the first repository."""
    assert cvmfsexec(install, option, ONE, TWO, *READ_BOTH) == (0, "one\ntwo\n", "")


def test_nothing_but_the_command_writes_to_standard_output(
    install: Installation,
) -> None:
    """It writes "CernVM-FS: mounted cvmfs on ..." there, for each repository."""
    script = f"$CVMFSMOUNT {TWO}; cat /cvmfs/*/who"
    done = cvmfsexec(install, ONE, "--", "sh", "-c", script)
    assert done == (0, "one\ntwo\n", "")


@pytest.fixture
def image(install: Installation) -> Path:
    """A scratch image of the ordinary user."""
    make = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if make is None or shutil.which("fuse2fs") is None:
        pytest.skip("mkfs.ext4 or fuse2fs is not installed")
    path = install.top / "image"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run((make, "-q", "-O", "^has_journal", path), check=True)
    give_to_ordinary_user(install.top)
    return path


@pytest.mark.parametrize("what", ["image", "fuse2fs"])
def test_a_scratch_image_that_cannot_be_mounted_ends_the_run(
    install: Installation, image: Path, what: str
) -> None:
    """It goes on, with its cache in a directory of the installation."""
    path = install.top / "bin"
    if what == "image":
        os.truncate(image, 0)
    else:
        path.mkdir()
        program = path / "fuse2fs"
        program.write_text("#!/bin/sh\necho no mount today >&2\nexit 1\n")
        program.chmod(0o755)
    line = install.line("cvmfsexec", "-m", str(image), ONE, "--", "echo", "ran")
    done = install.run(*line, PATH=f"{path}:/usr/bin:/bin")
    assert done.returncode == (2 if what == "image" else 4)
    assert done.stdout == ""
    assert done.stderr.startswith("cvmfsexec: the scratch image ")
    assert ("no mount today" in done.stderr) is (what == "fuse2fs")


def test_an_option_after_an_image_is_no_repository(
    install: Installation, image: Path
) -> None:
    """It mounts a repository named -N."""
    script = 'ls /cvmfs; echo "${CVMFSMOUNT-none}"'
    line = ("-m", str(image), "-N", ONE, "--", "sh", "-c", script)
    assert cvmfsexec(install, *line) == (0, f"{ONE}\nnone\n", "")


# -- subjects of other modules ---------------------------------------------------------

ELSEWHERE: list[tuple[str, Callable[..., object]]] = [
    (
        "the command ignores HUP, INT, QUIT and TERM",
        signals.test_payload_that_does_not_care_dies_of_it,
    ),
    (
        "signals are ignored that were not",
        payload.test_no_signal_is_ignored_that_was_not,
    ),
    (
        "TERM or KILL to the outer process leaves everything running",
        kill_matrix.test_nothing_is_left_when_one_is_killed,
    ),
    (
        "the same, in each mode and place",
        session_matrix.test_cell_ends_as_it_should_and_leaves_nothing,
    ),
    ("TMPDIR is replaced", payload.test_environment_arrives_as_it_was),
    (
        "$CVMFSMOUNT bad.repo returns 0 and leaves a directory",
        inside.test_what_cannot_be_mounted_leaves_nothing,
    ),
    ("a session in a session hangs without -N", inside.test_sessions_nest),
    (
        "a copy of standard input is left open in the command",
        inside.test_the_descriptor_is_the_only_one_that_the_payload_gets,
    ),
    (
        "-N leaves descriptors and variables",
        inside.test_without_an_interface_nothing_can_be_asked,
    ),
]


@pytest.mark.parametrize(("defect", "where"), ELSEWHERE)
def test_defect_is_tested_elsewhere(defect: str, where: Callable[..., object]) -> None:
    assert callable(where), defect
