"""Files with another interpreter than the one that runs, and for other machines.

What is for another architecture is looked at, and run as far as an emulator of its
programs goes: that has neither namespaces nor FUSE.
"""

import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.distribution.bytecode import compile_module
from cvmfsexec.format.elf import MAGIC, parse_elf
from tests.support.commands import COMMAND_PATIENCE_S, plain_environment
from tests.support.debian import LIBC, install_only_archive, packages
from tests.support.http_server import CutOff, HttpServer
from tests.support.sessions import ROOT
from tests.support.single_file import copied, in_bare_root, line

SIZE_BYTES_MAX = 30_000_000
ARM = ("-m", "rhel9-aarch64")

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A directory with a dist, and with archives of Python for two architectures."""
    if sys.version_info[:2] != (3, 11) or os.uname().machine != "x86_64":
        pytest.skip("the packages are for Python 3.11 on x86_64")
    top = Path(tempfile.mkdtemp(prefix="for-others-"))
    top.chmod(0o755)
    (top / "dist/etc/cvmfs").mkdir(parents=True)
    for architecture in ("amd64", "arm64"):
        archive = top / f"python-{architecture}.tar.gz"
        archive.write_bytes(install_only_archive(architecture))
    yield top
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def members(home: Path) -> dict[str, bytes]:
    """What is in a file for aarch64."""
    done = pack(home, *ARM, *python(home, "arm64"), *libc("arm64"), output="arm")
    assert done.returncode == 0, done.stderr
    return members_of(home / "arm")


def members_of(file: Path) -> dict[str, bytes]:
    """Return the files that one carries, by name."""
    data = file.read_bytes()
    offset = re.search(rb"^_cvmfsexec_offset=0*([0-9]+)$", data, re.MULTILINE)
    assert offset is not None
    payload = io.BytesIO(data[int(offset[1]) - 1 :])
    with tarfile.open(fileobj=payload, mode="r:gz") as archive:
        found = {}
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None:
                found[member.name] = stream.read()
        return found


def python(home: Path, architecture: str) -> tuple[str, ...]:
    return ("--python", str(home / f"python-{architecture}.tar.gz"))


def libc(architecture: str) -> tuple[str, ...]:
    files = packages(LIBC, architecture)
    return tuple(word for file in files for word in ("--libc", str(file)))


def pack(
    home: Path, *words: str, output: str = "file", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``makedist WORD... -o``."""
    fixed = (str(ROOT / "makedist"), "--dist", str(home / "dist"))
    line = (*fixed, *words, "-o", str(home / output))
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        check=False,
        env={**plain_environment(), **variables},
        timeout=COMMAND_PATIENCE_S,
    )


def test_every_program_is_for_the_wanted_machine(members: dict[str, bytes]) -> None:
    found = {
        name: parse_elf(data).machine
        for name, data in members.items()
        if data.startswith(MAGIC)
    }
    assert set(found.values()) == {"aarch64"}
    wanted = {"bin/python", "lib/ld-linux-aarch64.so.1", "lib/libc.so.6"}
    assert wanted <= found.keys()
    for name in ("pycurl", "_rust.abi3", "_cffi_backend", "_dukpy", "_sqlite3"):
        assert any(f"/{name}" in path for path in found), name


def test_every_library_that_is_needed_is_there(members: dict[str, bytes]) -> None:
    names = {name.rpartition("/")[2] for name in members}
    for name, data in members.items():
        if data.startswith(MAGIC):
            assert set(parse_elf(data).needed) <= names, name


def test_modules_are_compiled_for_the_interpreter_in_it(
    members: dict[str, bytes],
) -> None:
    header = compile_module(b"", "x")[:8]
    modules = {name: data for name, data in members.items() if name.endswith(".pyc")}
    assert {data[:8] for data in modules.values()} == {header}
    assert {"lib/python3.11/os.pyc", "packages/cvmfsexec/session.pyc"} <= set(modules)
    assert not [name for name in members if name.endswith(".py")]


def test_what_is_in_it_runs_in_an_emulator(
    members: dict[str, bytes], tmp_path: Path
) -> None:
    (package,) = packages(("qemu-user-static",), "amd64")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path / "emulator"], check=True)
    top = tmp_path / "runtime"
    for name, data in members.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
        (top / name).chmod(0o755)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import bz2, ctypes, lzma, platform, sqlite3, ssl, zlib\n"
        "import deflate, dukpy, pycurl, tqdm, zstandard, cryptography.x509\n"
        "import cvmfsexec.distribution.making\n"
        "print(platform.machine(), dukpy.evaljs('1 + 1'), sys.executable)"
    )
    line = (
        tmp_path / "emulator/usr/bin/qemu-aarch64-static",
        *(top / "lib/ld-linux-aarch64.so.1", "--library-path", top / "lib"),
        *("--argv0", top / "bin/python3", top / "bin/python"),
        *("-I", "-S", "-X", "utf8", "-c", script, top / "packages"),
    )
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, timeout=COMMAND_PATIENCE_S
    )
    assert (done.stdout, done.stderr) == (f"aarch64 2 {top}/bin/python3\n", "")


def test_scripts_name_the_loader_of_the_machine(members: dict[str, bytes]) -> None:
    for name in ("launch", "bin/python3"):
        assert b"lib/ld-linux-aarch64.so.1" in members[name]
        assert b"x86-64" not in members[name]


def test_it_is_not_too_large(home: Path, members: dict[str, bytes]) -> None:
    assert members
    assert (home / "arm").stat().st_size <= SIZE_BYTES_MAX
    start = (home / "arm").read_bytes()[:200]
    assert b" for aarch64: unpacks itself" in start


def test_it_is_the_same_each_time(home: Path, members: dict[str, bytes]) -> None:
    assert members
    with HttpServer(
        {"/python.tar.gz": (home / "python-arm64.tar.gz").read_bytes()}
    ) as server:
        words = (*ARM, "--python", f"{server.url}/python.tar.gz", *libc("arm64"))
        done = pack(home, *words, output="again")
    assert done.returncode == 0, done.stderr
    # Our own package may be edited meanwhile; test_bundle packs it twice.
    assert others(members_of(home / "again")) == others(members)


def others(members: dict[str, bytes]) -> dict[str, bytes]:
    own = "packages/cvmfsexec/"
    return {name: one for name, one in members.items() if not name.startswith(own)}


def test_a_given_python_runs_where_there_is_nothing(home: Path) -> None:
    done = pack(home, *python(home, "amd64"), *libc("amd64"), output="given")
    assert done.returncode == 0, done.stderr
    script = "./cvmfsexec -- echo ran && .cvmfsexec/runtime-*/bin/python3 --version"
    said = in_bare_root(home / "given", script)
    assert said.stdout.splitlines()[0] == "ran", said.stderr
    assert said.stdout.splitlines()[1].startswith("Python 3.11.")


def test_for_this_machine_its_own_libc_will_do(home: Path) -> None:
    assert pack(home, *python(home, "amd64"), output="own").returncode == 0
    file = copied(home / "own", home / "copy")
    done = subprocess.run(
        line(file, "-N", "--", "echo", "ran"),
        capture_output=True,
        text=True,
        check=False,
        env=plain_environment(),
        timeout=COMMAND_PATIENCE_S,
    )
    assert (done.stdout, done.stderr) == ("ran\n", "")


def archive_of(*files: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files:
            header = tarfile.TarInfo(name)
            header.size, header.type = len(data), kind
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def program(machine: int, *, name: str = "python3.11") -> tuple[str, bytes]:
    """Return a program that is hardly more than its header."""
    ident = MAGIC + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0
    )
    return f"python/bin/{name}", ident + header


LIBRARY = ("python/lib/python3.11/os.py", b"")
ARM_MACHINE, INTEL_MACHINE = 183, 62

BAD_ARCHIVES = {
    "no archive": (b"neither archive nor anything", 16, "no archive of a relocatable"),
    "empty": (b"", 16, "no archive of a relocatable"),
    "cut": (archive_of(program(ARM_MACHINE), LIBRARY)[:90], 16, "cut short"),
    "damaged": (b"\x1f\x8b" + bytes(100), 16, "damaged"),
    "another layout": (
        archive_of(("python/install/bin/python3.11", b"")), 16, "install_only"
    ),
    "no library": (archive_of(program(ARM_MACHINE)), 16, "no python/lib/python3.11/os"),
    "two of them": (
        archive_of(
            program(ARM_MACHINE), program(ARM_MACHINE, name="python3.12"), LIBRARY
        ),
        16,
        "no python/bin/python3.N",
    ),
    "no program": (
        archive_of(("python/bin/python3.11", b"#!/bin/sh\n"), LIBRARY), 16, "not an ELF"
    ),
    "another machine": (
        archive_of(program(INTEL_MACHINE), LIBRARY), 1, "Python for x86_64, not for aar"
    ),
    "another version": (
        archive_of(
            program(ARM_MACHINE, name="python3.99"),
            ("python/lib/python3.99/os.py", b""),
        ),
        1,
        "has Python 3.99, and modules are compiled by 3.11",
    ),
    "upwards": (
        archive_of(program(ARM_MACHINE), LIBRARY, ("python/../../x", b"")),
        16,
        "forbidden path",
    ),
    "absolute": (
        archive_of(program(ARM_MACHINE), LIBRARY, ("/etc/x", b"")), 16, "forbidden path"
    ),
    "device": (archive_of(("python/x", b""), kind=tarfile.CHRTYPE), 16, "a device"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_a_bad_archive_is_refused(home: Path, name: str) -> None:
    data, status, said = BAD_ARCHIVES[name]
    (home / "bad.tar.gz").write_bytes(data)
    before = sorted(os.listdir(home))
    done = pack(
        home, *ARM, "--python", str(home / "bad.tar.gz"), *libc("arm64"),
        TMPDIR=str(home),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("makedist: ")
    assert done.stderr.count("\n") == 1
    assert sorted(os.listdir(home)) == before


def test_what_is_missing_is_said(home: Path) -> None:
    arm, gcc = python(home, "arm64"), libc("arm64")[2:]
    intel = libc("amd64")
    cases = {
        ARM: (1, "give an interpreter for aarch64 with --python"),
        (*ARM, *arm): (1, "needs the libc of a system of that architecture"),
        (*ARM, *arm, *gcc): (1, "no package given by --libc has the libc.so.6"),
        (*ARM, *arm, *intel): (1, "for x86_64, not for aarch64"),
        (*ARM, *arm, *libc("arm64")[:2]): (1, "needs libgcc_s.so.1, which is not"),
        (*ARM, *arm, "--libc", arm[1]): (16, "neither an RPM nor a Debian package"),
        (*ARM, "--python", "absent"): (2, "absent does not exist"),
        (*ARM, *arm, "--libc", str(home)): (2, "is not a file"),
        (*ARM, "--python", "ftp://x/y"): (2, "is no place for packages"),
        ("--libc", "x"): (2, "--libc is about --python"),
    }
    for words, (status, said) in cases.items():
        done = pack(home, *words)
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr
        assert not (home / "file").exists()


def test_an_archive_is_downloaded_once(home: Path, tmp_path: Path) -> None:
    """If its name says which it is; what is cut off is continued."""
    small = archive_of(program(ARM_MACHINE), LIBRARY)
    name = "cpython-3.11.9+20240814-aarch64-install_only.tar.gz"
    (tmp_path / "home").mkdir(mode=0o700)
    words = ("--libc", str(home / "python-arm64.tar.gz"))
    with HttpServer({f"/{name}": small, "/latest.tar.gz": small}) as server:
        server.misbehave(CutOff(100), path=name, times=1)
        for one in (name, name, "latest.tar.gz", "latest.tar.gz"):
            url = f"{server.url}/{one}"
            done = pack(
                home, *ARM, "--python", url, *words, HOME=str(tmp_path / "home")
            )
            assert "neither an RPM nor a Debian package" in done.stderr
        assert server.count(name) == 2
        assert server.requests[1].headers["range"] == "bytes=100-"
        assert server.count("latest.tar.gz") == 2


def test_an_archive_that_cannot_be_had_is_said(home: Path) -> None:
    with HttpServer({}) as server:
        url = f"{server.url}/python.tar.gz"
        done = pack(home, *ARM, "--python", url, *libc("arm64"))
    assert done.returncode == 16
    assert f"cannot download {url}" in done.stderr
    assert "HTTP status 404" in done.stderr


def test_wheels_that_cannot_be_had_are_said(home: Path, tmp_path: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    words = (*ARM, *python(home, "arm64"), *libc("arm64"))
    done = pack(home, *words, PIP_CONFIG_FILE="/dev/null", **offline)
    assert done.returncode == 1
    assert "pip cannot get the wheels for aarch64: No matching" in done.stderr
    assert "PIP_FIND_LINKS" in done.stderr


def test_a_damaged_wheel_is_refused(home: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "cffi-99.0-cp311-cp311-manylinux2014_aarch64.whl"
    wheel.write_bytes(b"no wheel")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    words = (*ARM, *python(home, "arm64"), *libc("arm64"))
    done = pack(home, *words, PIP_CONFIG_FILE="/dev/null", **offline)
    assert done.returncode == 1
    assert "pip cannot get the wheels" in done.stderr
