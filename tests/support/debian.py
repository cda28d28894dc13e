"""Packages of Debian for any architecture, and what tests make of them.

``apt-get`` downloads them with a state of its own, so that the machine's is left alone.
They are kept below ``build`` of the checkout.
"""

import functools
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from cvmfsexec.distribution.library_files import libraries_among
from cvmfsexec.distribution.target import LIBRARY
from cvmfsexec.format.archive import EntryKind
from cvmfsexec.format.package import parse_package

_KEPT = Path(__file__).resolve().parents[2] / "build/debian"
_PATIENCE_S = 600
_SUITE = "bookworm"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_PYTHON = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libbz2-1.0",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libsqlite3-0",
    "libssl3",
    "libuuid1",
    "zlib1g",
)
LIBC = ("libc6", "libgcc-s1")


@functools.cache
def packages(names: tuple[str, ...], architecture: str) -> tuple[Path, ...]:
    """Return the files of packages, downloaded if they are not there yet.

    Args:
        names: Of packages.
        architecture: As Debian has it.
    """
    directory = _KEPT / architecture
    missing = [name for name in names if not list(directory.glob(f"{name}_*.deb"))]
    if missing:
        _download([f"{name}:{architecture}" for name in missing], directory)
    return tuple(next(iter(directory.glob(f"{name}_*.deb"))) for name in names)


@functools.cache
def install_only_archive(architecture: str) -> bytes:
    """Return an archive of Debian's Python, in the layout of relocatable ones."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        written = set()
        for path in packages(_PYTHON, architecture):
            entries = parse_package(path.read_bytes()).entries
            libraries = libraries_among(entries, LIBRARY)
            files = [(f"lib/{name}", data) for name, data in libraries.items()]
            for entry in entries:
                name = os.fsdecode(entry.path).removeprefix("usr/")
                is_wanted = name.startswith(("lib/python3.11/", "bin/python3.11"))
                if entry.kind is EntryKind.FILE and is_wanted:
                    files.append((name, entry.content))
            for name, data in files:
                if name not in written:
                    written.add(name)
                    header = tarfile.TarInfo(f"python/{name}")
                    header.size, header.mode = len(data), 0o755
                    archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def minimal_system() -> Path:
    """Return a tar archive of Debian's smallest system, made if it is not there."""
    kept = _KEPT / f"minbase-{_SUITE}.tar"
    if kept.exists():
        return kept
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        pytest.skip("only root can make a Debian system, and by debootstrap")
    _KEPT.mkdir(parents=True, exist_ok=True)
    made = kept.with_suffix(f".{os.getpid()}")
    _run("debootstrap", "--variant=minbase", _SUITE, str(made), _site())
    try:
        _run("tar", "-C", str(made), "--exclude=./dev/*", "-cf", f"{made}.tar", ".")
        os.replace(f"{made}.tar", kept)
    finally:
        shutil.rmtree(made)
    return kept


def _download(words: list[str], directory: Path) -> None:
    if not shutil.which("apt-get"):
        pytest.skip("this machine gets no packages from Debian")
    for part in ("lists/partial", "archives/partial"):
        (_KEPT / "apt" / part).mkdir(parents=True, exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    sources = _KEPT / "apt/sources.list"
    sources.write_text(f"deb [signed-by={_KEYS}] {_site()} {_SUITE} main\n")
    settings = {
        "Dir::State": _KEPT / "apt",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": _KEPT / "apt",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": "amd64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    _run("apt-get", "-qq", *options, "update")
    _run("apt-get", "-qq", *options, "download", *words, cwd=directory)


def _site() -> str:
    """Return where this machine gets its own packages from."""
    line = ("apt-get", "indextargets", "--format", "$(SITE)", "Label: Debian")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip() or not Path(_KEYS).exists():
        pytest.skip("this machine gets no packages from Debian")
    return min(done.stdout.split())


def _run(*line: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        line,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=_PATIENCE_S,
    )
    if done.returncode != 0:
        pytest.skip(f"{line[0]} does not work here: {done.stderr.strip()[-200:]}")
