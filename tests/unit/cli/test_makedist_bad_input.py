"""What ``makedist`` says to bad input, by the words of what was promised.

Whatever is wrong: one clear message, the status of its kind, and nothing changed.
"""

import gzip
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.http_server import Corrupt, HttpServer, Redirect, Status
from tests.support.packages import SigningKey, build_deb, build_rpm
from tests.support.sessions import ROOT

NAME = "cvmfs-config-default"
RPM = f"{NAME}-2.1-1.noarch.rpm"
FILES = {
    "/etc/cvmfs/default.d/50.conf": b"A=1\n",
    "/etc/cvmfs/keys/a.pub": b"-----BEGIN PUBLIC KEY-----\n",
}
PATIENCE_S = 120


class Case(NamedTuple):
    """One promise.

    Attributes:
        words: Returns what is on the command line, given an empty directory.
        status: Of the command.
        said: Parts of what it says.
    """

    words: Callable[[Path], tuple[str, ...]]
    status: int
    said: tuple[str, ...]


def deb(*members: tarfile.TarInfo) -> bytes:
    """Return a Debian package that no tool would build."""
    control = f"Package: {NAME}\nVersion: 2.1\n".encode()
    header = tarfile.TarInfo("./control")
    header.size = len(control)
    parts = {
        b"debian-binary": b"2.0\n",
        b"control.tar.gz": archive((header, control)),
        b"data.tar.gz": archive(*((member, b"x" * member.size) for member in members)),
    }
    package = b"!<arch>\n"
    for name, content in parts.items():
        head = name.ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644  "
        package += head + str(len(content)).encode().ljust(10) + b"`\n" + content
        package += b"\n" * (len(content) % 2)
    return package


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for header, content in members:
            made.addfile(header, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    header.size = 1 if kind == tarfile.REGTYPE else 0
    return header


def given(content: bytes, name: str = RPM) -> Callable[[Path], tuple[str, ...]]:
    """Return words that take a package from a file."""

    def words(top: Path) -> tuple[str, ...]:
        (top / name).write_bytes(content)
        return ("default", "--from", str(top / name))

    return words


def good() -> bytes:
    return build_rpm(NAME, FILES)


def damaged() -> bytes:
    data = bytearray(good())
    data[-20] ^= 1
    return bytes(data)


def unsigned(top: Path) -> tuple[str, ...]:
    key = SigningKey(top / "gpg")
    key.close()
    return (*given(good())(top), "--gpg-key", str(key.public))


def signed_by_another(top: Path) -> tuple[str, ...]:
    keys = [SigningKey(top / name) for name in ("one", "two")]
    signed = keys[0].sign(good())
    for key in keys:
        key.close()
    return (*given(signed)(top), "--gpg-key", str(keys[1].public))


def not_pinned(top: Path) -> tuple[str, ...]:
    (top / "pins").write_text(f"{'0' * 64}  other\n")
    return (*given(good())(top), "--pin", str(top / "pins"))


def into(place: str) -> Callable[[Path], tuple[str, ...]]:
    return lambda top: (*given(good())(top), "--dist", place.format(top=top))


def there_already(top: Path) -> tuple[str, ...]:
    (top / "there").mkdir()
    return (*given(good())(top), "--dist", str(top / "there"))


CLIENT = ("--client", "original", "-m", "rhel9-x86_64")


def client_from_nothing(top: Path) -> tuple[str, ...]:
    return (*given(good())(top), *CLIENT)


def client_of_no_program(top: Path) -> tuple[str, ...]:
    for name in ("cvmfs", "cvmfs-libs", "cvmfs-fuse3", "fuse3-libs"):
        package = build_rpm(name, {"/usr/bin/cvmfs2": b"no program"})
        (top / f"{name}-2.1-1.el9.x86_64.rpm").write_bytes(package)
    (top / RPM).write_bytes(good())
    return ("default", *CLIENT, "--from", str(top))


def client_of_two_versions(top: Path) -> tuple[str, ...]:
    words = client_of_no_program(top)
    package = build_rpm("cvmfs-libs", {"/usr/lib64/x": b"x"}, version="2.2")
    (top / "cvmfs-libs-2.2-1.el9.x86_64.rpm").write_bytes(package)
    return words


TRAVERSAL = "forbidden path"
CASES = {
    "wrong digest": Case(given(damaged()), 16, (RPM, "and should be")),
    "no signature": Case(unsigned, 15, (NAME, "has no signature")),
    "another's signature": Case(signed_by_another, 15, (NAME, "not signed")),
    "not pinned": Case(not_pinned, 15, ("not pinned", "--pin")),
    "malformed": Case(given(b"nothing of the kind"), 16, ("neither an RPM nor",)),
    "empty": Case(given(b""), 16, ("neither an RPM nor",)),
    "cut short": Case(given(good()[:-100]), 16, (RPM,)),
    "path upwards": Case(given(deb(member("./etc/cvmfs/../../x"))), 16, (TRAVERSAL,)),
    "absolute path": Case(given(deb(member("/etc/cvmfs/x"))), 16, (TRAVERSAL,)),
    "link upwards": Case(
        given(deb(member("./etc/cvmfs/x", tarfile.SYMTYPE, "../../passwd"))),
        16,
        ("not in its configuration",),
    ),
    "link to a file of the system": Case(
        given(deb(member("./etc/cvmfs/x", tarfile.SYMTYPE, "/etc/passwd"))),
        16,
        ("not in its configuration",),
    ),
    "below a link": Case(
        given(
            deb(
                member("./etc/cvmfs/keys", tarfile.SYMTYPE, "."),
                member("./etc/cvmfs/keys/x"),
            )
        ),
        16,
        ("below a symbolic link",),
    ),
    "hard link to what is not there": Case(
        given(deb(member("./etc/cvmfs/x", tarfile.LNKTYPE, "etc/passwd"))),
        16,
        ("to what is not in it",),
    ),
    "device": Case(
        given(deb(member("./etc/cvmfs/x", tarfile.CHRTYPE))), 16, ("device",)
    ),
    "twice": Case(
        given(deb(member("./etc/cvmfs/x"), member("./etc/cvmfs/x"))), 16, ("twice",)
    ),
    "disk full": Case(into("/dev/full/dist"), 1, ("cannot write /dev/full/dist",)),
    "nobody may write": Case(into("/proc/dist"), 1, ("cannot write /proc/dist",)),
    "dist exists": Case(there_already, 1, ("already exists", "--dist")),
    "unknown type": Case(
        lambda _: ("none", "-m", "vax"), 1, ("vax not a supported", "rhel9-x86_64")
    ),
    "unknown word": Case(lambda _: ("cern",), 2, ("Usage: makedist",)),
    "unknown client": Case(
        lambda _: ("none", "--client", "x"), 2, ("there is no client x",)
    ),
    "client without packages": Case(
        client_from_nothing, 16, ("no package cvmfs of the original client", "--from")
    ),
    "client that is no program": Case(
        client_of_no_program, 16, ("usr/bin/cvmfs2 is no program",)
    ),
    "client of two versions": Case(
        client_of_two_versions, 1, ("of different versions: 2.1, 2.2", "-v VERSION")
    ),
    "client of no version": Case(
        lambda top: (*client_of_no_program(top), "-v", "2.9.9"), 16, ("cvmfs 2.9.9",)
    ),
    "client for another system": Case(
        lambda top: (*client_of_no_program(top), "-m", "rhel8-aarch64"),
        16,
        ("for rhel8-aarch64",),
    ),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    place = () if "--dist" in words else ("--dist", str(home / "dist"))
    return subprocess.run(
        (str(ROOT / "makedist"), *place, *words),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def tree(top: Path) -> set[str]:
    return {str(path) for path in top.rglob("*")}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_and_nothing_is_changed(
    name: str, tmp_path: Path, home: Path
) -> None:
    words = CASES[name].words(tmp_path)
    before = tree(tmp_path)
    done = run(home, *words)
    assert (done.returncode, done.stdout) == (CASES[name].status, ""), done.stderr
    said = done.stderr.casefold()
    assert all(part.casefold() in said for part in CASES[name].said), done.stderr
    assert "traceback" not in said
    left = tree(tmp_path) - before
    assert not [one for one in left if "/.cache" not in one]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Corrupt(), "and should be"),
        (Status(410), "HTTP status 410"),
        (Status(404), "HTTP status 404"),
        (Redirect("ftp://127.0.0.1/x.rpm"), "ftp://127.0.0.1/x.rpm"),
    ],
)
def test_what_was_tried_is_said(
    behaviour: Corrupt | Status | Redirect, said: str, home: Path
) -> None:
    with HttpServer({f"/{RPM}": good()}) as server:
        server.misbehave(behaviour, path=RPM)
        url = f"{server.url}/{RPM}"
        done = run(home, "default", "--from", url)
    assert (done.returncode, done.stdout) == (16, "")
    assert url in done.stderr
    assert said in done.stderr
    assert os.listdir(home) in ([], [".cache"])


def test_where_to_look_is_said_of_official_places(home: Path) -> None:
    """Without a network, all of them are tried and told."""
    done = subprocess.run(
        ("unshare", "-rn", str(ROOT / "makedist"), "--dist", str(home / "d"), "egi"),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no namespace without a network here: {done.stderr}")
    assert done.returncode == 16
    assert "look at https://repository.egi.eu/" in done.stderr
    assert "--from FILE" in done.stderr
    assert done.stderr.count("  tried https://repository.egi.eu/") >= 2


def test_a_deb_that_a_tool_would_build_is_taken(home: Path, tmp_path: Path) -> None:
    """What the cases above begin with is sound."""
    (tmp_path / "x.deb").write_bytes(deb(member("./etc/cvmfs/x")))
    assert run(home, "default", "--from", str(tmp_path / "x.deb")).returncode == 0
    real = build_deb(NAME, FILES)
    (tmp_path / "y.deb").write_bytes(real)
    again = ("--dist", str(home / "again"))
    assert run(home, "default", *again, "--from", f"{tmp_path}/y.deb").returncode == 0
