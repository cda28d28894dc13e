"""Whatever is killed, with any signal: nothing of ours survives, nothing is left."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.client.talk_socket import remove_if_dead
from tests.support.commands import client_dist, started_exec
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import Place, mount_table, wait_until

pytestmark = pytest.mark.kernel

TOP = f"/cvmfs/{FQRN}"
INIT = "cvmfsexec-init"
FILE_SERVER = f"cvmfs:{FQRN}"[:15]
KILLED_STATUSES = {
    # Who is killed: what the caller of cvmfsexec may see.
    "supervisor": {-signal.SIGKILL},
    INIT: {6},
    FILE_SERVER: {6},
}

IDLE = "echo up; exec sleep 60"
# Cold reads through the network, deep in a download most of the time.
UNDER_LOAD = (
    "trap 'exit 99' USR2; echo up; "
    f"for i in 1 2 3; do (while :; do cat {TOP}/*/* >/dev/null 2>&1; done) & done; "
    "exec sleep 60"
)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("published")
    noise = os.urandom(200_000)
    tree = {
        f"d{d}": {f"f{n}": noise[n:] + bytes([d]) for n in range(40)} for d in range(10)
    }
    repository = publish_tree(home, tree)
    with (
        serve(repository.output) as base_url,
        client_dist(base_url, repository.master_key_pem) as made,
    ):
        yield made


def leftovers(dist: Path, *, was_killed: bool = True) -> list[Path]:
    """Return what is in the places for temporary things.

    Where nobody was left to take a talk socket away, it is dead: who looks for it next
    takes it away.
    """
    if was_killed:
        for path in (dist / "var/lib/cvmfs" / FQRN).glob("cvmfs_io.*"):
            remove_if_dead(str(path))
    pending = (dist / "var/lib/cvmfs" / FQRN / "txn").glob("*")
    sockets = (path for path in dist.parent.rglob("*") if path.is_socket())
    return [*pending, *sockets, *(dist.parent / "tmp").iterdir()]


@pytest.mark.parametrize("place", list(Place), ids=lambda one: one.name)
@pytest.mark.parametrize("load", [IDLE, UNDER_LOAD], ids=["idle", "under-load"])
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name
)
@pytest.mark.parametrize("name", ["supervisor", INIT, FILE_SERVER])
def test_nothing_is_left_when_one_is_killed(
    dist: Path, name: str, number: signal.Signals, load: str, place: Place
) -> None:
    cache = dist / "var/lib/cvmfs" / FQRN
    shutil.rmtree(cache, ignore_errors=True)
    mounts = mount_table()
    with started_exec(dist, FQRN, "--", "sh", "-c", load, place=place) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        if load is UNDER_LOAD:
            wait_until(lambda: any(cache.glob("??/*")), "objects are coming in")
        os.kill(session.pid_of(name), number)
        status = session.finish()
        wait_until(session.is_gone, "no process is left")
    if number == signal.SIGKILL:
        assert status in KILLED_STATUSES[name]
    else:
        # Polite signals are for the payload, whoever of us they are sent to.
        assert status == 128 + number
    assert mount_table() == mounts
    has_keeper = name == FILE_SERVER or number != signal.SIGKILL
    assert leftovers(dist, was_killed=not has_keeper) == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_nothing_is_left_when_all_are_killed(
    dist: Path, order: tuple[int, ...]
) -> None:
    names = ["supervisor", INIT, FILE_SERVER]
    mounts = mount_table()
    with started_exec(dist, FQRN, "--", "sh", "-c", UNDER_LOAD) as session:
        assert session.process.stdout is not None
        assert session.process.stdout.readline() == "up\n"
        pids = [session.pid_of(names[index]) for index in order]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # the one before took it along
        wait_until(session.is_gone, "no process is left")
    assert mount_table() == mounts
    assert leftovers(dist) == []
