import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from cvmfsexec.errors import PublishError
from cvmfsexec.format.digest import ObjectKind
from cvmfsexec.publish.served_files import ServedFiles
from cvmfsexec.publish.server import RepositoryServer
from tests.support.published import PublishedRepository, publish_tree, serve

FQRN = "served.example.org"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    path = tmp_path_factory.mktemp("served")
    published = publish_tree(path, {"hello": b"hello\n"}, FQRN)
    (published.directory / "large").write_bytes(os.urandom(300_000))
    (published.directory / "secret-link").symlink_to(published.keys_directory)
    (published.directory / ".cvmfsalt-x").symlink_to(".cvmfspublished")
    (published.directory / ".cvmfs_status.json").write_bytes(b"{}")
    os.mkfifo(published.directory / "fifo")
    return published


@pytest.fixture(scope="module")
def base_url(repository: PublishedRepository) -> Iterator[str]:
    with serve(repository.output) as url:
        yield url


@pytest.fixture
def connection(base_url: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(base_url.split("/")[2], timeout=10)
    yield connection
    connection.close()


def get(
    connection: http.client.HTTPConnection, name: str, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    names = {key.replace("_", "-"): value for key, value in headers.items()}
    connection.request("GET", f"/cvmfs/{FQRN}/{name}", headers=names)
    answer = connection.getresponse()
    return answer, answer.read()


def exchange(base_url: str, sent: bytes) -> bytes:
    """Send raw bytes, and return everything until the server closes."""
    host, port = base_url.split("/")[2].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(sent)
        received = b""
        while data := raw.recv(65536):
            received += data
    return received


@pytest.mark.parametrize("name", [".cvmfspublished", ".cvmfswhitelist", "large"])
def test_files_are_served_as_they_are(
    repository: PublishedRepository,
    connection: http.client.HTTPConnection,
    name: str,
) -> None:
    answer, body = get(connection, name)
    assert answer.status == 200
    assert body == (repository.directory / name).read_bytes()
    assert answer.getheader("Content-Encoding") is None


def test_one_connection_carries_many_requests(
    repository: PublishedRepository, connection: http.client.HTTPConnection
) -> None:
    path = repository.manifest.root_catalog.object_path(ObjectKind.CATALOG)
    for _ in range(20):
        assert get(connection, path)[0].status == 200
        used = connection.sock
        assert get(connection, "data/no/thing")[0].status == 404
        assert connection.sock is used


@pytest.mark.parametrize(
    ("name", "max_age"),
    [
        (".cvmfspublished", 61),
        (".cvmfsreflog", 61),
        (".cvmfs_status.json", 61),
        ("large", 259200),
    ],
)
def test_caches_may_keep_what_does_not_change(
    connection: http.client.HTTPConnection, name: str, max_age: int
) -> None:
    answer, _ = get(connection, name)
    assert answer.getheader("Cache-Control") == f"max-age={max_age}"


def test_a_cache_may_ask_whether_something_changed(
    connection: http.client.HTTPConnection,
) -> None:
    tag = get(connection, ".cvmfspublished")[0].getheader("ETag", "")
    answer, body = get(connection, ".cvmfspublished", If_None_Match=tag)
    assert (answer.status, body) == (304, b"")
    answer, body = get(connection, ".cvmfspublished", If_None_Match='"other"')
    assert answer.status == 200
    assert body


@pytest.mark.parametrize(
    ("wish", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=1000-", 1000, 300_000),
        ("bytes=-5", 299_995, 300_000),
    ],
)
def test_a_range_is_served(
    repository: PublishedRepository,
    connection: http.client.HTTPConnection,
    wish: str,
    start: int,
    stop: int,
) -> None:
    answer, body = get(connection, "large", Range=wish)
    assert answer.status == 206
    assert body == (repository.directory / "large").read_bytes()[start:stop]
    assert answer.getheader("Content-Range") == f"bytes {start}-{stop - 1}/300000"


def test_a_range_outside_is_refused(connection: http.client.HTTPConnection) -> None:
    answer, body = get(connection, "large", Range="bytes=300000-")
    assert (answer.status, body) == (416, b"")
    assert answer.getheader("Content-Range") == "bytes */300000"


def test_head_has_no_body(connection: http.client.HTTPConnection) -> None:
    for _ in range(2):
        connection.request("HEAD", f"/cvmfs/{FQRN}/large")
        answer = connection.getresponse()
        assert answer.getheader("Content-Length") == "300000"
        assert answer.read() == b""


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/cvmfs",
        f"/cvmfs/{FQRN}",
        f"/cvmfs/{FQRN}/",
        f"/cvmfs/{FQRN}/data",
        f"/cvmfs/{FQRN}/data/00",
        f"/cvmfs/{FQRN}/nothing",
        f"/cvmfs/{FQRN}/../keys/{FQRN}.key",
        f"/cvmfs/{FQRN}/../../keys/{FQRN}.key",
        f"/cvmfs/{FQRN}/%2e%2e/%2e%2e/keys/{FQRN}.key",
        f"/cvmfs/{FQRN}/..%2f..%2fkeys%2f{FQRN}.key",
        f"/cvmfs/../keys/{FQRN}.key",
        f"/cvmfs/./{FQRN}/.cvmfspublished",
        f"/cvmfs//{FQRN}/.cvmfspublished",
        f"/cvmfs/{FQRN}//.cvmfspublished",
        f"/cvmfs/{FQRN}/.cvmfspublished/",
        f"/cvmfs/{FQRN}/.cvmfspublished/x",
        f"/cvmfs/{FQRN}/.cvmfspublished%00",
        f"/cvmfs/{FQRN}/secret-link/{FQRN}.key",
        f"/cvmfs/{FQRN}/fifo",
        f"/cvmfs/{FQRN}/{'x' * 300}",
        f"/other/{FQRN}/.cvmfspublished",
        "/cvmfs/other.example.org/.cvmfspublished",
        f"/cvmfs/{FQRN}/api/v1.0/geo/x/a,b",
        "/etc/passwd",
    ],
)
def test_everything_else_is_not_found(
    connection: http.client.HTTPConnection, path: str
) -> None:
    connection.putrequest("GET", path)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (404, b"")


def test_a_link_inside_the_repository_is_followed(
    repository: PublishedRepository, connection: http.client.HTTPConnection
) -> None:
    body = get(connection, ".cvmfsalt-x")[1]
    assert body == (repository.directory / ".cvmfspublished").read_bytes()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, 431),
    ],
)
def test_what_is_not_understood_ends_the_connection(
    base_url: str, sent: bytes, status: int
) -> None:
    received = exchange(base_url, sent)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in received


def test_requests_may_come_several_at_once(base_url: str) -> None:
    one = f"GET /cvmfs/{FQRN}/.cvmfswhitelist HTTP/1.1\r\n"
    sent = f"{one}\r\n{one}\r\n{one}Connection: close\r\n\r\n"
    assert exchange(base_url, sent.encode()).count(b"HTTP/1.1 200 OK") == 3


def test_an_http_1_0_client_gets_its_connection_closed(base_url: str) -> None:
    sent = f"GET /cvmfs/{FQRN}/large HTTP/1.0\r\n\r\n"
    head, _, body = exchange(base_url, sent.encode()).partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert len(body) == 300_000


def test_many_clients_are_served_at_once(base_url: str) -> None:
    host = base_url.split("/")[2]
    sizes: list[int] = []

    def fetch() -> None:
        connection = http.client.HTTPConnection(host, timeout=60)
        for _ in range(5):
            sizes.append(len(get(connection, "large")[1]))  # noqa: PERF401
        connection.close()

    threads = [threading.Thread(target=fetch) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [300_000] * 80


@contextmanager
def silent_connection(base_url: str) -> Iterator[http.client.HTTPConnection]:
    """Connect, and say nothing more after one request was answered."""
    host = base_url.split("/")[2]
    with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        assert get(connection, "hello-is-not-an-object")[0].status == 404
        yield connection


def test_silent_connections_make_room(
    repository: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{RepositoryServer.__module__}._CONNECTIONS_MAX", 4)
    with ExitStack() as stack:
        base_url = stack.enter_context(serve(repository.output))
        connections = [
            stack.enter_context(silent_connection(base_url)) for _ in range(10)
        ]
        # Which ones fell silent first is not for a client to say.
        assert sum(is_kept(connection) for connection in connections) == 4


def is_kept(connection: http.client.HTTPConnection) -> bool:
    try:
        return get(connection, "large")[0].status == 200
    except (ConnectionError, http.client.BadStatusLine):
        return False


def test_a_request_that_is_under_way_keeps_its_place(
    repository: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{RepositoryServer.__module__}._CONNECTIONS_MAX", 1)
    with serve(repository.output) as base_url:
        host, port = base_url.split("/")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(f"GET /cvmfs/{FQRN}/large HTTP/1.1\r\n".encode())
            time.sleep(0.1)
            with suppress(ConnectionError):
                assert exchange(base_url, b"GET / HTTP/1.1\r\n\r\n") == b""
            slow.sendall(b"Connection: close\r\n\r\n")
            assert slow.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_without_threads_the_server_goes_on(
    repository: PublishedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(repository.output) as base_url:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse_to_start)
            refused = pytest.raises((ConnectionError, http.client.BadStatusLine))
            with refused, silent_connection(base_url):
                pass
        with silent_connection(base_url), silent_connection(base_url):
            pass


def refuse_to_start(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_a_repository_alone_is_served_by_its_name(
    repository: PublishedRepository,
) -> None:
    with serve(repository.directory) as url:
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=10)
        assert get(connection, ".cvmfspublished")[0].status == 200
        connection.request("GET", "/cvmfs/other/.cvmfspublished")
        assert connection.getresponse().status == 404
        connection.close()


def test_a_repository_published_meanwhile_is_served(tmp_path: Path) -> None:
    first = publish_tree(tmp_path, {}, "first.example.org")
    files = ServedFiles(str(first.output))
    assert files.fqrns() == ["first.example.org"]
    publish_tree(tmp_path, {}, "second.example.org")
    assert files.fqrns() == ["first.example.org", "second.example.org"]
    opened = files.open(b"/cvmfs/second.example.org/.cvmfspublished")
    assert opened is not None
    os.close(opened.fd)


def test_a_directory_without_a_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "private").write_bytes(b"")
    with pytest.raises(PublishError, match="no repository"):
        RepositoryServer(str(tmp_path))


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="cannot read"):
        RepositoryServer(str(tmp_path / "nothing"))


def test_a_damaged_manifest_is_said(tmp_path: Path) -> None:
    (tmp_path / ".cvmfspublished").write_bytes(b"damaged")
    with pytest.raises(PublishError, match="cut short"):
        RepositoryServer(str(tmp_path))


def test_a_port_that_is_taken_is_said(repository: PublishedRepository) -> None:
    with serve(repository.output) as url:
        port = int(url.split("/")[2].split(":")[1])
        with pytest.raises(PublishError, match=f"port {port}"):
            RepositoryServer(str(repository.output), port=port)


def test_an_address_of_another_machine_is_refused(
    repository: PublishedRepository,
) -> None:
    with pytest.raises(PublishError, match="cannot listen"):
        RepositoryServer(str(repository.output), host="192.0.2.1")


def test_answers_are_reported(repository: PublishedRepository) -> None:
    lines: list[str] = []
    with RepositoryServer(str(repository.output), report=lines.append) as server:
        connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=10)
        get(connection, "nothing")
        get(connection, ".cvmfs_status.json")
        connection.close()
    assert lines == [
        f"GET '/cvmfs/{FQRN}/nothing' 404 0",
        f"GET '/cvmfs/{FQRN}/.cvmfs_status.json' 200 2",
    ]


def test_stopping_ends_connections_and_threads(
    repository: PublishedRepository,
) -> None:
    before = set(threading.enumerate())
    with idle_connection(repository) as (server, raw):
        server.stop()
        assert raw.recv(1) == b""
    assert set(threading.enumerate()) <= before
    server.stop()  # once more does no harm


@contextmanager
def idle_connection(
    repository: PublishedRepository,
) -> Iterator[tuple[RepositoryServer, socket.socket]]:
    with RepositoryServer(str(repository.output)) as server:
        host, port = server.url.split("/")[2].split(":")
        with socket.create_connection((host, int(port)), timeout=10) as raw:
            raw.sendall(f"GET /cvmfs/{FQRN}/nothing HTTP/1.1\r\n\r\n".encode())
            assert raw.recv(65536)
            yield server, raw
