"""A container that is started to see whether one can be: of the host's own programs.

Its image is an empty directory but for links and mount points, where the host's
directories of programs and libraries are bound. It has a mount that is served by a
program that ends at once: nobody looks into it.
"""

import os
import shutil
import subprocess
import tempfile

from cvmfsexec.apptainer.program import ContainerProgram
from cvmfsexec.namespaces.probe import Trial

SUBJECT = "container with a mount"

_PATIENCE_S = 60.0
_REASON_CHARACTERS_MAX = 300
_PROGRAM = "/bin/true"
_MOUNTPOINT = "/cvmfs"
_HOST_DIRECTORIES = ("bin", "lib", "lib32", "lib64", "nix", "opt", "sbin", "usr")
_EMPTY_DIRECTORIES = ("cvmfs", "dev", "etc", "home", "proc", "sys", "tmp", "var")


def try_container(program: ContainerProgram, directory: str) -> Trial:
    """Start a container with a FUSE mount.

    Args:
        program: What starts it.
        directory: Where the image can be made.
    """
    try:
        image = tempfile.mkdtemp(prefix="cvmfsexec-trial-", dir=directory)
    except OSError as error:
        reason = f"cannot make a directory in {directory}: {error.strerror}"
        return Trial(SUBJECT, works=False, reason=reason)
    try:
        return _try_image(program, image)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"cannot run {program.path}: {error}"
        return Trial(SUBJECT, works=False, reason=reason)
    finally:
        shutil.rmtree(image, ignore_errors=True)


def _try_image(program: ContainerProgram, image: str) -> Trial:
    done = subprocess.run(
        [
            program.path,
            "--silent",
            "--nocolor",
            "exec",
            "--fusemount",
            f"host:{_PROGRAM} {_MOUNTPOINT}",
            *_fill(image),
            image,
            _PROGRAM,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
        cwd="/",
        timeout=_PATIENCE_S,
    )
    if done.returncode == 0:
        return Trial(SUBJECT, works=True)
    return Trial(SUBJECT, works=False, reason=_reason(done.stderr))


def _fill(image: str) -> tuple[str, ...]:
    """Make an image, and return the binds that it needs."""
    for name in _EMPTY_DIRECTORIES:
        os.mkdir(os.path.join(image, name))
    binds: list[str] = []
    for name in _HOST_DIRECTORIES:
        path, inside = f"/{name}", os.path.join(image, name)
        if os.path.islink(path):
            os.symlink(os.readlink(path), inside)
        elif os.path.isdir(path):
            os.mkdir(inside)
            binds += ("--bind", path)
    return tuple(binds)


def _reason(said: bytes) -> str:
    """Return what the program says last; it begins with how bad it is."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").split("\n")]
    last = next((line for line in reversed(lines) if line), "")
    _, _, text = last.partition("FATAL:")
    return (text.strip() or last or "it fails without a word")[:_REASON_CHARACTERS_MAX]
