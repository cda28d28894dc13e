"""A self-extracting file with a dist for one repository, and ways to start it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec.distribution.bundle import Bundle, collect
from cvmfsexec.distribution.member import Member
from cvmfsexec.distribution.self_extracting import write
from tests.support.commands import (
    COMMAND_PATIENCE_S,
    client_dist,
    give_to_ordinary_user,
    plain_environment,
)
from tests.support.published import Tree, publish_tree, serve
from tests.support.sessions import ORDINARY_UID, ROOT, Caller, wrap

BARE_ROOT = ROOT / "tests/support/bare_root.py"
TREE: Tree = {"hello": b"hello\n", "late": b"late\n"}


class SingleFile(NamedTuple):
    """Two versions of a file that mount the same repository.

    Attributes:
        file: The older version.
        newer: The newer version, which brings one more configuration file.
        bundle: What the older one carries.
    """

    file: Path
    newer: Path
    bundle: Bundle


@contextmanager
def made_single_file(home: Path) -> Iterator[SingleFile]:
    """Publish a repository, serve it, and make files that mount it."""
    published = publish_tree(home, TREE)
    with (
        serve(published.output) as base_url,
        client_dist(base_url, published.master_key_pem) as dist,
    ):
        bundle = collect(str(dist))
        write(bundle, str(home / "cvmfsexec"))
        local = "dist/etc/cvmfs/default.local"
        members = [
            one._replace(content=one.content + b"# newer\n")
            if one.path == local
            else one
            for one in bundle.members
        ]
        extra = Member("dist/etc/cvmfs/config.d/new.example.org.conf", content=b"A=1\n")
        write(bundle._replace(members=[*members, extra]), str(home / "newer"))
        yield SingleFile(home / "cvmfsexec", home / "newer", bundle)


def copied(file: Path, directory: Path) -> Path:
    """Copy a file into a new directory of the ordinary user; return its path."""
    directory.mkdir(parents=True)
    target = directory / "cvmfsexec"
    target.write_bytes(file.read_bytes())
    target.chmod(0o755)
    give_to_ordinary_user(directory)
    return target


def line(file: Path, *words: str) -> tuple[str, ...]:
    """Return the command line that starts a file as the ordinary user."""
    return wrap((str(file), *words), Caller.ORDINARY)


def run(
    file: Path, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a file to its end as the ordinary user; output is captured."""
    return subprocess.run(
        line(file, *words),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**plain_environment(), **environment},
        timeout=COMMAND_PATIENCE_S,
    )


def in_bare_root(
    file: Path, script: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run a script where there is nothing but busybox, as the ordinary user.

    Args:
        file: Lies there as ``cvmfsexec``, in the directory of the script.
        script: For a shell.
        options: Of ``bare_root.py``; they change what is there.
    """
    if os.geteuid() != 0 or not shutil.which("busybox"):
        pytest.skip("only root can make a root, and of busybox")
    words = (*options, str(ORDINARY_UID), str(file), "/bin/sh", "-c", script)
    return subprocess.run(
        [sys.executable, str(BARE_ROOT), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_PATIENCE_S,
    )
