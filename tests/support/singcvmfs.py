"""Containers with repositories: ``singcvmfs`` of this checkout, and real Apptainer."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cvmfsexec.distribution.self_extracting import make_self_extracting
from tests.support.apptainer import Machine, apptainer_machine
from tests.support.commands import COMMAND_PATIENCE_S, give_to_ordinary_user
from tests.support.installs import Installation, installation
from tests.support.sessions import Started, wait_until


class ContainerSite(NamedTuple):
    """An installation on a machine with Apptainer.

    Attributes:
        install: Of this checkout.
        machine: Where it is.
        fqrn: The repository that is mounted unless a test says otherwise.
        command: Path of ``singcvmfs``.
    """

    install: Installation
    machine: Machine
    fqrn: str
    command: str

    def run(
        self, *words: str, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``singcvmfs`` to its end; output is captured."""
        with self.install_start(words, variables) as process:
            out, err = process.communicate(stdin, timeout=COMMAND_PATIENCE_S)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def install_start(
        self, words: tuple[str, ...], variables: dict[str, str]
    ) -> subprocess.Popen[str]:
        """Start ``singcvmfs``; its streams are pipes."""
        return self.install.start(
            self.command,
            *words,
            host=self.machine.host,
            stdin=subprocess.PIPE,
            **{"SINGCVMFS_REPOSITORIES": self.fqrn, **variables},
        )

    @contextlib.contextmanager
    def started(self, *words: str, **variables: str) -> Iterator[Started]:
        """Start ``singcvmfs``; at the end it is killed, and no process may be left."""
        line = (self.command, *words)
        given = {"SINGCVMFS_REPOSITORIES": self.fqrn, **variables}
        with self.install.started(*line, host=self.machine.host, **given) as session:
            yield session
        self.wait_until_gone()

    def apptainer(
        self, *words: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Apptainer without us."""
        line = ("apptainer", *words)
        return self.install.run(*line, host=self.machine.host, **variables)

    def file_servers(self) -> list[int]:
        """Return the processes of ours; their environment tells nothing."""
        mark = os.fsencode(str(self.install.top))
        found = []
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{name}/cmdline").read_bytes()
                is_server = b"--serve" in line or b"fusemount_cmd" in line
                if name.isdecimal() and is_server and mark in line:
                    found.append(int(name))
        return found

    def wait_until_gone(self) -> None:
        """Wait until there is no file server, and nothing that one was told."""
        wait_until(lambda: not self.file_servers(), "no file server is left")
        wait_until(lambda: not self.notes(), "nothing is left to be told")

    def notes(self) -> list[Path]:
        """Return what file servers have not been told yet."""
        return [*(self.install.top / "run").iterdir()]

    def new_directory(self, name: str) -> Path:
        """Make a directory of the ordinary user."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.install.top))
        give_to_ordinary_user(path)
        return path


@contextlib.contextmanager
def container_site(
    base_url: str, *keys: bytes, fqrn: str, program: str = "apptainer"
) -> Iterator[ContainerSite]:
    """Install ``singcvmfs`` on a machine with Apptainer.

    Args:
        base_url: What comes before the name of a repository.
        keys: Master public keys, PEM.
        fqrn: See ``ContainerSite``.
        program: What Apptainer is called there.
    """
    with (
        installation(base_url, *keys) as install,
        apptainer_machine(install.top / "home", program=program) as machine,
    ):
        (install.top / "run").chmod(0o700)
        command = str(install.directory / "singcvmfs")
        yield ContainerSite(install, machine, fqrn, command)


@contextlib.contextmanager
def bundled_site(base_url: str, *keys: bytes, fqrn: str) -> Iterator[ContainerSite]:
    """Make a site whose ``singcvmfs`` is the one file with everything."""
    with container_site(base_url, *keys, fqrn=fqrn) as site:
        job = site.new_directory("job")
        file = str(job / "singcvmfs")
        dist = str(site.install.directory / "dist")
        make_self_extracting(file, dist, command="singcvmfs")
        give_to_ordinary_user(job)
        yield site._replace(command=file)
