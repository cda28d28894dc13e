"""The configuration repository of a session: there, lost, required, and asked for."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import client_dist, plain_environment, run_cvmfs, run_exec
from tests.support.host_mounts import CONFIG, configure
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Caller, skip_unless_possible, wrap

SHOW = ("sh", "-c", f"cat /cvmfs/{FQRN}/$(readlink /cvmfs/{FQRN}/link)")

pytestmark = pytest.mark.kernel


class Site(NamedTuple):
    """A repository whose link depends on the configuration repository.

    Attributes:
        dist: Of the client.
    """

    dist: Path

    @property
    def settings(self) -> Path:
        """The file of the dist that tests write."""
        return self.dist / "etc/cvmfs/default.d/90.conf"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    publish_tree(
        tmp_path,
        {"etc": {"cvmfs": {"default.conf": b"CVMFS_WHICH=configured\n"}}},
        CONFIG,
    )
    one = publish_tree(
        tmp_path,
        {"link": "$(CVMFS_WHICH:-bare)", "configured": b"with\n", "bare": b"without\n"},
    )
    with (
        serve(one.output) as base_url,
        client_dist(base_url, one.master_key_pem) as dist,
    ):
        configure(dist)
        yield Site(dist)


def lose(site: Site) -> None:
    """Let the configuration repository be where nobody answers."""
    file = site.dist / f"etc/cvmfs/config.d/{CONFIG}.conf"
    file.parent.mkdir()
    file.write_text("CVMFS_SERVER_URL=http://127.0.0.1:1/@fqrn@\n")


def test_its_files_count(site: Site) -> None:
    done = run_exec(site.dist, FQRN, "--", *SHOW)
    assert (done.stdout, done.stderr, done.returncode) == ("with\n", "", 0)
    assert run_cvmfs(site.dist, "cat", FQRN, "/link").stdout == b"with\n"


def test_its_files_count_where_the_host_cannot_pivot(site: Site) -> None:
    # Then the private root lies over the old one, and each has to step on it.
    skip_unless_possible(Caller.ORDINARY)
    command = (str(ROOT / "cvmfsexec"), "--dist", str(site.dist), FQRN, "--", *SHOW)
    seccomp = (sys.executable, str(ROOT / "tests/support/seccomp.py"))
    done = subprocess.run(
        wrap((*seccomp, "pivot_root", "EINVAL", "--", *command), Caller.ORDINARY),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=plain_environment(),
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("with\n", "", 0)


def test_without_it_the_others_go_on(site: Site) -> None:
    lose(site)
    done = run_exec(site.dist, FQRN, "--", *SHOW)
    assert (done.stdout, done.returncode) == ("without\n", 0)
    why, what = done.stderr.splitlines()
    assert why.startswith(f"cvmfsexec: {CONFIG}: ")
    assert "127.0.0.1:1" in why
    assert what == (
        f"cvmfsexec: {FQRN}: going on without the configuration repository {CONFIG}"
    )


def test_tools_go_on_without_it(site: Site) -> None:
    lose(site)
    done = run_cvmfs(site.dist, "cat", FQRN, "/link")
    assert (done.stdout, done.returncode) == (b"without\n", 0)
    assert b"going on without" in done.stderr


def test_required_it_must_be_there(site: Site) -> None:
    lose(site)
    site.settings.write_text("CVMFS_CONFIG_REPO_REQUIRED=yes\n")
    done = run_exec(site.dist, FQRN, "--", *SHOW)
    assert (done.stdout, done.returncode) == ("", 2)
    assert f"the required configuration repository {CONFIG}" in done.stderr
    told = run_cvmfs(site.dist, "cat", FQRN, "/link")
    assert (told.stdout, told.returncode) == (b"", 2)


@pytest.mark.parametrize(
    "repositories", [(), (CONFIG,), (FQRN, CONFIG)], ids=["alone", "asked for", "last"]
)
def test_asked_for_it_must_be_there(site: Site, repositories: tuple[str, ...]) -> None:
    lose(site)
    done = run_exec(site.dist, *repositories, "--", "echo", "never")
    assert (done.stdout, done.returncode) == ("", 16)
    assert f"cvmfsexec: {CONFIG}: " in done.stderr
