"""Packages of a stand-in for the original client, built by the real tools.

The real one is in none of the places that tests may ask. The stand-in is a program of
our own with the same command line, and real FUSE by the system's own libfuse 3: see
``stand_in_client``.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.packages import build_deb, build_rpm

_SOURCES = Path(__file__).parent / "stand_in_client"
VERSION = "2.12.6"


@functools.cache
def stand_in() -> dict[str, bytes]:
    """Return the program and its libraries by name."""
    if os.uname().machine != "x86_64":
        pytest.skip("the packages are for Python 3.11 on x86_64")
    if shutil.which("gcc") is None or shutil.which("pkg-config") is None:
        pytest.skip("no gcc, or no pkg-config here")
    if subprocess.run(["pkg-config", "--exists", "fuse3"], check=False).returncode != 0:
        pytest.skip("no libfuse3-dev here")
    flags = _output("pkg-config", "--cflags", "--libs", "fuse3").split()
    with tempfile.TemporaryDirectory(prefix="stand-in-") as top:
        program, module = Path(top, "cvmfs2"), Path(top, "libcvmfs_fuse3.so")
        _output("gcc", "-O", "-o", str(program), str(_SOURCES / "cvmfs2.c"), "-ldl")
        source = str(_SOURCES / "libcvmfs_fuse3.c")
        _output("gcc", "-O", "-shared", "-fPIC", "-o", str(module), source, *flags)
        files = {path.name: path.read_bytes() for path in (program, module)}
    directory = Path(_output("pkg-config", "--variable=libdir", "fuse3").strip())
    return {**files, "libfuse3.so.3": (directory / "libfuse3.so.3").read_bytes()}


def client_packages(
    *, kind: str = "rpm", version: str = VERSION, without: str = ""
) -> dict[str, bytes]:
    """Return the four packages by the names of their files.

    Args:
        kind: ``rpm`` as for EL 9, or ``deb``.
        version: Of the client.
        without: A package that is left out.
    """
    files = stand_in()
    lib = "/usr/lib64" if kind == "rpm" else "/usr/lib/x86_64-linux-gnu"
    fuse_lib = lib if kind == "rpm" else "/lib/x86_64-linux-gnu"
    fuse = "fuse3-libs" if kind == "rpm" else "libfuse3-3"
    defaults = b"CVMFS_CLIENT_PACKAGE=yes\nCVMFS_CACHE_BASE=/var/lib/cvmfs\n"
    contents: dict[str, dict[str, bytes]] = {
        "cvmfs": {
            "/usr/bin/cvmfs2": files["cvmfs2"],
            "/etc/cvmfs/default.conf": defaults,
            "/usr/share/doc/cvmfs/README": b"not taken\n",
        },
        "cvmfs-libs": {f"{lib}/libcvmfs_stub.so.{version}": b"not looked at\n"},
        "cvmfs-fuse3": {
            f"{lib}/libcvmfs_fuse3.so.{version}": files["libcvmfs_fuse3.so"]
        },
        fuse: {f"{fuse_lib}/libfuse3.so.3.10.2": files["libfuse3.so.3"]},
    }
    links = {
        "cvmfs-libs": {f"{lib}/libcvmfs_stub.so": f"libcvmfs_stub.so.{version}"},
        "cvmfs-fuse3": {
            f"{lib}/libcvmfs_fuse3.so": f"{lib}/libcvmfs_fuse3.so.{version}"
        },
        fuse: {f"{fuse_lib}/libfuse3.so.3": "libfuse3.so.3.10.2"},
    }
    built = {}
    for name, tree in contents.items():
        if name == without:
            continue
        number = "3.10.2" if name == fuse else version
        if kind == "rpm":
            more = links.get(name)
            data = build_rpm(name, tree, version=number, links=more, machine="x86_64")
            built[f"{name}-{number}-1.el9.x86_64.rpm"] = data
        else:
            full = f"{number}-1"
            data = build_deb(name, tree, version=full, links=links.get(name))
            built[f"{name}_{full}_amd64.deb"] = data
    return built


def _output(*line: str) -> str:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
