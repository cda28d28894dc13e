"""The file that carries everything, sent along with jobs of a real Slurm."""

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.namespaces.mount_table import read_mount_table
from tests.support.published import FQRN
from tests.support.sessions import Caller, skip_unless_possible, wait_until
from tests.support.single_file import SingleFile, made_single_file
from tests.support.slurm import Cluster, cluster, give_to_user

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    skip_unless_possible(Caller.ORDINARY)
    top = Path(tempfile.mkdtemp(prefix="slurm-"))
    top.chmod(0o755)
    try:
        with cluster(top) as running:
            yield running
    finally:
        shutil.rmtree(top)


@pytest.fixture(scope="module")
def single(
    slurm: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SingleFile]:
    assert slurm.top.is_dir()
    with made_single_file(tmp_path_factory.mktemp("single")) as made:
        yield made


@pytest.fixture
def file(single: SingleFile, slurm: Cluster) -> Path:
    """A copy of it in a new directory of the user's."""
    place = Path(tempfile.mkdtemp(dir=slurm.top / "jobs"))
    file = shutil.copy(single.file, place / "cvmfsexec")
    give_to_user(place)
    return Path(file)


def test_a_step_reads_a_repository(slurm: Cluster, file: Path) -> None:
    words = (str(file), FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello")
    done = slurm.run("srun", *words)
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr


def test_a_file_that_comes_along_reads_a_repository(slurm: Cluster, file: Path) -> None:
    """``sbatch`` copies what it is given to the node's spool directory."""
    script = file.parent / "batch"
    script.write_text(
        f"#!/bin/sh\n#SBATCH --output={file.parent}/said\n"
        f'"{file}" {FQRN} -- cat /cvmfs/{FQRN}/hello\n'
    )
    script.chmod(0o755)
    done = slurm.run("sbatch", "--wait", str(script))
    assert done.returncode == 0, done.stderr + (file.parent / "said").read_text()
    assert (file.parent / "said").read_text() == "hello\n"


def test_tasks_that_start_at_once_unpack_once(slurm: Cluster, file: Path) -> None:
    words = ("srun", "-n2", "-O", "--overcommit", str(file))
    done = slurm.run(*words, FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello")
    assert (done.stdout, done.returncode) == ("hello\n" * 2, 0), done.stderr
    assert len(list((file.parent / ".cvmfsexec").glob("runtime-*"))) == 1


def test_the_status_of_a_job_is_that_of_its_command(slurm: Cluster, file: Path) -> None:
    assert (
        slurm.run("srun", str(file), FQRN, "--", "sh", "-c", "exit 7").returncode == 7
    )


def test_a_cancelled_job_is_asked_to_end_and_leaves_nothing(
    slurm: Cluster, file: Path
) -> None:
    script = file.parent / "batch"
    ready, ended = file.parent / "ready", file.parent / "ended"
    payload = (
        f"trap 'cat /cvmfs/{FQRN}/late >{ended}; exit 0' TERM; touch {ready}; "
        "while :; do sleep 0.05; done"
    )
    line = shlex.join((str(file), FQRN, "--", "sh", "-c", payload))
    script.write_text(f"#!/bin/sh\n#SBATCH --output=/dev/null\nexec {line}\n")
    script.chmod(0o755)
    number = slurm.run("sbatch", "--parsable", str(script)).stdout.strip()
    wait_until(ready.exists, "the job runs")
    slurm.run("scancel", "--batch", "--signal=TERM", number)
    wait_until(ended.exists, "the payload was asked")
    wait_until(lambda: ended.read_text() == "late\n", "it could read its checkpoint")
    wait_until(lambda: not slurm.run("squeue", "-h").stdout, "the job has ended")
    assert not [one for one in read_mount_table() if one.is_below(str(file.parent))]
