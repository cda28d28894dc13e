"""``makedist -s``: what it makes for containers, on machines without Python."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apptainer import system_archive
from tests.support.commands import (
    COMMAND_PATIENCE_S,
    client_dist,
    give_to_ordinary_user,
    plain_environment,
)
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Caller, wrap
from tests.support.single_file import in_bare_root

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that ``makedist -s -o`` makes, of a dist for one repository."""
    top = tmp_path_factory.mktemp("single")
    published = publish_tree(top, {"hello": b"hello\n"})
    with (
        serve(published.output) as base_url,
        client_dist(base_url, published.master_key_pem) as dist,
    ):
        file = dist.parent / "tmp/singcvmfs"
        done = make(dist, "-s", "-o", str(file))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        yield file


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return system_archive(tmp_path_factory.mktemp("system"))


def make(dist: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = (str(ROOT / "makedist"), "--dist", str(dist), *words)
    return subprocess.run(
        wrap(line, Caller.ORDINARY),
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=COMMAND_PATIENCE_S,
    )


def with_apptainer(
    system: Path, file: Path, script: str
) -> subprocess.CompletedProcess[str]:
    """Run a script where there is busybox and Apptainer; the file is ``cvmfsexec``."""
    return in_bare_root(file, script, f"--system={system}")


def test_a_dist_says_what_it_is_for() -> None:
    with tempfile.TemporaryDirectory(prefix="cvmfsexec-test-") as top:
        give_to_ordinary_user(Path(top))
        done = make(Path(top, "dist"), "-s", "none")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        written = Path(top, "dist/.cvmfsexecdist").read_text()
    assert "disttype: sing\n" in written


@pytest.mark.parametrize("place", ["host", "container"])
def test_containers_have_repositories_where_there_is_no_python(
    single: Path, system: Path, place: str
) -> None:
    script = (
        "! command -v python3 && mv cvmfsexec singcvmfs && "
        f"export SINGCVMFS_SERVER={place} SINGCVMFS_REPOSITORIES={FQRN} && "
        f"./singcvmfs exec /image cat /cvmfs/{FQRN}/hello && ls -A"
    )
    done = with_apptainer(system, single, script)
    assert done.stdout.split() == ["hello", ".singcvmfs", "singcvmfs"], done.stderr


def test_the_other_commands_are_unpacked_with_it(single: Path, system: Path) -> None:
    script = (
        f"./cvmfsexec -V >/dev/null && .singcvmfs/cvmfsexec {FQRN} -- "
        f"cat /cvmfs/{FQRN}/hello && .singcvmfs/cvmfs doctor --json"
    )
    done = with_apptainer(system, single, script)
    hello, _, rest = done.stdout.partition("\n")
    assert hello == "hello", done.stderr
    assert '"path": "/usr/bin/apptainer"' in rest
