"""What becomes of ``auto``, with real files from a real server."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cvmfsexec.errors import NoRouteError
from cvmfsexec.format.parameters import Parameters
from cvmfsexec.format.proxy_groups import format_proxy_list
from cvmfsexec.network import discovery_memory, pac
from cvmfsexec.network.discovery import DiscoveryPlaces, discover
from cvmfsexec.network.settings import NetworkSettings
from tests.support.http_server import HttpServer, Redirect, Slow, Stall, Status

FQRN = "repo.example.org"
PAC = "/wpad.dat"


class Site:
    """A server of PAC files, and a place to remember what they said."""

    def __init__(self, directory: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.server = HttpServer(self.files)
        self.places = DiscoveryPlaces(
            os.fspath(directory / "cache"), os.fspath(directory / "cache/work/list")
        )
        self.remembers = True

    def answers(self, answer: str, path: str = PAC) -> str:
        """Let a file give one answer, and return its URL."""
        script = f"function FindProxyForURL(url, host) {{ return '{answer}'; }}"
        self.files[path] = script.encode()
        return self.server.url + path

    def discover(
        self, proxies: str = "auto", fallback: str = "", *urls: str, **environment: str
    ) -> NetworkSettings:
        """Return the settings of a client that looks for proxies here."""
        values = {
            "CVMFS_SERVER_URL": "http://s1.invalid/@fqrn@;http://s2.invalid/@fqrn@",
            "CVMFS_HTTP_PROXY": proxies,
            "CVMFS_FALLBACK_PROXY": fallback,
            "CVMFS_PAC_URLS": ";".join(urls or (self.server.url + PAC,)),
        }
        parameters = Parameters.from_values(FQRN, values)
        settings = NetworkSettings.from_parameters(parameters, environment)
        places = self.places if self.remembers else None
        return discover(settings, environment, places)

    def find(self, proxies: str = "auto", fallback: str = "", *urls: str) -> str:
        """Return the list that such a client uses."""
        found = self.discover(proxies, fallback, *urls)
        return format_proxy_list(found.all_proxy_groups)

    def forget(self) -> None:
        """Forget what was found lately, but not the last list."""
        Path(self.places.node, "proxies.discovered").unlink()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    with one.server:
        yield one


@pytest.mark.parametrize(
    ("proxies", "fallback", "answer", "result"),
    [
        ("auto", "", "PROXY a:1; PROXY b:2; DIRECT", "http://a:1;http://b:2;DIRECT"),
        ("auto;DIRECT", "", "PROXY a:1", "http://a:1;DIRECT"),
        ("p:1|q:1;auto;r:1", "", "PROXY a:1; PROXY b:2",
         "http://p:1|http://q:1;http://a:1;http://b:2;http://r:1"),
        ("auto", "", "DIRECT", "DIRECT"),
        ("auto", "", "", "DIRECT"),
        ("auto", "f:1", "PROXY a:1; DIRECT", "http://a:1;http://f:1"),
        ("auto", "f:1", "DIRECT", "http://f:1"),
        ("auto;p:1", "", "SOCKS s:1", "http://p:1"),
        ("auto;DIRECT", "", "SOCKS s:1; PROXY a:1", "http://a:1;DIRECT"),
        ("auto|p:1", "", "PROXY a:1", "http://auto|http://p:1"),
    ],
)  # fmt: skip
def test_answer_takes_the_place_of_auto(
    site: Site, proxies: str, fallback: str, answer: str, result: str
) -> None:
    site.answers(answer)
    assert site.find(proxies, fallback) == result


def test_files_are_asked_in_order(site: Site) -> None:
    good = site.answers("PROXY a:1", "/good")
    other = site.answers("PROXY b:1", "/other")
    bad = site.answers("SOCKS s:1", "/bad")
    missing = f"{site.server.url}/missing"
    found = site.discover("auto", "", missing, bad, good, other)
    assert found.discovery is not None
    assert found.discovery.origin == good
    assert format_proxy_list(found.proxy_groups) == "http://a:1"
    shown = " | ".join(found.discovery.failures)
    assert f"{missing}: HTTP status 404" in shown
    assert f"{bad}: it names no HTTP proxy: SOCKS s:1" in shown
    assert site.server.count("/other") == 0


def test_variable_has_the_first_word(site: Site) -> None:
    site.answers("PROXY a:1")
    found = site.discover(http_proxy="http://p:3128/")
    assert format_proxy_list(found.proxy_groups) == "http://p:3128"
    assert found.discovery is not None
    assert found.discovery.origin == "the environment variable http_proxy"
    assert site.server.count() == 0


def test_empty_variable_means_that_nothing_is_found(site: Site) -> None:
    site.answers("PROXY a:1")
    with pytest.raises(NoRouteError, match="http_proxy names no proxy"):
        site.discover(http_proxy="")


def test_message_names_what_was_tried(site: Site) -> None:
    dead = "http://nosuch.invalid/wpad.dat"
    with pytest.raises(NoRouteError) as caught:
        site.find("auto", "", dead, f"{site.server.url}/none")
    text = str(caught.value)
    assert "http_proxy is not set" in text
    assert f"{dead}: cannot resolve host" in text
    assert f"{site.server.url}/none: HTTP status 404" in text
    assert "CVMFS_HTTP_PROXY" in caught.value.hint


def test_nothing_to_be_asked(site: Site) -> None:
    with pytest.raises(NoRouteError, match="CVMFS_PAC_URLS is not set"):
        site.find("auto", "", ";")


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (b"while (true) {}", "too much time"),
        (b"<html>", "not a proxy configuration file"),
        (b"", "."),
        (b"x" * (pac.FILE_BYTES_MAX + 1), "more than"),
        (b"function FindProxyForURL() { return 'x'.repeat(1e6); }", "characters"),
    ],
    ids=("loop", "page", "empty", "huge", "long"),
)  # fmt: skip
def test_file_that_is_no_good(site: Site, script: bytes, complaint: str) -> None:
    site.files[PAC] = script
    with pytest.raises(NoRouteError, match=complaint):
        site.find()
    site.forget()
    assert site.find("auto;DIRECT") == "DIRECT"


def test_redirects_are_followed(site: Site) -> None:
    target = site.answers("PROXY a:1", "/target")
    site.server.misbehave(Redirect(target), path=PAC)
    assert site.find() == "http://a:1"


def test_server_that_is_too_slow(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.answers("PROXY a:1;" * 2000)
    site.server.misbehave(Slow(2000), path=PAC)
    monkeypatch.setattr(pac, "DOWNLOAD_TIME_LIMIT_S", 0.3)
    with pytest.raises(NoRouteError, match="it takes more than"):
        site.find()


def test_server_that_stalls(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.answers("PROXY a:1")
    site.server.misbehave(Stall(), path=PAC)
    monkeypatch.setattr(pac, "CONNECT_TIME_LIMIT_S", 1)
    with pytest.raises(NoRouteError, match="too slow"):
        site.find()


def test_file_on_the_local_disk(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "proxy.pac"
    file.write_text("function FindProxyForURL() { return 'PROXY a:1'; }")
    assert site.find("auto", "", f"file://{file}") == "http://a:1"


def test_password_in_the_url_is_not_shown(site: Site) -> None:
    url = site.server.url.replace("//", "//user:secret@") + "/none"
    with pytest.raises(NoRouteError) as caught:
        site.find("auto", "", url)
    assert "secret" not in str(caught.value)


# -- what is remembered ----------------------------------------------------------------


def test_password_in_the_url_is_not_in_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    script = "function FindProxyForURL(url, host) { return 'PROXY ' + host; }"
    site.files[PAC] = script.encode()
    url = site.server.url.replace("//", "//user:secret@") + PAC
    assert site.find("auto", "", url) == "http://s1.invalid"
    assert "another answer for another server: PROXY s2.invalid" in caplog.text
    assert "secret" not in caplog.text


def test_node_asks_once(site: Site) -> None:
    site.answers("PROXY a:1")
    assert [site.find() for _ in range(3)] == ["http://a:1"] * 3
    assert site.server.count(PAC) == 1
    found = site.discover("auto;DIRECT")
    assert found.discovery is not None
    assert found.discovery.origin.startswith(f"{site.server.url}{PAC}, found ")
    assert format_proxy_list(found.proxy_groups) == "http://a:1;DIRECT"


def test_node_asks_again_after_a_while(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answers("PROXY a:1")
    site.find()
    site.answers("PROXY b:1")
    monkeypatch.setattr(discovery_memory, "FOUND_VALID_S", 0)
    assert site.find() == "http://b:1"


def test_node_that_found_nothing_waits_a_little(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with pytest.raises(NoRouteError, match="HTTP status 404"):
            site.find()
    assert site.server.count(PAC) == 1
    site.answers("PROXY a:1")
    monkeypatch.setattr(discovery_memory, "NOTHING_VALID_S", 0)
    assert site.find() == "http://a:1"


def test_other_files_are_another_question(site: Site) -> None:
    site.answers("PROXY a:1")
    site.find()
    other = site.answers("PROXY b:1", "/other")
    assert site.find("auto", "", other) == "http://b:1"


def test_last_list_is_used_when_nothing_is_found(site: Site) -> None:
    site.answers("PROXY a:1; PROXY b:1")
    assert site.find("auto;p:1") == "http://a:1;http://b:1;http://p:1"
    site.forget()
    site.files.clear()
    found = site.discover("auto;p:1")
    assert format_proxy_list(found.all_proxy_groups) == (
        "http://a:1;http://b:1;http://p:1"
    )
    assert found.discovery is not None
    assert found.discovery.origin.startswith(f"{site.places.list_path}, remembered ")


def test_without_a_place_nothing_is_remembered(site: Site) -> None:
    site.remembers = False
    site.answers("PROXY a:1")
    site.find()
    site.find()
    assert site.server.count(PAC) == 2
    assert not os.path.exists(site.places.node)
    site.files.clear()
    with pytest.raises(NoRouteError):
        site.find()


def test_what_others_can_have_written_is_not_believed(site: Site) -> None:
    site.answers("PROXY a:1")
    site.find()
    for name in ("proxies.discovered", "work/list"):
        path = Path(site.places.node, name)
        path.write_text(path.read_text().replace("http://a:1", "http://evil:1"))
        path.chmod(0o666)
    assert site.find() == "http://a:1"
    Path(site.places.node, "proxies.discovered").unlink()
    Path(site.places.list_path).chmod(0o666)
    site.files.clear()
    with pytest.raises(NoRouteError):
        site.find()


def test_those_that_start_together_ask_once(site: Site) -> None:
    site.answers("PROXY a:1")
    site.server.misbehave(Slow(500), path=PAC)  # so that they overlap
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: site.find(), range(4)))
    assert found == ["http://a:1"] * 4
    assert site.server.count(PAC) == 1


def test_place_that_cannot_be_written_is_no_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = os.fspath(tmp_path / "file/in-a-file")
    site.places = DiscoveryPlaces(place, place + "/list")
    site.answers("PROXY a:1")
    assert site.find() == "http://a:1"


def test_files_are_for_the_user_alone(site: Site) -> None:
    site.answers("PROXY a:1")
    site.find("auto;http://user:secret@p:1")
    top = Path(site.places.node)
    files = [path for path in top.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {
        "proxies.discovered", "proxies.lock", "list"
    }  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_download_of_a_file_that_is_refused(site: Site) -> None:
    site.answers("PROXY a:1")
    site.server.misbehave(Status(403), path=PAC)
    with pytest.raises(NoRouteError, match="HTTP status 403"):
        site.find()


def test_address_is_that_of_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pac.my_address("http://127.0.0.1:80/wpad.dat", ["http://s"])
    monkeypatch.setattr(pac, "OUTSIDE", ())
    address = pac.my_address("http://127.0.0.1:80/wpad.dat", ["http://127.0.0.1:8"])
    assert address == "127.0.0.1"
