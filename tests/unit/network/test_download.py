import io
from collections.abc import Iterator

import pytest

from cvmfsexec.errors import ObjectTooLargeError, TransferError
from cvmfsexec.network.curl_transport import CurlTransport
from cvmfsexec.network.download import ATTEMPT_COUNT, Downloader, Patience
from cvmfsexec.network.environment_proxies import EnvironmentProxies
from cvmfsexec.network.settings import NetworkSettings
from cvmfsexec.network.transport import (
    Answer,
    FaultKind,
    Request,
    TransportFault,
)
from tests.support.http_server import (
    CutOff,
    HttpServer,
    Redirect,
    Status,
    WholeAnyway,
)

CONTENT = bytes(range(256)) * 100
PLENTY = 1 << 20
NO_PROXIES = EnvironmentProxies()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer({"/file": CONTENT}) as running:
        yield running


class Downloads:
    """A downloader, and what it did."""

    def __init__(self, proxies: EnvironmentProxies = NO_PROXIES) -> None:
        self.waits: list[float] = []
        self.received = 0
        self._downloader = Downloader(
            CurlTransport(NetworkSettings(servers=())),
            proxies,
            Patience(self.waits.append, self._count),
        )

    def get(self, url: str, begin: bytes = b"", limit: int = PLENTY) -> bytes:
        part = io.BytesIO(begin)
        self._downloader.download(url, part, limit)
        return part.getvalue()

    def _count(self, amount: int) -> None:
        self.received += amount


def test_a_file_comes_whole(server: HttpServer) -> None:
    downloads = Downloads()
    assert downloads.get(f"{server.url}/file") == CONTENT
    assert downloads.received == len(CONTENT)
    assert downloads.waits == []


def test_what_was_cut_off_is_continued(server: HttpServer) -> None:
    server.misbehave(CutOff(1000), times=1)
    downloads = Downloads()
    assert downloads.get(f"{server.url}/file") == CONTENT
    assert len(downloads.waits) == 1
    assert downloads.received == len(CONTENT)
    assert server.requests[1].headers["range"] == "bytes=1000-"


def test_an_earlier_part_is_completed(server: HttpServer) -> None:
    downloads = Downloads()
    assert downloads.get(f"{server.url}/file", CONTENT[:5000]) == CONTENT
    assert downloads.received == len(CONTENT) - 5000


def test_a_server_without_ranges_sends_the_whole(server: HttpServer) -> None:
    server.misbehave(WholeAnyway())
    assert Downloads().get(f"{server.url}/file", b"other" * 10) == CONTENT


def test_a_part_that_is_too_long_is_given_up(server: HttpServer) -> None:
    assert Downloads().get(f"{server.url}/file", CONTENT + b"more") == CONTENT


def test_trouble_that_passes_is_waited_out(server: HttpServer) -> None:
    server.misbehave(Status(503), times=ATTEMPT_COUNT - 1)
    assert Downloads().get(f"{server.url}/file") == CONTENT


def test_every_attempt_is_told(server: HttpServer) -> None:
    server.misbehave(Status(503))
    with pytest.raises(TransferError) as caught:
        Downloads().get(f"{server.url}/file")
    told = f"{server.url}/file via DIRECT: HTTP status 503"
    assert caught.value.routes == (told,) * ATTEMPT_COUNT


def test_what_is_not_there_is_asked_for_once(server: HttpServer) -> None:
    with pytest.raises(TransferError) as caught:
        Downloads().get(f"{server.url}/missing")
    assert server.count() == len(caught.value.routes) == 1


def test_silence_is_not_asked_again() -> None:
    class Silence:
        def get(self, request: Request, _sink: object) -> Answer:
            asked.append(request.url)
            raise TransportFault(FaultKind.TOO_SLOW, "nothing")

    asked: list[str] = []
    downloader = Downloader(Silence(), NO_PROXIES, Patience(asked.append, id))  # type: ignore[arg-type]
    with pytest.raises(TransferError):
        downloader.download("https://x.org/file", io.BytesIO(), PLENTY)
    assert asked == ["https://x.org/file"]


def test_a_redirect_is_followed(server: HttpServer) -> None:
    server.misbehave(Redirect("/file", 308), path="moved")
    assert Downloads().get(f"{server.url}/moved") == CONTENT


def test_endless_redirects_end(server: HttpServer) -> None:
    server.misbehave(Redirect("/moved"), path="moved")
    with pytest.raises(TransferError) as caught:
        Downloads().get(f"{server.url}/moved")
    assert "too many redirects" in caught.value.routes[0]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/", "http:///", "", "http://[::1"]
)
def test_a_redirect_to_another_scheme_is_refused(
    server: HttpServer, target: str
) -> None:
    server.misbehave(Redirect(target), path="moved")
    with pytest.raises(TransferError):
        Downloads().get(f"{server.url}/moved")


def test_nobody_is_sent_from_https_to_http() -> None:
    class Elsewhere:
        def get(self, request: Request, _sink: object) -> Answer:
            asked.append(request.url)
            return Answer(302, (b"Location: http://x.org/file",))

    asked: list[str] = []
    downloader = Downloader(Elsewhere(), NO_PROXIES, Patience(asked.append, id))  # type: ignore[arg-type]
    with pytest.raises(TransferError) as caught:
        downloader.download("https://x.org/file", io.BytesIO(), PLENTY)
    assert asked == ["https://x.org/file"]
    assert "redirect from https to http://x.org/file" in caught.value.routes[0]


def test_more_than_the_limit_is_refused(server: HttpServer) -> None:
    with pytest.raises(ObjectTooLargeError):
        Downloads().get(f"{server.url}/file", limit=len(CONTENT) - 1)
    with pytest.raises(ObjectTooLargeError):
        Downloads().get(f"{server.url}/file", CONTENT, limit=100)


def test_the_proxy_of_the_environment_is_asked(server: HttpServer) -> None:
    downloads = Downloads(EnvironmentProxies(http=server.url))
    assert downloads.get("http://nowhere.example.org/file") == CONTENT
    assert server.requests[0].target == "http://nowhere.example.org/file"
