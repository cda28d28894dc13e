"""A Slurm cluster of one node, which one ordinary user runs in one directory.

Slurm wants its user to have a name. Root has ``nobody`` run it; everybody else has one.

Source: slurm.conf(5); no service of the machine is used, and no fixed port.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import plain_environment

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "srun", "sbatch")
_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_PATIENCE_S = 60
_NOBODY = 65534
_CONFIGURATION = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={daemon_port}
AuthType=auth/munge
AuthInfo=socket={top}/munge/s
CredType=cred/munge
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool
SlurmctldPidFile={top}/run/slurmctld.pid
SlurmdPidFile={top}/run/slurmd.pid
SlurmctldLogFile={top}/log/slurmctld
SlurmdLogFile={top}/log/slurmd
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=500 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster(NamedTuple):
    """A cluster that runs.

    Attributes:
        top: Everything of it is there, and what jobs write.
    """

    top: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm's, such as ``srun``, to its end, as the user."""
        return subprocess.run(
            _as_user(words),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.top / "jobs",
            env=_environment(self.top),
            timeout=_PATIENCE_S,
        )


@contextlib.contextmanager
def cluster(top: Path) -> Iterator[Cluster]:
    """Run a cluster below an empty directory; skip where there is no Slurm."""
    missing = [one for one in _PROGRAMS if shutil.which(one, path=_PATH) is None]
    if missing:
        pytest.skip(f"no {missing[0]} here")
    for name in ("state", "spool", "log", "run", "munge", "jobs"):
        (top / name).mkdir()
    (top / "munge").chmod(0o700)
    (top / "munge/key").write_bytes(os.urandom(128))
    (top / "munge/key").chmod(0o400)
    (top / "slurm.conf").write_text(_configuration(top))
    give_to_user(top)
    munge = (
        *("munged", "--foreground", "--force", f"--socket={top}/munge/s"),
        *(
            f"--{name}-file={top}/munge/{name}"
            for name in ("key", "pid", "log", "seed")
        ),
    )
    with contextlib.ExitStack() as stack:
        for line in (munge, ("slurmctld", "-D"), ("slurmd", "-D")):
            stack.enter_context(_daemon(line, top))
        _wait_until_idle(Cluster(top))
        yield Cluster(top)


def give_to_user(top: Path) -> None:
    """Let the cluster's user own a tree."""
    if os.geteuid() == 0:
        user = pwd.getpwuid(_uid())
        for path in (top, *top.rglob("*")):
            os.lchown(path, user.pw_uid, user.pw_gid)


def _uid() -> int:
    return os.geteuid() or _NOBODY


def _as_user(words: tuple[str, ...]) -> tuple[str, ...]:
    if os.geteuid() != 0:
        return words
    user = pwd.getpwuid(_uid())
    ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return ("setpriv", *ids, *words)


def _configuration(top: Path) -> str:
    controller_port, daemon_port = _free_ports(2)
    return _CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0],
        user=pwd.getpwuid(_uid()).pw_name,
        controller_port=controller_port,
        daemon_port=daemon_port,
        top=top,
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def _daemon(line: tuple[str, ...], top: Path) -> Iterator[None]:
    process = subprocess.Popen(
        _as_user(line),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=top,
        env=_environment(top),
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_idle(made: Cluster) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    said = ""
    while time.monotonic() < deadline_s:
        done = made.run("sinfo", "-h", "-o", "%T")
        said = (done.stdout + done.stderr).strip()
        if said == "idle":
            return
        time.sleep(0.1)
    logs = [
        path.read_text(errors="replace")[-500:] for path in (made.top / "log").iterdir()
    ]
    raise AssertionError(f"the cluster does not come up: {said}; {logs}")


def _environment(top: Path) -> dict[str, str]:
    return {**plain_environment(), "PATH": _PATH, "SLURM_CONF": f"{top}/slurm.conf"}
