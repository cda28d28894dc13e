"""``cvmfs proxy``, ``cvmfs host`` and ``cvmfs probe``, with servers on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvmfsexec.cli import mounted, routes
from cvmfsexec.cli.mounted import Mounted
from tests.support.cvmfs_command import CvmfsCommand, Told, local_dist
from tests.support.http_server import ForwardProxy, HttpServer, Status
from tests.support.published import FQRN, PublishedRepository, publish_tree

DEAD = "http://127.0.0.1:1"


class Site:
    """A repository behind a server and a proxy."""

    def __init__(
        self,
        directory: Path,
        repository: PublishedRepository,
        cvmfs: CvmfsCommand,
    ) -> None:
        self.server = HttpServer(str(repository.output))
        self.proxy = ForwardProxy()
        self.pac: dict[str, bytes] = {}
        self.pac_server = HttpServer(self.pac)
        self._directory = directory
        self._key = repository.master_key_pem
        self._output = repository.output
        self._cvmfs = cvmfs

    def say(self, *words: str, **settings: str) -> Told:
        """Run a command with a configuration of its own."""
        values = {"CVMFS_SERVER_URL": f"{self.server.url}/@fqrn@", **settings}
        dist = local_dist(self._directory / "home", self._output, self._key, values)
        return self._cvmfs(*words, "--dist", dist)

    def json(self, *words: str, **settings: str) -> Any:  # noqa: ANN401 -- JSON
        """Return what a command says to programs."""
        told = self.say(*words, "--json", **settings)
        return json.loads(told.out)


@pytest.fixture
def site(tmp_path: Path, cvmfs: CvmfsCommand) -> Iterator[Site]:
    repository = publish_tree(tmp_path, {"file": b"content\n"})
    one = Site(tmp_path, repository, cvmfs)
    with one.server, one.proxy, one.pac_server:
        yield one


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)


def test_proxies_are_told_with_what_they_do(site: Site) -> None:
    named = site.proxy.url.replace("127.0.0.1", "localhost")
    told = site.say(
        "proxy", FQRN, CVMFS_HTTP_PROXY=f"{DEAD}|{named};DIRECT", CVMFS_MAX_RETRIES="9"
    )
    assert (told.status, told.err) == (0, "")
    text = told.out.decode()
    port = site.proxy.url.rpartition(":")[2]
    assert f"[0] {DEAD} (down: cannot connect" in text
    assert f"    {site.proxy.url} (localhost:{port}, " in text
    assert "[1] DIRECT" in told.lines
    assert f"Active proxy: {site.proxy.url}" in told.lines
    assert told.lines[0].startswith("CVMFS_HTTP_PROXY=")
    assert "default.local" in told.lines[0]


def test_failures_are_told_with_their_time(site: Site) -> None:
    said = site.json("proxy", FQRN, CVMFS_HTTP_PROXY=f"{DEAD};{site.proxy.url}")
    assert said["active"] == site.proxy.url
    (failure,) = said["failures"]
    assert failure["proxy"] == DEAD
    assert "cannot connect" in failure["text"]
    assert failure["at"].startswith("20")
    told = site.say("proxy", FQRN, CVMFS_HTTP_PROXY=f"{DEAD};{site.proxy.url}")
    assert "Failed now:" in told.lines


def test_what_was_found_for_auto_is_told(site: Site) -> None:
    where = site.proxy.url.removeprefix("http://")
    script = f"function FindProxyForURL() {{ return 'PROXY {where}; DIRECT'; }}"
    site.pac["/wpad.dat"] = script.encode()
    urls = f"{site.pac_server.url}/none;{site.pac_server.url}/wpad.dat"
    settings = {"CVMFS_HTTP_PROXY": "auto", "CVMFS_PAC_URLS": urls}
    told = site.say("proxy", FQRN, **settings)
    assert told.status == 0
    assert f"auto: {site.pac_server.url}/wpad.dat" in told.lines
    assert f"  in vain: {site.pac_server.url}/none: HTTP status 404" in told.lines
    assert f"Active proxy: {site.proxy.url}" in told.lines
    said = site.json("proxy", FQRN, **settings)
    assert said["discovery"]["origin"].endswith(" ago")
    assert site.pac_server.count() == 2


def test_nothing_found_is_an_error_that_tells_what_was_tried(site: Site) -> None:
    told = site.say("proxy", FQRN, CVMFS_HTTP_PROXY="auto", CVMFS_PAC_URLS=DEAD + "/x")
    assert (told.status, told.out) == (23, b"")
    assert f"{DEAD}/x: cannot connect" in told.err


@pytest.mark.parametrize("command", ["proxy", "host", "probe", "ls"])
def test_endless_failover_does_not_make_commands_endless(
    site: Site, command: str
) -> None:
    settings = {"CVMFS_HTTP_PROXY": DEAD, "CVMFS_FAILOVER_INDEFINITELY": "yes"}
    told = site.say(command, FQRN, **settings)
    assert told.status != 0
    assert "cannot connect" in told.err


def test_no_proxy_works(site: Site) -> None:
    told = site.say("proxy", FQRN, CVMFS_HTTP_PROXY=DEAD)
    assert told.status == 16
    assert "Active proxy: none works" in told.lines
    assert "cannot download .cvmfspublished" in told.err
    assert site.server.count() == 0


def test_fallback_proxies_are_marked(site: Site) -> None:
    said = site.json(
        "proxy", FQRN, CVMFS_HTTP_PROXY=DEAD, CVMFS_FALLBACK_PROXY=site.proxy.url
    )
    groups = said["groups"]
    assert [group["is_fallback"] for group in groups] == [False, True]
    assert said["active"] == site.proxy.url


def test_nobody_is_asked_directly_uninvited(site: Site) -> None:
    site.say("proxy", FQRN, CVMFS_HTTP_PROXY=f"{DEAD};{site.proxy.url};DIRECT")
    site.say("host", FQRN, CVMFS_HTTP_PROXY=f"{DEAD};{site.proxy.url};DIRECT")
    assert site.server.count() == site.proxy.count()


def test_passwords_are_not_shown(site: Site) -> None:
    secret = site.proxy.url.replace("//", "//user:secret@")
    settings = {
        "CVMFS_HTTP_PROXY": f"user:secret@127.0.0.1:1|{secret};DIRECT",
        "CVMFS_SERVER_URL": site.server.url.replace("//", "//u:secret@") + "/@fqrn@",
    }
    for words in (["proxy", FQRN], ["proxy", FQRN, "--json"], ["host", FQRN]):
        told = site.say(*words, **settings)
        assert b"127.0.0.1:" in told.out
        assert "secret" not in told.out.decode() + told.err


def test_servers_are_told_with_their_distance(site: Site) -> None:
    servers = f"{DEAD}/@fqrn@;{site.server.url}/@fqrn@"
    told = site.say("host", FQRN, CVMFS_SERVER_URL=servers)
    assert (told.status, told.err) == (0, "")
    assert told.lines[0].startswith(f"  [0] {DEAD}/{FQRN} (host down: cannot connect")
    assert told.lines[1].startswith(f"  [1] {site.server.url}/{FQRN} (")
    assert told.lines[1].endswith(" ms)")
    assert f"Active host: {site.server.url}/{FQRN}" in told.lines
    said = site.json("host", FQRN, CVMFS_SERVER_URL=servers)
    first, second = said["servers"]
    assert first["milliseconds"] is None
    assert second["milliseconds"] > 0
    assert said["mounted"] is None


def test_servers_say_which_of_them_is_near(site: Site) -> None:
    here, there = site.server.url, site.server.url.replace("127.0.0.1", "localhost")
    geo = f"/{FQRN}/api/v1.0/geo/"
    site.server.misbehave(Status(200, body=b"2,1\n"), path=geo)
    settings = {
        "CVMFS_SERVER_URL": f"{here}/@fqrn@;{there}/@fqrn@",
        "CVMFS_USE_GEOAPI": "yes",
    }
    told = site.say("host", FQRN, **settings)
    assert told.status == 0
    assert told.lines[0].startswith(f"  [0] {there}/{FQRN} (geographically ordered, ")
    assert site.json("host", FQRN, **settings)["is_geographically_ordered"]
    site.server.behave()
    assert not site.json("host", FQRN, **settings)["is_geographically_ordered"]


def test_no_server_answers(site: Site) -> None:
    site.server.misbehave(Status(500))
    told = site.say("host", FQRN)
    assert told.status == 16
    assert "(host down: HTTP status 500)" in told.lines[0]
    assert "Active host: none answers" in told.lines


def test_state_of_a_mount_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Mounted("/cvmfs/r", "http://s", "http://p", ("yesterday it failed\x1b",))
    monkeypatch.setattr(routes, "mounted", lambda _fqrn: live)
    told = site.say("proxy", FQRN)
    assert "Active in /cvmfs/r: http://p" in told.lines
    assert "  yesterday it failed\\x1b" in told.lines
    assert "Active in /cvmfs/r: http://s" in site.say("host", FQRN).lines
    assert site.json("host", FQRN)["mounted"]["proxy"] == "http://p"


def test_what_is_no_mount_of_ours_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mounted.mounted("nosuch.example.org") is None
    monkeypatch.setattr(mounted, "_is_mountpoint", lambda _path: True)
    assert mounted.mounted("nosuch.example.org") is None


def test_probe(site: Site) -> None:
    told = site.say("probe", FQRN)
    assert (told.status, told.err) == (0, "")
    assert told.lines == [f"Probing /cvmfs/{FQRN}... OK"]


def test_probe_of_all_that_the_site_uses(site: Site) -> None:
    names = f"{FQRN},none.example.org"
    told = site.say("probe", CVMFS_REPOSITORIES=names)
    assert told.status == 1
    assert told.lines == [
        f"Probing /cvmfs/{FQRN}... OK",
        "Probing /cvmfs/none.example.org... Failed!",
    ]
    assert "no server has .cvmfspublished" in told.err


def test_probe_of_nothing(site: Site) -> None:
    told = site.say("probe")
    assert told.status == 2
    assert "CVMFS_REPOSITORIES" in told.err


def test_probe_for_programs(site: Site) -> None:
    told = site.say("probe", FQRN, "none.example.org", "--json")
    good, bad = json.loads(told.out)
    assert told.status == 1
    assert (good["ok"], good["revision"], good["proxy"]) == (True, 1, "DIRECT")
    assert (bad["ok"], bad["repository"]) == (False, "none.example.org")
    assert "no server has" in bad["error"]


@pytest.mark.parametrize("name", ["short", "no name", "../x.org"])
def test_probe_goes_on_after_what_is_no_name(site: Site, name: str) -> None:
    told = site.say("probe", name, FQRN)
    assert told.status == 1
    assert told.lines == [
        f"Probing /cvmfs/{name}... Failed!",
        f"Probing /cvmfs/{FQRN}... OK",
    ]
    bad, good = json.loads(site.say("probe", name, FQRN, "--json").out)
    assert (bad["repository"], bad["ok"], good["ok"]) == (name, False, True)


def test_probe_does_not_believe_the_cache(site: Site) -> None:
    assert site.say("cat", FQRN, "/file").out == b"content\n"
    site.server.stop()
    assert site.say("cat", FQRN, "/file").out == b"content\n"
    assert site.say("probe", FQRN).status == 1
