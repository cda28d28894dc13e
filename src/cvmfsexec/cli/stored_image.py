"""Containers whose images lie in repositories: started in sessions of their own.

A session ends with the container, but for an instance, which is left behind by the
command that starts it: its session goes on in the background until the instance has
ended (docs/adr/0033-instances-keep-their-session.md).
"""

import os
from functools import partial
from typing import NamedTuple

from cvmfsexec.apptainer.command_line import CommandLine
from cvmfsexec.apptainer.launch import CacheImage
from cvmfsexec.apptainer.preparation import Wanted, revisions_of
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.exec_cmd import working_directory
from cvmfsexec.cli.inside import leave_outer_session
from cvmfsexec.cli.report import report_error
from cvmfsexec.configuration.evaluate import config_repository_of
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import CvmfsError
from cvmfsexec.namespaces.background import run_in_background
from cvmfsexec.namespaces.scratch_image import MOUNTPOINT
from cvmfsexec.session import ExecRequest, run


class StoredContainer(NamedTuple):
    """A container that is to be started.

    Attributes:
        line: What was typed.
        words: What starts it in a session.
        fqrn: Repository of the image.
        names: Repositories as they were typed.
        root: Configuration.
        cache_image: What holds the cache; ``None`` for a directory of the host.
    """

    line: CommandLine
    words: tuple[str, ...]
    fqrn: str
    names: tuple[str, ...]
    root: ConfigurationRoot
    cache_image: CacheImage | None


def run_container(container: StoredContainer, environment: dict[str, str]) -> int:
    """Run a container, or start an instance; return the exit status.

    Raises:
        CvmfsError: It was never started.
    """
    request, root = _request(container, environment)
    if container.line.leaves_instance:
        return run_in_background(partial(_run_reported, request, root))
    return run(request, root, exit_codes.exit_status_of)


def _request(
    container: StoredContainer, environment: dict[str, str]
) -> tuple[ExecRequest, ConfigurationRoot]:
    root = container.root
    pins = revisions_of(Wanted(container.names, root, environment))
    pins.setdefault(container.fqrn, None)
    leave_outer_session(environment)
    image = ""
    if container.cache_image is not None:
        image, directory = container.cache_image
        root = root._replace(scratch_cache=f"{MOUNTPOINT}{directory}".rstrip("/"))
    request = ExecRequest(
        repositories=tuple(pins),
        configuration_repository=config_repository_of(root, environment) or "",
        command=container.words,
        cwd=working_directory(),
        environment=environment,
        uid=os.getuid(),
        gid=os.getgid(),
        image=image,
        pins={fqrn: pin for fqrn, pin in pins.items() if pin is not None},
    )
    return request, root


def _run_reported(
    request: ExecRequest, root: ConfigurationRoot, status_out: int
) -> int:
    try:
        request = request._replace(status_out=status_out)
        return run(request, root, exit_codes.exit_status_of)
    except CvmfsError as error:
        report_error("singcvmfs", error)
        return exit_codes.exit_status_of(error)
