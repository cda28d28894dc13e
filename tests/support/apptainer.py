"""Real Apptainer for an ordinary user, and images for it.

``scripts/fetch-containers`` has unpacked all of it below ``.containers`` (root runs it,
by ``scripts/prepare-machine apptainer`` or ``make test``). How a test uses it::

    with apptainer_machine() as machine:
        done = machine.run("apptainer", "exec", str(busybox_image()), "ls")

The machine is a mount namespace in which Apptainer is installed, at its true places,
and in which the ordinary user has a name, a group and a home. All else is as outside:
the checkout, ``/tmp``, the network. ``machine.host`` is for the methods of an
``Installation`` (of ``tests/support/installs.py``), whose home it can have as well::

    with installation(url, key) as install:
        with apptainer_machine(install.top / "home") as machine:
            install.run(*install.line("cvmfsexec", ...), host=machine.host)

Another build of Apptainer, with setuid for example, is tested instead if the variable
``TEST_APPTAINER`` names the directory below which it was installed (``DESTDIR``).

An anchor keeps the namespace, and must: Apptainer looks for its own path, which exists
only as long as the namespace does.

Images are directories ("sandboxes") that belong to the ordinary user, and are made once
in a run of the tests; do not write to them, or take a copy. Each has scripts of
Apptainer, so that ``run`` and ``instance start`` work: ``run`` executes its arguments.

==========================  =========================================================
``busybox_image()``         one static program, its links, and hardly more
``debian_image()``          a minimal Debian: bash, perl, glibc
``musl_image()``            busybox, and ``/bin/say``, a dynamic program: another libc
``bare_image()``            no shell: ``/say FILE`` alone, static, prints a file
==========================  =========================================================

``system_archive`` makes the smallest system that Apptainer runs on, for the roots of
``tests/support/bare_root.py``.
"""

import atexit
import contextlib
import functools
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import give_to_ordinary_user, plain_environment
from tests.support.installs import Host, anchored, ordinary_uid
from tests.support.sessions import ROOT, Caller, wrap

PATIENCE_S = 120.0

_STORE = ROOT / ".containers"
_BUILD = str(_STORE / "machine")
_CONFIGURATION = "etc/apptainer/apptainer.conf"
_DIRECTORIES = ("bin", "dev", "etc", "home", "mnt", "proc", "root", "sys", "tmp", "usr")
_FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/resolv.conf": "",
    "etc/hosts": "",
    "etc/localtime": "",
    "etc/issue": "any image\n",
}
_SCRIPTS = {
    "runscript": 'exec "${@:-/bin/sh}"',
    "startscript": "exec sleep 100000",
}
_SAY = """
extern int open(const char *, int, ...);
extern long read(int, void *, unsigned long), write(int, const void *, unsigned long);
int main(int count, char **words) {
    static char content[65536];
    int file = count > 1 ? open(words[1], 0) : 0;
    long size = file < 0 ? -1 : read(file, content, sizeof content);
    return size < 0 || write(1, content, (unsigned long)size) != size;
}
"""
_MOUNTING = """
for layer in usr etc var/lib; do
  below=/$layer
  for part; do
    case $below in "$part/"*) continue ;; esac # twice is too often
    [ ! -d "$part/$layer" ] || below=$part/$layer:$below
  done
  mount -t overlay -o "lowerdir=$below" apptainer "/$layer" || exit 1
done
"""


class Machine(NamedTuple):
    """A machine with Apptainer.

    Attributes:
        host: Where processes are started.
        home: Of the ordinary user.
    """

    host: Host
    home: Path

    def line(self, *words: str) -> tuple[str, ...]:
        """Return what runs words as the ordinary user there; needs ``environment``."""
        return (*self.host.entrance, *wrap(words, Caller.ORDINARY))

    @property
    def environment(self) -> dict[str, str]:
        """Return a small environment of the ordinary user."""
        return {**plain_environment(), "HOME": str(self.home)}

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run words as the ordinary user to their end; output is captured."""
        return subprocess.run(
            self.line(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**self.environment, **variables},
            timeout=PATIENCE_S,
        )


@contextlib.contextmanager
def apptainer_machine(
    home: Path | None = None,
    *,
    program: str = "apptainer",
    settings: Mapping[str, str] | None = None,
    build: str = "",
) -> Iterator[Machine]:
    """Make a machine with Apptainer.

    Args:
        home: Of the ordinary user; by default one that is made, and removed.
        program: Its name there, ``apptainer`` or ``singularity``; there is no other.
        settings: Lines of ``apptainer.conf`` that are not as usual, such as
            ``{"enable fusemount": "no"}``.
        build: Below which directory it was installed; by default see above.
    """
    skip_without("machine")
    top = Path(tempfile.mkdtemp(prefix="cvmfsexec-machine-"))
    top.chmod(0o755)
    try:
        if home is None:
            home = top / "home"
            home.mkdir()
            give_to_ordinary_user(home)
        build = build or os.environ.get("TEST_APPTAINER", _BUILD)
        _write_layer(top, home, settings or {}, build)
        if program != "apptainer":
            _rename(top, program, build)
        parts = " ".join(map(shlex.quote, (_BUILD, build, str(top))))
        whole = f'mount_all() {{ {_MOUNTING} }}; mount_all {parts} && exec "$@"'
        with anchored("unshare", "-m", "sh", "-c", whole, "sh") as host:
            yield Machine(host, home)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _write_layer(
    top: Path, home: Path, settings: Mapping[str, str], build: str
) -> None:
    """Write what lies over the machine and over Apptainer's files."""
    (top / "etc/apptainer").mkdir(parents=True)
    uid = ordinary_uid()
    names = {"passwd": f"user:x:{uid}:{uid}::{home}:/bin/sh", "group": f"user:x:{uid}:"}
    for database, ours in names.items():
        lines = Path("/etc", database).read_text().splitlines()
        others = [line for line in lines if line.split(":")[2] != str(uid)]
        (top / "etc" / database).write_text("\n".join([*others, ours, ""]))
    text = Path(build, _CONFIGURATION).read_text()
    kept = [line for line in text.splitlines() if line.split(" =")[0] not in settings]
    given = [f"{name} = {value}" for name, value in settings.items()]
    (top / _CONFIGURATION).write_text("\n".join([*kept, *given, ""]))


def _rename(top: Path, program: str, build: str) -> None:
    (top / "usr/bin").mkdir(parents=True)
    os.mknod(top / "usr/bin/apptainer", stat.S_IFCHR)  # an overlay hides it so
    shutil.copy(f"{build}/usr/bin/apptainer", top / "usr/bin" / program)


@functools.cache
def busybox_image() -> Path:
    """Return an image with busybox alone."""
    image = _new_image("busybox")
    _add_busybox(image)
    return _finished(image)


@functools.cache
def debian_image() -> Path:
    """Return an image of a minimal Debian."""
    skip_without("debian")
    image = _place() / "debian"
    subprocess.run(["cp", "-a", _STORE / "debian", image], check=True)
    return _finished(image)


@functools.cache
def musl_image() -> Path:
    """Return an image whose programs are linked to musl."""
    skip_without("musl")
    image = _new_image("musl")
    _add_busybox(image)
    (image / "lib").mkdir()
    library = _STORE / "musl/usr/lib/x86_64-linux-musl"
    loader = image / "lib/ld-musl-x86_64.so.1"
    shutil.copy(library / "libc.so", loader)
    start = (str(library / "crt1.o"), str(library / "crti.o"), str(library / "crtn.o"))
    linked = ("-pie", "-fPIE", f"-Wl,--dynamic-linker=/lib/{loader.name}")
    _compile(image / "bin/say", *linked, "-nostdlib", *start, f"-L{library}", "-lc")
    return _finished(image)


@functools.cache
def bare_image() -> Path:
    """Return an image with a single program and no shell."""
    image = _new_image("bare")
    _compile(image / "say", "-static")
    return _finished(image)


def system_archive(directory: Path) -> Path:
    """Make an archive of a system with busybox and Apptainer, and no Python.

    ``/image`` in it is the image with busybox.
    """
    skip_without("machine")
    top = directory / "system"
    shutil.copytree(busybox_image(), top, symlinks=True)
    shutil.copytree(busybox_image(), top / "image", symlinks=True)
    parts = ("usr/bin", "usr/lib", "usr/lib64", "var/lib/apptainer", "etc/apptainer")
    for part in parts:
        shutil.copytree(_STORE / "machine" / part, top / part, symlinks=True)
    for name in ("lib", "lib64"):
        (top / name).symlink_to(f"usr/{name}")
    uid = ordinary_uid()
    with (top / "etc/passwd").open("a") as users:
        users.write(f"user:x:{uid}:{uid}::/tmp:/bin/sh\n")
    with (top / "etc/group").open("a") as groups:
        groups.write(f"user:x:{uid}:\n")
    with (top / _CONFIGURATION).open("a") as settings:
        settings.write("mount sys = no\n")  # it has none itself
    archive = directory / "system.tar"
    subprocess.run(["tar", "-C", str(top), "-cf", str(archive), "."], check=True)
    shutil.rmtree(top)
    return archive


@functools.cache
def _place() -> Path:
    """Return where this run of the tests has its images."""
    place = Path(tempfile.mkdtemp(prefix="cvmfsexec-images-"))
    place.chmod(0o755)
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def _new_image(name: str) -> Path:
    image = _place() / name
    for directory in (*_DIRECTORIES, "var/tmp"):
        (image / directory).mkdir(parents=True)
    for file, content in _FILES.items():
        (image / file).write_text(content)
    return image


def _add_busybox(image: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    shutil.copy(busybox, image / "bin/busybox")
    listed = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    )
    for applet in listed.stdout.split():
        if applet != "busybox":
            (image / "bin" / applet).symlink_to("busybox")


def _compile(target: Path, *options: str) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    source = _place() / f"{target.name}.c"
    source.write_text(_SAY)
    line = ("gcc", "-O1", "-o", str(target), str(source), *options)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot compile: {done.stderr.strip()}")


def _finished(image: Path) -> Path:
    shutil.copytree(_scripts(), image / ".singularity.d", symlinks=True)
    give_to_ordinary_user(image)
    return image


@functools.cache
def _scripts() -> Path:
    """Let Apptainer write the scripts that it looks for in images."""
    source = _new_image("plain")
    give_to_ordinary_user(source.parent)
    target = _place() / "built"
    line = ("apptainer", "-s", "build", "--sandbox", str(target), str(source))
    with apptainer_machine(build=_BUILD) as machine:
        machine.run(*line).check_returncode()
    for name, text in _SCRIPTS.items():
        (target / ".singularity.d" / name).write_text(f"#!/bin/sh\n{text}\n")
    return target / ".singularity.d"


def skip_without(part: str) -> None:
    """Skip if this is not what is needed for containers, before anything is made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a machine with Apptainer here")
    if not (_STORE / "complete").exists():
        pytest.skip(f"no {part} in .containers: run scripts/fetch-containers as root")
