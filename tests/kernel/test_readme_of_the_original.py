"""The examples of the original's README, word for word.

Where they name what is on a network, there is something of the same name on this
machine: repositories, and an image that an ordinary user has. ``/tmp`` is a directory
of the test's.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.apptainer import Machine, apptainer_machine, debian_image
from tests.support.commands import COMMAND_PATIENCE_S, give_to_ordinary_user
from tests.support.installs import Installation, installation
from tests.support.published import publish_tree, serve
from tests.support.sessions import ROOT, wait_until

pytestmark = pytest.mark.kernel

CONFIG = "config-osg.opensciencegrid.org"
ALL = f"atlas.cern.ch\n{CONFIG}\ngrid.cern.ch\n"
NAMES = 'export SINGCVMFS_REPOSITORIES="grid.cern.ch,atlas.cern.ch"'


class Place(NamedTuple):
    """Where the examples are typed."""

    install: Installation
    machine: Machine

    @property
    def temporary(self) -> Path:
        return self.install.temporary

    def type(self, script: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Type lines into a shell, in the directory of the commands."""
        words: Mapping[str, str] = {
            "/tmp/": f"{self.temporary}/",
            "docker://centos:7": str(debian_image()),
        }
        for word, ours in words.items():
            script = script.replace(word, ours)
        path = f"{self.install.directory}:/usr/sbin:/usr/bin:/sbin:/bin"
        line = ("bash", "-e", "-c", f"cd {self.install.directory}\n{script}")
        process = self.install.start(
            *line, host=self.machine.host, stdin=subprocess.PIPE, PATH=path
        )
        out, err = process.communicate(stdin, 3 * COMMAND_PATIENCE_S)
        return subprocess.CompletedProcess(line, process.returncode, out, err)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, bytes]]:
    home = tmp_path_factory.mktemp("published")
    settings = b"CVMFS_SEND_INFO_HEADER=yes\n"
    publish_tree(home, {"etc": {"cvmfs": {"default.conf": settings}}}, CONFIG)
    publish_tree(home, {"README": b"grid\n"}, "grid.cern.ch")
    atlas = publish_tree(home, {"repo": {"setup.sh": b"echo\n"}}, "atlas.cern.ch")
    with serve(atlas.output) as base_url:
        yield base_url, atlas.master_key_pem


@pytest.fixture(scope="module")
def place(served: tuple[str, bytes]) -> Iterator[Place]:
    with (
        installation(*served) as install,
        apptainer_machine(install.top / "home") as machine,
    ):
        shutil.copy(ROOT / "makedist", install.directory)
        (install.top / "run").chmod(0o700)
        defaults = install.directory / "dist/etc/cvmfs/default.d"
        defaults.mkdir()
        (defaults / "60-osg.conf").write_text(f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n")
        give_to_ordinary_user(install.top)
        yield Place(install, machine)


# -- modes 2 and 3 --------------------------------------------------------------------

CVMFSEXEC = {
    "repositories": ("cvmfsexec grid.cern.ch atlas.cern.ch -- ls /cvmfs", "", ALL),
    "default command": (
        "SHELL=/bin/sh cvmfsexec grid.cern.ch --",
        "ls /cvmfs/grid.cern.ch",
        "README\n",
    ),
    "mount from inside": (
        "cvmfsexec grid.cern.ch -- bash",
        "$CVMFSMOUNT atlas.cern.ch && $CVMFSMOUNT grid.cern.ch && ls /cvmfs\n"
        "$CVMFSUMOUNT atlas.cern.ch >/dev/null && ls /cvmfs",
        f"{ALL}{CONFIG}\ngrid.cern.ch\n",
    ),
    "close the descriptor": (
        "cvmfsexec grid.cern.ch -- bash",
        "exec {CVMFSEXEC_CMDFD}>&-\n"
        "$CVMFSMOUNT atlas.cern.ch 2>/dev/null || echo refused",
        "refused\n",
    ),
    "no interface": (
        "cvmfsexec -N grid.cern.ch -- sh -c 'echo $CVMFSMOUNT$CVMFSEXEC_CMDFD'",
        "",
        "\n",
    ),
    "scratch file system": (
        "truncate -s 600G scratch.img\n"
        "mkfs.ext4 -q -F -O ^has_journal scratch.img\n"
        "SHELL=/bin/sh cvmfsexec -m scratch.img --\n"
        "rm scratch.img",
        "ls /e2fs; ls /cvmfs",
        f"cvmfscache\nlost+found\n{CONFIG}\n",
    ),
    "apptainer from cvmfsexec": (
        "cvmfsexec atlas.cern.ch -- "
        "apptainer exec --userns -B /cvmfs docker://centos:7 ls /cvmfs/atlas.cern.ch",
        "",
        "repo\n",
    ),
    "debugging logs": (
        "local=dist/etc/cvmfs/default.local\ncp $local /tmp/saved\n"
        "echo CVMFS_DEBUGLOG=/tmp/debug.log >>$local\n"
        "cvmfsexec grid.cern.ch -- true; cat /tmp/saved >$local\n"
        "grep -q grid.cern.ch /tmp/debug.log && echo logged",
        "",
        "logged\n",
    ),
    "version": ("cvmfsexec -v | grep -c '^[0-9.]*$'", "", "1\n"),
}


# -- mode 4 ---------------------------------------------------------------------------

SHELL_SESSION = "ls /cvmfs\nls /cvmfs/atlas.cern.ch\nexit\n"
SINGCVMFS = {
    "exec": (
        f"{NAMES}\nsingcvmfs -s exec -cip docker://centos:7 bash",
        SHELL_SESSION,
        f"{ALL}repo\n",
    ),
    "instances": (
        f"{NAMES}\n"
        "singcvmfs -s instance start docker://centos:7 myexampleinstance\n"
        "singcvmfs -s run instance://myexampleinstance ls /cvmfs\n"
        "singcvmfs -s run instance://myexampleinstance ls /cvmfs/atlas.cern.ch\n"
        "singcvmfs -s instance stop myexampleinstance",
        "",
        f"{ALL}repo\n",
    ),
    "image by variable": (
        f'{NAMES}\nexport SINGCVMFS_IMAGE="docker://centos:7"\n'
        "singcvmfs ls /cvmfs\nsingcvmfs ls /cvmfs/atlas.cern.ch",
        "",
        f"{ALL}repo\n",
    ),
    "default command": (
        f'{NAMES}\nexport SINGCVMFS_IMAGE="docker://centos:7"\nsingcvmfs',
        SHELL_SESSION,
        f"{ALL}repo\n",
    ),
    "log directory": (
        f"{NAMES}\n"
        "export SINGCVMFS_LOGDIR=/tmp/logs SINGCVMFS_LOGLEVEL=debug\n"
        "singcvmfs exec docker://centos:7 ls /cvmfs/grid.cern.ch\n"
        # Those of the others may not have begun when the container ends.
        "ls /tmp/logs/*grid.cern.ch*debug.log | wc -l",
        "",
        "README\n1\n",
    ),
    "cache directory": (
        f"{NAMES}\nexport SINGCVMFS_CACHEDIR=/tmp/cache\n"
        "singcvmfs exec docker://centos:7 ls /cvmfs/grid.cern.ch\n"
        "[ -d /tmp/cache ] && echo there",
        "",
        "README\nthere\n",
    ),
    "version": ("singcvmfs -V | grep -c '^[0-9.]*$'", "", "1\n"),
}

EXAMPLES = {
    **{f"cvmfsexec: {name}": example for name, example in CVMFSEXEC.items()},
    **{f"singcvmfs: {name}": example for name, example in SINGCVMFS.items()},
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_of_a_command(place: Place, name: str) -> None:
    script, typed, said = EXAMPLES[name]
    done = place.type(script, typed)
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


# -- mode 1 ---------------------------------------------------------------------------


def test_of_mountrepo(place: Place) -> None:
    done = place.type(
        f"mountrepo {CONFIG}\n"
        "mountrepo atlas.cern.ch\n"
        "apptainer exec -B $PWD/dist/cvmfs:/cvmfs docker://centos:7 ls /cvmfs\n"
        "umountrepo atlas.cern.ch >/dev/null\n"
        "ls dist/cvmfs\n"
        "umountrepo -a >/dev/null\n"
        "ls dist/cvmfs"
    )
    place.type("umountrepo -a")
    said = f"atlas.cern.ch\n{CONFIG}\n{CONFIG}\n"
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


# -- the single files -----------------------------------------------------------------


def test_of_the_self_contained_cvmfsexec(place: Place) -> None:
    done = place.type(
        "makedist -o /tmp/cvmfsexec\n"
        "/tmp/cvmfsexec atlas.cern.ch -- ls /cvmfs/atlas.cern.ch\n"
        "ls -A /tmp/ | grep cvmfsexec"
    )
    said = "repo\n.cvmfsexec\ncvmfsexec\n"
    assert (done.stdout, done.returncode) == (said, 0), done.stderr


def test_of_the_self_contained_singcvmfs_with_a_cache_image(place: Place) -> None:
    done = place.type(
        "makedist -s -o /tmp/singcvmfs\n"
        "cd /tmp/\n"
        "truncate -s 6G scratch.img\n"
        "mkdir -p tmp/shared\n"
        "mkfs.ext3 -q -F -O ^has_journal -d tmp scratch.img\n"
        f"{NAMES}\n"
        "export SINGCVMFS_CACHEIMAGE=scratch.img\n"
        "/tmp/singcvmfs exec -cip docker://centos:7 sh -c "
        "'ls /cvmfs/atlas.cern.ch && grep -c \"/var/lib/cvmfs .*fuse\" /proc/mounts'\n"
        "ls -A | grep singcvmfs"
    )
    said = "repo\n1\n.singcvmfs\nsingcvmfs\n"
    assert (done.stdout, done.returncode) == (said, 0), done.stderr


def test_nothing_is_left_of_all_that(place: Place) -> None:
    top = str(place.install.top)

    def commands() -> list[str]:
        listed = subprocess.run(
            ["ps", "-eo", "args"], capture_output=True, text=True, check=True
        )
        return [line for line in listed.stdout.splitlines() if top in line]

    wait_until(lambda: not commands(), "no process is left")
    assert place.machine.host.mounts_below(top) == []
    assert list((place.install.top / "run").iterdir()) == []
