"""Repositories with members, from their root catalog to the file that members read."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cvmfsexec.client.assembly import Client, User
from cvmfsexec.errors import (
    MissingCredentialError,
    TransferError,
    UnsupportedTrustError,
)
from cvmfsexec.vfs.attributes import ROOT_INODE
from tests.support.authority import Authority
from tests.support.bent_repository import BentRepository
from tests.support.clients import open_client
from tests.support.http_server import HttpServer, _Reply
from tests.support.published import FQRN, PublishedRepository, publish_tree

TOKEN = "a.secret.token"  # noqa: S105 -- of this test

OpenAs = Callable[..., Client]


class MembersServer(HttpServer):
    """Shows documents and catalogs to everybody, files to who shows a token."""

    def reply_to(self, target: str, headers: Mapping[str, str]) -> _Reply:
        is_public = "/.cvmfs" in target or target[-1] in "CX"
        if is_public or headers.get("authorization") == f"Bearer {TOKEN}":
            return super().reply_to(target, headers)
        return _Reply(403)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def published(tmp_path: Path) -> PublishedRepository:
    return publish_tree(tmp_path, {"hello": b"for members\n"})


@pytest.fixture
def members_only(published: PublishedRepository, tmp_path: Path) -> str:
    bent = BentRepository(published, tmp_path / "bent")
    requirement = "scitoken%https://issuer.example.org"
    bent.execute(f"INSERT INTO properties VALUES ('voms_authz', '{requirement}')")  # noqa: S608
    return str(bent.output)


@pytest.fixture
def server(members_only: str, authority: Authority) -> Iterator[HttpServer]:
    with MembersServer(members_only, authority.context()) as running:
        yield running


@pytest.fixture
def open_as(
    tmp_path: Path,
    published: PublishedRepository,
    server: HttpServer,
    authority: Authority,
) -> OpenAs:
    def open_(base_url: str = server.url, **environment: str) -> Client:
        trusting = {**environment, "X509_CERT_BUNDLE": str(authority.bundle)}
        user = User.of_this_process(
            {"XDG_RUNTIME_DIR": str(tmp_path / "none"), **trusting}
        )
        return open_client(tmp_path, published, base_url, user)

    return open_


def read(client: Client) -> bytes:
    files = client.file_system()
    found = files.lookup(ROOT_INODE, b"hello")
    assert found is not None
    return bytes(files.read(found.inode, 0, 100))


def test_member_reads(
    open_as: OpenAs, server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with open_as(BEARER_TOKEN=TOKEN) as client:
        assert read(client) == b"for members\n"
    first, *_, last = server.requests
    assert "authorization" not in first.headers
    assert last.headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in caplog.text


def test_token_file_may_be_renewed(open_as: OpenAs, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text("an.old.token")
    with open_as(BEARER_TOKEN_FILE=str(path)) as client:
        with pytest.raises(TransferError, match="403") as caught:
            read(client)
        assert "token" not in str(caught.value)
        assert "credential is valid" in caught.value.hint
        path.write_text(TOKEN)
        assert read(client) == b"for members\n"


def test_nobody_reads_without_a_credential(open_as: OpenAs) -> None:
    missing = {"BEARER_TOKEN_FILE": "/nonexistent/token"}
    with pytest.raises(MissingCredentialError, match="/nonexistent/token") as caught:
        open_as(**missing)
    assert "BEARER_TOKEN_FILE" in caught.value.hint


def test_servers_that_could_not_see_who_asks_are_refused(
    open_as: OpenAs, members_only: str
) -> None:
    with (
        HttpServer(members_only) as plain,
        pytest.raises(UnsupportedTrustError, match=f"{FQRN}.*https") as caught,
    ):
        open_as(plain.url, BEARER_TOKEN=TOKEN)
    assert "CVMFS_SERVER_URL" in caught.value.hint
    assert all("authorization" not in request.headers for request in plain.requests)


def test_certificate_is_shown_to_servers_that_ask(
    tmp_path: Path, published: PublishedRepository, authority: Authority
) -> None:
    bent = BentRepository(published, tmp_path / "x509")
    bent.execute("INSERT INTO properties VALUES ('voms_authz', 'x509%/cms')")
    proxy = tmp_path / "proxy"
    proxy.touch(0o600)
    proxy.write_bytes(authority.credential)
    environment = {
        "X509_USER_PROXY": str(proxy),
        "X509_CERT_BUNDLE": str(authority.bundle),
    }
    user = User.of_this_process(environment)
    # What everybody may see comes from another server, or the cache, as here.
    elsewhere = {"CVMFS_EXTERNAL_URL": "https://127.0.0.1:1"}
    public = f"file://{bent.output}"
    open_client(tmp_path, published, public, user, None, **elsewhere).close()
    strict = authority.context(asks_for_certificate=True)
    with HttpServer(str(bent.output), strict) as server:
        with open_client(tmp_path, published, server.url, user) as client:
            assert read(client) == b"for members\n"
        assert server.count("/data/") > 0
