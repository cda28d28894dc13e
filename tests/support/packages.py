"""Real packages, built on the spot by ``rpmbuild`` and ``dpkg-deb``.

What they install is the same whatever the compression.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

RPM_PAYLOADS = {
    "gzip": "w9.gzdio",
    "xz": "w7.xzdio",
    "zstd": "w19.zstdio",
    "bzip2": "w9.bzdio",
    "lzma": "w7.lzdio",
    "none": "w.ufdio",
}
DEB_COMPRESSIONS = ("gzip", "xz", "zstd", "none")

Files = Mapping[str, bytes]
"""Contents by absolute path, such as ``/etc/cvmfs/default.d/50-x.conf``."""


def build_rpm(
    name: str,
    files: Files,
    *,
    version: str = "2.1",
    payload: str = "gzip",
    links: Mapping[str, str] | None = None,
    machine: str = "noarch",
) -> bytes:
    """Return an RPM package; it is ``NAME-VERSION-1.MACHINE.rpm``."""
    _need("rpmbuild")
    pairs = tuple(sorted(files.items())), tuple(sorted((links or {}).items()))
    return _build_rpm((name, version, machine), payload, *pairs)


def build_deb(
    name: str,
    files: Files,
    *,
    version: str = "2.1-1",
    compression: str = "xz",
    links: Mapping[str, str] | None = None,
) -> bytes:
    """Return a Debian package; it is ``NAME_VERSION_all.deb``."""
    _need("dpkg-deb")
    pairs = tuple(sorted(files.items())), tuple(sorted((links or {}).items()))
    return _build_deb(name, version, compression, *pairs)


_Pairs = tuple[tuple[str, bytes], ...]
_Links = tuple[tuple[str, str], ...]


@functools.cache
def _build_rpm(
    head: tuple[str, str, str], payload: str, files: _Pairs, links: _Links
) -> bytes:
    name, version, machine = head
    with tempfile.TemporaryDirectory(prefix="packages-") as top:
        _write(Path(top, "tree"), files, links)
        listed = "\n".join(path for path, _ in (*files, *links))
        Path(top, "x.spec").write_text(
            f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: x\nLicense: x\n"
            f"BuildArch: {machine}\nAutoReqProv: no\n%define debug_package %{{nil}}\n"
            f"%description\nx\n%install\n"
            f"cp -a {top}/tree/. %{{buildroot}}\n%files\n{listed}\n"
        )
        line = (
            *("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {top}/build"),
            *("--define", f"_binary_payload {RPM_PAYLOADS[payload]}", f"{top}/x.spec"),
        )
        _run(line, top)
        return next(Path(top).glob("build/RPMS/*/*.rpm")).read_bytes()


@functools.cache
def _build_deb(
    name: str, version: str, compression: str, files: _Pairs, links: _Links
) -> bytes:
    with tempfile.TemporaryDirectory(prefix="packages-") as top:
        tree = Path(top, "tree")
        _write(tree, files, links)
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
            "Maintainer: x <x@example.org>\nDescription: x\n"
        )
        tree.chmod(0o755)
        package = f"{top}/x.deb"
        line = ("dpkg-deb", f"-Z{compression}", "--root-owner-group", "-b")
        _run((*line, str(tree), package), top)
        return Path(package).read_bytes()


def _write(top: Path, files: _Pairs, links: _Links) -> None:
    top.mkdir()
    for name, content in files:
        path = top / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if content.startswith((b"\x7fELF", b"#!")) else 0o644)
    for name, target in links:
        path = top / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def _run(line: tuple[str, ...], home: str) -> None:
    done = subprocess.run(
        line,
        env={"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")


class SigningKey:
    """An OpenPGP key with which packages are signed, made in a directory.

    Attributes:
        public: File with the public key, in ASCII.
    """

    _NAME = "packager@example.org"

    def __init__(self, home: Path) -> None:
        """Make the key."""
        _need("gpg")
        _need("rpmsign")
        home.mkdir(mode=0o700)
        self._home = home
        self.public = home / "public.asc"
        options = ("--batch", "--passphrase", "", "--pinentry-mode", "loopback")
        self._gpg(*options, "--quick-generate-key", self._NAME, "rsa2048", "sign")
        self._gpg("--armor", "--output", str(self.public), "--export", self._NAME)

    def sign(self, package: bytes) -> bytes:
        """Return an RPM package with a signature in it."""
        path = self._home / "signed.rpm"
        path.write_bytes(package)
        settings = {
            "__gpg": shutil.which("gpg"),
            "_gpg_name": self._NAME,
            "_gpg_path": str(self._home),
        }
        defined = (("--define", f"{key} {value}") for key, value in settings.items())
        words = (word for pair in defined for word in pair)
        _run(("rpmsign", "--addsign", *words, str(path)), str(self._home))
        return path.read_bytes()

    def close(self) -> None:
        """End the agent that has the key."""
        line = ("gpgconf", "--homedir", str(self._home), "--kill", "all")
        _run(line, str(self._home))

    def _gpg(self, *words: str) -> None:
        line = ("gpg", "--homedir", str(self._home), "--quiet", *words)
        _run(line, str(self._home))
