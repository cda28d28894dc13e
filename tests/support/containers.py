"""Real containers, made by ``crun`` of the host's own programs; nothing is downloaded.

The root is read-only and empty but for binds of the host's directories. Parts of /proc
are masked and read-only, as all container programs have it, so that the kernel allows
no new one inside. Only root can make them here.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sessions import ORDINARY_UID, ROOT

_MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list"]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_LINKS = ("bin", "sbin", "lib", "lib64")

# Runtimes do not know the mixture of old and new control groups that some hosts have.
_WITH_OWN_CGROUPS = (
    "mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || :; "
    'exec crun --cgroup-manager=disabled --root "$1" run -b "$2" "$3"'
)


class Container:
    """A container that is prepared; ``run`` and ``start`` may be called once."""

    def __init__(self, top: Path, environment: dict[str, str]) -> None:
        self.name = f"cvmfsexec-test-{uuid.uuid4().hex[:12]}"
        self._top = top
        self._environment = environment

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end; output is captured."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command as its first process."""
        path = self._top / "bundle/config.json"
        configuration = json.loads(path.read_text())
        configuration["process"]["args"] = list(words)
        path.write_text(json.dumps(configuration))
        return subprocess.Popen(
            (
                "unshare",
                "-m",
                "sh",
                "-c",
                _WITH_OWN_CGROUPS,
                "sh",
                str(self._top / "state"),
                str(self._top / "bundle"),
                self.name,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """Kill its first process, as the end of a batch job does."""
        words = ("crun", "--cgroup-manager=disabled", "--root", self._top / "state")
        subprocess.run((*words, "kill", self.name, "KILL"), check=True)

    def delete(self) -> None:
        """Remove what the runtime has kept."""
        words = ("crun", "--cgroup-manager=disabled", "--root", self._top / "state")
        subprocess.run(
            (*words, "delete", "--force", self.name), check=False, capture_output=True
        )


@contextlib.contextmanager
def container(
    *shared: Path,
    has_pid_namespace: bool = True,
    environment: dict[str, str] | None = None,
) -> Iterator[Container]:
    """Prepare a container for an ordinary user.

    Args:
        shared: Directories of the host that are seen inside, writable.
        has_pid_namespace: Whether it has its own processes.
        environment: Of its command.
    """
    skip_without_containers()
    top = Path(tempfile.mkdtemp(prefix="cvmfsexec-container-"))
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **(environment or {})}
    made = Container(top, environment)
    try:
        _make_bundle(top / "bundle", shared, environment, has_pid_namespace)
        yield made
    finally:
        made.delete()
        shutil.rmtree(top, ignore_errors=True)


def skip_without_containers() -> None:
    """Skip the test where no container can be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make containers here")
    if shutil.which("crun") is None:
        pytest.skip("crun is not installed")


def _make_bundle(
    bundle: Path,
    shared: tuple[Path, ...],
    environment: dict[str, str],
    has_pid_namespace: bool,  # noqa: FBT001 -- called once
) -> None:
    rootfs = bundle / "rootfs"
    rootfs.mkdir(parents=True)
    for name in _LINKS:
        if os.path.lexists(f"/{name}"):
            (rootfs / name).symlink_to(f"usr/{name}")
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _tmpfs("/dev", "mode=755"),
        _tmpfs("/tmp", "mode=1777"),
        *(_bind(path, "ro") for path in ("/usr", "/etc", str(ROOT))),
        *(_bind(str(path), "rw") for path in shared),
    ]
    kinds = ["mount", "ipc", "uts", *(["pid"] if has_pid_namespace else [])]
    configuration = {
        "ociVersion": "1.0.2",
        "hostname": "container",
        "root": {"path": "rootfs", "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": ORDINARY_UID, "gid": ORDINARY_UID},
            "args": [],
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "devices": [
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
                | {"fileMode": 0o666}
            ],
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }
    (bundle / "config.json").write_text(json.dumps(configuration))


def _bind(path: str, mode: str) -> dict[str, object]:
    return {
        "destination": path,
        "type": "bind",
        "source": path,
        "options": ["rbind", mode],
    }


def _tmpfs(destination: str, mode: str) -> dict[str, object]:
    return {
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", mode],
    }
