"""``makedist`` as it is called: what it makes, says and refuses."""

import hashlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec.cli.makedist_cmd import UsageError, Words, parse_words
from tests.support.authority import Authority
from tests.support.http_server import (
    Corrupt,
    CutOff,
    HttpServer,
    Oversized,
    Redirect,
    Slow,
    Stall,
    Status,
)
from tests.support.packages import SigningKey, build_deb, build_rpm
from tests.support.sessions import ROOT, wait_until
from tests.unit.cli.test_progress import on_terminal

KEY = b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
KEY_SHA256 = hashlib.sha256(KEY).hexdigest()
FILES = {
    "/etc/cvmfs/default.d/50-osg.conf": b"CVMFS_DEFAULT_DOMAIN=example.org\n",
    "/etc/cvmfs/keys/osg.pub": KEY,
    "/usr/share/doc/x": b"not wanted",
}
OSG = "cvmfs-config-osg"
NAME = f"{OSG}-2.1-1.noarch.rpm"
PATIENCE_S = 60


class Site(NamedTuple):
    """Where a user calls it."""

    top: Path

    @property
    def dist(self) -> Path:
        return self.top / "dist"

    def command(self, *words: str) -> tuple[str, ...]:
        return (str(ROOT / "makedist"), "--dist", str(self.dist), *words)

    def environment(self, **variables: str) -> dict[str, str]:
        plain = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(self.top)}
        return plain | variables

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env=self.environment(**variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )

    def left(self) -> set[str]:
        """Return what lies beside the cache."""
        return set(os.listdir(self.top)) - {".cache"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packages") / NAME
    path.write_bytes(build_rpm(OSG, FILES))
    return path


@pytest.fixture
def mirror(package: Path) -> Iterator[HttpServer]:
    page = f'<a href="{NAME}">{NAME}</a>'.encode()
    content = package.read_bytes()
    with HttpServer({"/el9/": page, f"/el9/{NAME}": content}) as server:
        yield server


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("default", Words("default")),
        ("-s osg", Words("osg", is_for_singularity=True)),
        (
            "-m rhel9-x86_64 -s -v 2.12.0 egi",
            Words("egi", "", "rhel9-x86_64", "2.12.0", is_for_singularity=True),
        ),
        ("-v 2.12 -m suse15-x86_64 none", Words("none", "", "suse15-x86_64", "2.12")),
        ("osg --from a --from b", Words("osg", places=("a", "b"))),
        (
            "--pin p --gpg-key k --dist d osg",
            Words("osg", pin_file="p", gpg_key="k", dist="d"),
        ),
        ("-o file", Words(output="file")),
        ("-s -o file", Words(output="file", is_for_singularity=True)),
        ("--help", Words(wants_help=True)),
    ],
)
def test_words_of_the_original_and_ours_are_understood(
    line: str, expected: Words
) -> None:
    assert parse_words(line.split()) == expected


@pytest.mark.parametrize(
    "line",
    ["", "debian", "default osg", "-q default", "-o", "-o file default", "-v x osg"],
)
def test_others_get_the_usage_and_status_2(site: Site, line: str) -> None:
    with pytest.raises(UsageError):
        parse_words(line.split())
    done = site.run(*line.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: makedist " in done.stderr
    assert site.left() == set()


def test_help_tells_the_options(site: Site) -> None:
    done = site.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--from", "--pin", "--gpg-key", "--dist", "-m", "-s", "-v", "-o"):
        assert f"  {option} " in done.stdout


def test_a_machine_type_that_is_unknown_is_refused(site: Site) -> None:
    done = site.run("-m", "rhel6-x86_64", "none")
    assert done.returncode == 1
    assert "rhel6-x86_64 not a supported machine type" in done.stderr
    assert site.left() == set()


def test_none_has_nothing_but_the_defaults(site: Site) -> None:
    done = site.run("-m", "rhel8-aarch64", "none")
    assert (done.returncode, done.stdout) == (0, "")
    etc = site.dist / "etc/cvmfs"
    assert (etc / "default.local").read_text() == (
        'CVMFS_HTTP_PROXY="auto;DIRECT"\n'
        'CVMFS_PAC_URLS="http://grid-wpad/wpad.dat;http://wpad/wpad.dat;'
        'http://cernvm-wpad.cern.ch/wpad.dat;http://cernvm-wpad.fnal.gov/wpad.dat"\n'
    )
    assert (site.dist / ".cvmfsexecdist").read_text() == (
        "disttype: standard\nmachtype: rhel8-aarch64\n"
    )
    assert (site.dist / "etc/os-release").read_text() == (
        'ID_LIKE="rhel"\nVERSION_ID="8"\n'
    )
    names = {"config.d", "default.conf", "default.d", "default.local", "domain.d"}
    assert set(os.listdir(etc)) == names | {"keys"}
    assert not any(os.listdir(etc / name) for name in ("config.d", "default.d", "keys"))
    assert set(os.listdir(site.dist)) == {".cvmfsexecdist", "cvmfs", "etc", "var"}


def test_a_package_brings_its_configuration(site: Site, package: Path) -> None:
    done = site.run("-s", "osg", "--from", str(package))
    assert (done.returncode, done.stdout) == (0, "")
    etc = site.dist / "etc/cvmfs"
    assert (etc / "keys/osg.pub").read_bytes() == KEY
    assert (etc / "default.d/50-osg.conf").exists()
    assert not (site.dist / "usr").exists()
    pacs = (etc / "default.local").read_text()
    assert pacs.index("fnal") < pacs.index("cern.ch")
    assert (site.dist / ".cvmfsexecdist").read_text().startswith("disttype: sing\n")


def test_package_and_keys_are_shown(site: Site, package: Path) -> None:
    lines = site.run("osg", "--from", str(package)).stderr.splitlines()
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    assert lines[:3] == [
        f"makedist: {OSG} 2.1-1 from {package}",
        f"makedist:   package {sha256}",
        f"makedist:   trusted key {KEY_SHA256} keys/osg.pub",
    ]


def test_a_directory_gives_its_newest_package(site: Site, package: Path) -> None:
    newer = package.parent / f"{OSG}_2.2-1_all.deb"
    newer.write_bytes(build_deb(OSG, FILES, version="2.2-1"))
    done = site.run("osg", "--from", str(package.parent))
    assert f"{OSG} 2.2-1 from {newer}" in done.stderr


def test_none_takes_all_packages_that_the_user_adds(site: Site, package: Path) -> None:
    other = package.parent / "cvmfs-config-site_1-1_all.deb"
    files = {"/etc/cvmfs/config.d/a.conf": b"A=1\n"}
    other.write_bytes(build_deb("cvmfs-config-site", files, version="1-1"))
    assert site.run("none", "--from", str(package.parent)).returncode == 0
    assert (site.dist / "etc/cvmfs/keys/osg.pub").exists()
    assert (site.dist / "etc/cvmfs/config.d/a.conf").exists()


def test_another_package_than_the_word_says_is_refused(
    site: Site, package: Path
) -> None:
    done = site.run("egi", "--from", str(package))
    assert done.returncode == 2
    assert "is the package cvmfs-config-osg, and not cvmfs-config-egi" in done.stderr
    assert site.left() == set()


def test_a_dist_that_exists_stays(site: Site, package: Path) -> None:
    site.dist.mkdir()
    done = site.run("osg", "--from", str(package))
    assert done.returncode == 1
    assert f"{site.dist} already exists" in done.stderr
    assert os.listdir(site.dist) == []


def test_a_mirror_gives_its_newest_package_once(site: Site, mirror: HttpServer) -> None:
    place = f"{mirror.url}/el9"
    done = site.run("osg", "--from", place)
    assert done.returncode == 0, done.stderr
    assert "http tells nobody whose package it is" in done.stderr
    (site.dist / "etc/cvmfs/keys/osg.pub").unlink()
    site.dist.rename(site.top / "old")
    assert site.run("osg", "--from", place).returncode == 0
    assert (mirror.count("/el9/"), mirror.count(NAME)) == (3, 1)


def test_a_damaged_package_that_was_kept_is_fetched_again(
    site: Site, mirror: HttpServer
) -> None:
    assert site.run("osg", "--from", mirror.url + "/el9").returncode == 0
    (kept,) = (site.top / ".cache/cvmfsexec/packages").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    site.dist.rename(site.top / "old")
    assert site.run("osg", "--from", mirror.url + "/el9").returncode == 0
    assert mirror.count(NAME) == 2


def test_the_next_place_is_tried(site: Site, mirror: HttpServer) -> None:
    words = ("--from", f"{mirror.url}/gone", "--from", f"{mirror.url}/lost.rpm")
    done = site.run("osg", *words, "--from", f"{mirror.url}/el9/{NAME}")
    assert done.returncode == 0, done.stderr


def test_all_that_was_tried_is_told(site: Site, mirror: HttpServer) -> None:
    done = site.run(
        "osg", "--from", f"{mirror.url}/gone", "--from", f"{mirror.url}/a.rpm"
    )
    assert done.returncode == 16
    assert f"no package {OSG} could be had; " in done.stderr
    assert f"tried {mirror.url}/gone/ via DIRECT: HTTP status 404" in done.stderr
    assert f"tried {mirror.url}/a.rpm via DIRECT: HTTP status 404" in done.stderr
    assert "--from FILE" in done.stderr
    assert site.left() == set()


@pytest.mark.parametrize(
    "behaviour", [Corrupt(), Status(200), Status(404), Redirect("/loop"), Oversized(9)]
)
def test_what_is_not_the_package_is_refused(
    site: Site, mirror: HttpServer, behaviour: object
) -> None:
    mirror.misbehave(behaviour, path=NAME)  # type: ignore[arg-type]
    mirror.misbehave(Redirect("/loop"), path="loop")
    done = site.run("osg", "--from", f"{mirror.url}/el9/{NAME}")
    assert done.returncode == 16, done.stderr
    assert "Traceback" not in done.stderr
    assert site.left() == set()


def test_what_was_interrupted_is_resumed(site: Site, mirror: HttpServer) -> None:
    words = ("osg", "--from", f"{mirror.url}/el9/{NAME}")
    mirror.misbehave(Stall(5000), path=NAME)
    process = subprocess.Popen(
        site.command(*words),
        env=site.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    packages = site.top / ".cache/cvmfsexec/packages"

    def part_is_there() -> bool:
        return any(path.stat().st_size for path in packages.glob("*.part"))

    try:
        wait_until(part_is_there, "a part of the package is there")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGINT  # at once
    assert "Traceback" not in errors
    assert site.left() == set()
    mirror.behave()
    assert site.run(*words).returncode == 0
    assert mirror.requests[-1].headers["range"].startswith("bytes=")


def test_a_connection_that_breaks_is_continued(site: Site, mirror: HttpServer) -> None:
    mirror.misbehave(CutOff(3000), path=NAME, times=1)
    done = site.run("osg", "--from", f"{mirror.url}/el9/{NAME}")
    assert done.returncode == 0
    assert mirror.requests[-1].headers["range"] == "bytes=3000-"


def test_https_needs_somebody_who_vouches(
    site: Site, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    files = {f"/{NAME}": package.read_bytes()}
    with HttpServer(files, authority.context()) as server:
        words = ("osg", "--from", f"{server.url}/{NAME}")
        done = site.run(*words)
        assert done.returncode == 16
        assert "host refuses the connection" in done.stderr
        done = site.run(*words, SSL_CERT_FILE=str(authority.bundle))
    assert done.returncode == 0, done.stderr
    assert "http tells nobody" not in done.stderr


def test_a_terminal_shows_that_something_comes_in(
    site: Site, mirror: HttpServer
) -> None:
    mirror.misbehave(Slow(2000), path=NAME)
    line = site.command("osg", "--from", f"{mirror.url}/el9/{NAME}")
    shown = on_terminal("env", f"HOME={site.top}", "PATH=/usr/bin:/bin", *line)
    assert b"looking for packages: " in shown
    assert b"kB [" in shown
    assert b"made " in shown


def test_the_proxy_of_the_environment_is_used(site: Site, mirror: HttpServer) -> None:
    place = "http://mirror.example.org/el9/"
    done = site.run("osg", "--from", place, http_proxy=mirror.url)
    assert done.returncode == 0, done.stderr


def test_only_pinned_keys_are_accepted(site: Site, package: Path) -> None:
    pins = site.top / "pins"
    pins.write_text(f"{'0' * 64}\n")
    words = ("osg", "--from", str(package), "--pin", str(pins))
    done = site.run(*words)
    assert done.returncode == 15
    assert f"with SHA-256 {KEY_SHA256}, which is not pinned" in done.stderr
    assert not site.dist.exists()
    pins.write_text(f"{KEY_SHA256}  keys/osg.pub\n")
    assert site.run(*words).returncode == 0


def test_only_signed_packages_are_accepted(
    site: Site, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = SigningKey(tmp_path_factory.mktemp("gpg") / "home")
    try:
        words = ("osg", "--from", str(package), "--gpg-key", str(key.public))
        done = site.run(*words)
        assert done.returncode == 15
        assert "has no signature" in done.stderr
        package.write_bytes(key.sign(package.read_bytes()))
        assert site.run(*words).returncode == 0
    finally:
        key.close()


@pytest.mark.parametrize(
    "files",
    [
        {"/usr/share/doc/x": b"x"},
        {"/etc/cvmfs/default.d": b"x", "/etc/cvmfs/default.d.conf": b"x"},
    ],
)
def test_a_package_that_is_no_configuration_changes_nothing(
    site: Site, package: Path, files: dict[str, bytes]
) -> None:
    package.write_bytes(build_rpm(OSG, files))
    done = site.run("osg", "--from", str(package))
    assert done.returncode in {1, 16}
    assert "Traceback" not in done.stderr
    assert site.left() == set()


def test_links_out_of_the_configuration_change_nothing(
    site: Site, package: Path
) -> None:
    package.write_bytes(build_rpm(OSG, FILES, links={"/etc/cvmfs/l": "/etc/passwd"}))
    done = site.run("osg", "--from", str(package))
    assert done.returncode == 16
    assert "not in its configuration" in done.stderr
    assert site.left() == set()


def test_of_several_at_once_one_makes_it(site: Site, package: Path) -> None:
    processes = [
        subprocess.Popen(
            site.command("osg", "--from", str(package)),
            env=site.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ends = []
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE_S)
        ends.append(process.returncode)
        assert process.returncode == 0 or "already exists" in errors
    assert sorted(ends) == [0, 1, 1, 1]
    assert site.left() == {"dist"}


def run_on_a_full_disk(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it where no file can have more than 50 kB."""

    def allow_little() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    return subprocess.run(
        site.command(*words),
        env=site.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        preexec_fn=allow_little,
    )


def test_a_full_disk_changes_nothing(site: Site, package: Path) -> None:
    big = {**FILES, "/etc/cvmfs/config.d/big.conf": b"#" * 100_000}
    package.write_bytes(build_rpm(OSG, big))
    done = run_on_a_full_disk(site, "osg", "--from", str(package))
    assert done.returncode == 1
    assert f"cannot write {site.dist}: File too large" in done.stderr
    assert site.left() == set()


def test_a_disk_too_full_for_the_download_is_said(site: Site) -> None:
    name = f"{OSG}-3.0-1.noarch.rpm"
    with HttpServer({f"/{name}": bytes(100_000)}) as server:
        done = run_on_a_full_disk(site, "osg", "--from", f"{server.url}/{name}")
    assert done.returncode == 1
    assert "cannot write what comes from" in done.stderr
    assert "Traceback" not in done.stderr
    assert site.left() == set()


def test_where_nobody_may_write_is_said(site: Site, package: Path) -> None:
    done = site.run("osg", "--dist", "/proc/dist", "--from", str(package))
    assert done.returncode == 1
    assert "cannot write /proc/dist" in done.stderr


def test_the_variable_says_where(site: Site) -> None:
    done = subprocess.run(
        (str(ROOT / "makedist"), "none"),
        env=site.environment(CVMFSEXEC_DIST=str(site.dist)),
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0
    assert site.dist.is_dir()
