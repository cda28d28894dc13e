"""Sessions that find their proxy by a file of the network, and use it."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import client_dist, run_cvmfs, run_exec, started_exec
from tests.support.http_server import ForwardProxy, HttpServer
from tests.support.published import FQRN, publish_tree, serve
from tests.support.sessions import ROOT, Caller, Place, callers, places, wait_until

CONFIG = "config.example.org"
OTHER = "other.example.org"
SHOW = ("sh", "-c", f"cat /cvmfs/{FQRN}/file")
LOOP = b"while (true) {}"

pytestmark = pytest.mark.kernel


class Site(NamedTuple):
    """Repositories, a proxy, and a server of proxy configuration files.

    Attributes:
        dist: Of the client; its proxy list is ``auto``.
        proxy: The only way that a file names.
        files: What the server of files serves, by path.
        pac: That server.
    """

    dist: Path
    proxy: ForwardProxy
    files: dict[str, bytes]
    pac: HttpServer

    def configure(self, *lines: str) -> None:
        """Add parameters that win."""
        directory = self.dist / "etc/cvmfs/domain.d"
        directory.mkdir(exist_ok=True)
        text = "".join(f"{line}\n" for line in lines)
        (directory / "example.org.local").write_text(text)

    def answer(self, answer: str) -> None:
        """Let the file say this."""
        script = f"function FindProxyForURL(url, host) {{ return '{answer}'; }}"
        self.files["/wpad.dat"] = script.encode()

    def name_the_proxy(self, rest: str = "") -> None:
        """Let the file name the proxy."""
        self.answer(f"PROXY {self.proxy.url.removeprefix('http://')}{rest}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    publish_tree(tmp_path, {"file": b"content\n"})
    publish_tree(tmp_path, {"file": b"other\n"}, OTHER)
    defaults = b"CVMFS_WHICH=configured\n"
    one = publish_tree(tmp_path, {"etc": {"cvmfs": {"default.conf": defaults}}}, CONFIG)
    files: dict[str, bytes] = {}
    with (
        serve(one.output) as base_url,
        ForwardProxy() as proxy,
        HttpServer(files) as pac,
        client_dist(
            base_url,
            one.master_key_pem,
            settings=f"CVMFS_HTTP_PROXY=auto\nCVMFS_PAC_URLS={pac.url}/wpad.dat\n",
        ) as dist,
    ):
        yield Site(dist, proxy, files, pac)


def skip_without_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no ::1: {error.strerror}")


@callers
@places
def test_session_uses_the_proxy_that_a_file_names(
    site: Site, caller: Caller, place: Place
) -> None:
    site.name_the_proxy("; DIRECT")
    if caller is Caller.ROOT and os.geteuid() == 0:
        for path in (site.dist.parent, *site.dist.parent.rglob("*")):
            os.chown(path, 0, 0)
    words = (
        f"cat /cvmfs/{FQRN}/file; getfattr -n user.proxy --only-values /cvmfs/{FQRN}"
    )
    done = run_exec(
        site.dist, FQRN, "--", "sh", "-c", words, caller=caller, place=place
    )
    assert done.stdout == f"content\n{site.proxy.url}"
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)  # getfattr's own
    assert site.proxy.count(FQRN) > 0


def test_proxy_with_an_ipv6_address_and_a_password(site: Site) -> None:
    skip_without_ipv6()
    with ForwardProxy(address="::1", credentials="am9iOnAvdyM=") as proxy:  # job:p/w#
        known = proxy.url.replace("//", "//job:p%2Fw%23@")
        site.configure(f"CVMFS_HTTP_PROXY='{known}'")
        show = f"cat /cvmfs/{FQRN}/file; getfattr -n user.proxy --only-values ."
        done = run_exec(site.dist, FQRN, "--", "sh", "-c", f"cd /cvmfs/{FQRN}; {show}")
        assert (done.stdout, done.returncode) == (f"content\n{proxy.url}", 0)
        assert proxy.count(FQRN) > 0
        told = run_cvmfs(site.dist, "proxy", FQRN).stdout.decode()
        assert f"Active proxy: {proxy.url}" in told
        assert "p%2F" not in told


def test_repositories_and_sessions_ask_once(site: Site) -> None:
    site.name_the_proxy()
    for _ in range(2):
        done = run_exec(site.dist, FQRN, OTHER, "--", "cat", f"/cvmfs/{OTHER}/file")
        assert (done.stdout, done.stderr, done.returncode) == ("other\n", "", 0)
    assert site.pac.count("/wpad.dat") == 1
    assert run_cvmfs(site.dist, "cat", FQRN, "/file").stdout == b"content\n"
    assert site.pac.count("/wpad.dat") == 1


def test_configured_repository_finds_it_in_the_private_root(site: Site) -> None:
    site.name_the_proxy()
    (site.dist / "etc/cvmfs/default.d").mkdir()
    (site.dist / "etc/cvmfs/default.d/50.conf").write_text(
        f"CVMFS_CONFIG_REPOSITORY={CONFIG}\n"
    )
    # Another file than that of the configuration repository, so that it is run there.
    (site.dist / "etc/cvmfs/config.d").mkdir()
    (site.dist / f"etc/cvmfs/config.d/{FQRN}.conf").write_text(
        f"CVMFS_PAC_URLS={site.pac.url}/again\n"
    )
    site.files["/again"] = site.files["/wpad.dat"]
    done = run_exec(site.dist, FQRN, "--", *SHOW)
    assert (done.stdout, done.stderr, done.returncode) == ("content\n", "", 0)
    assert (site.pac.count("/wpad.dat"), site.pac.count("/again")) == (1, 1)


def test_nothing_is_found(site: Site) -> None:
    done = run_exec(site.dist, FQRN, "--", *SHOW)
    assert (done.stdout, done.returncode) == ("", 23)
    assert f"{site.pac.url}/wpad.dat: HTTP status 404" in done.stderr
    assert "DIRECT must be written explicitly" in done.stderr


@pytest.mark.parametrize("script", [LOOP, b"<html>"], ids=("loop", "page"))
def test_file_that_is_no_good_does_not_keep_a_session_from_going_direct(
    site: Site, script: bytes
) -> None:
    site.files["/wpad.dat"] = script
    site.configure("CVMFS_HTTP_PROXY='auto;DIRECT'")
    done = run_exec(site.dist, FQRN, "--", *SHOW)
    assert (done.stdout, done.stderr, done.returncode) == ("content\n", "", 0)
    assert site.proxy.count() == 0


def test_tool_tells_of_the_mount(site: Site) -> None:
    dead = "http://127.0.0.1:1"
    site.configure(f"CVMFS_HTTP_PROXY='{dead};{site.proxy.url}'")
    tool = (str(ROOT / "cvmfs"), "proxy", FQRN, "--dist", str(site.dist))
    done = run_exec(site.dist, FQRN, "--", *tool)
    assert (done.stderr, done.returncode) == ("", 0)
    lines = done.stdout.splitlines()
    assert f"Active in /cvmfs/{FQRN}: {site.proxy.url}" in lines
    mount = lines[lines.index("Failed in the mount:") + 1]
    assert f" by {dead}: cannot connect" in mount


def test_proxy_of_another_day_is_used_when_the_file_is_gone(site: Site) -> None:
    site.name_the_proxy()
    assert run_exec(site.dist, FQRN, "--", *SHOW).returncode == 0
    (found,) = site.dist.rglob("proxies.discovered")
    found.unlink()
    site.files.clear()
    requests = site.proxy.count()
    done = run_exec(site.dist, FQRN, "--", *SHOW)
    assert (done.stdout, done.stderr, done.returncode) == ("content\n", "", 0)
    assert site.proxy.count() > requests


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name
)
@places
def test_nothing_is_left_of_a_session_that_is_ended_meanwhile(
    site: Site, number: signal.Signals, place: Place
) -> None:
    site.files["/wpad.dat"] = LOOP
    with started_exec(site.dist, FQRN, "--", "true", place=place) as session:
        engines: list[int] = []

        def is_running() -> bool:
            engines[:] = [
                child
                for pid in session.pids()
                for child in _children(pid)
                if b"pac_engine" in _command_line(child)
            ]
            return bool(engines)

        wait_until(is_running, "an engine runs")
        os.kill(session.process.pid, number)
        session.finish()
        wait_until(
            lambda: not any(b"pac_engine" in _command_line(pid) for pid in engines),
            "the engine has ended",
        )


def _children(pid: int) -> list[int]:
    try:
        return [
            int(word)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for word in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
