"""``makedist`` from a mirror, then ``cvmfsexec`` with the dist: the four words."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import (
    COMMAND_PATIENCE_S,
    give_to_ordinary_user,
    plain_environment,
    run_exec,
)
from tests.support.http_server import HttpServer
from tests.support.packages import build_deb, build_rpm
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Caller, skip_unless_possible, wrap

DOMAIN = FQRN.partition(".")[2]
PAC = b'function FindProxyForURL(url, host) { return "DIRECT"; }\n'

pytestmark = pytest.mark.kernel


class Mirror(NamedTuple):
    """Packages on a server, whose configuration leads to a repository.

    Attributes:
        url: Directory of the packages; ``pac`` is beside it.
        files: What each package installs.
    """

    url: str
    files: dict[str, bytes]


@pytest.fixture
def top() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="makedist-test-"))
    give_to_ordinary_user(directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    repository = publish_tree(tmp_path, {"hello": b"hello from the repository\n"})
    with serve(repository.output) as base_url:
        settings = (
            f"CVMFS_SERVER_URL={base_url}/@fqrn@\n"
            f"CVMFS_KEYS_DIR=/etc/cvmfs/keys/{DOMAIN}\n"
        )
        files = {
            f"/etc/cvmfs/domain.d/{DOMAIN}.conf": settings.encode(),
            f"/etc/cvmfs/keys/{DOMAIN}/{DOMAIN}.pub": repository.master_key_pem,
        }
        packages = {
            "cvmfs-config-default-2.1-1.noarch.rpm": build_rpm(
                "cvmfs-config-default", files, payload="gzip"
            ),
            "cvmfs-config-osg-2.1-1.noarch.rpm": build_rpm(
                "cvmfs-config-osg", files, payload="zstd"
            ),
            "cvmfs-config-egi_2.1-1_all.deb": build_deb(
                "cvmfs-config-egi", files, compression="xz"
            ),
        }
        page = "".join(f'<a href="{name}">{name}</a>\n' for name in packages).encode()
        served = {f"/mirror/{name}": content for name, content in packages.items()}
        with HttpServer({"/mirror/": page, "/pac": PAC, **served}) as server:
            yield Mirror(f"{server.url}/mirror/", files)


def make(top: Path, *words: str) -> Path:
    """Run ``makedist`` as an ordinary user; return the dist."""
    skip_unless_possible(Caller.ORDINARY)
    dist = top / "dist"
    done = subprocess.run(
        wrap((str(ROOT / "makedist"), "--dist", str(dist), *words), Caller.ORDINARY),
        env={**plain_environment(), "HOME": str(top)},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=COMMAND_PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return dist


def ask_for_proxies_at(dist: Path, mirror: Mirror) -> None:
    """Name the place of the PAC file in the file that is there for it."""
    local = dist / "etc/cvmfs/default.local"
    lines = local.read_text().splitlines()
    assert lines[0] == 'CVMFS_HTTP_PROXY="auto;DIRECT"'
    lines[1] = f'CVMFS_PAC_URLS="{mirror.url.replace("/mirror/", "/pac")}"'
    local.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("word", ["default", "osg", "egi"])
def test_a_named_configuration_mounts_its_repositories(
    word: str, top: Path, mirror: Mirror
) -> None:
    dist = make(top, word, "--from", mirror.url)
    ask_for_proxies_at(dist, mirror)
    done = run_exec(dist, FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello")
    assert (done.stdout, done.returncode) == ("hello from the repository\n", 0)
    assert done.stderr == ""


def test_none_mounts_what_the_user_adds(top: Path, mirror: Mirror) -> None:
    dist = make(top, "none")
    ask_for_proxies_at(dist, mirror)
    assert run_exec(dist, FQRN, "--", "true").returncode == 2  # unknown repository
    for name, content in mirror.files.items():
        path = dist / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    done = run_exec(dist, FQRN, "--", "cat", f"/cvmfs/{FQRN}/hello")
    assert (done.stdout, done.returncode) == ("hello from the repository\n", 0)


def test_it_belongs_to_the_user_and_holds_nothing_half(
    top: Path, mirror: Mirror
) -> None:
    dist = make(top, "osg", "--from", mirror.url)
    owner = top.stat().st_uid
    assert all(path.lstat().st_uid == owner for path in dist.rglob("*"))
    assert set(os.listdir(top)) == {"dist", ".cache"}
