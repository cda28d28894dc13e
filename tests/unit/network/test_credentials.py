import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import MissingCredentialError, UnsupportedTrustError
from cvmfsexec.format.proxy_groups import DIRECT, parse_proxy_list
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.credentials import Credential, UserCredentials
from cvmfsexec.network.settings import NetworkSettings
from tests.support.memory_transport import MemoryTransport

X509 = "x509%/cms/Role=pilot"
TOKEN = "scitoken%https://issuer.example.org"  # noqa: S105 -- a requirement
PEM = b"-----BEGIN CERTIFICATE-----\nx\n-----BEGIN RSA PRIVATE KEY-----\ny\n"
NOBODY = 3_999_999_999  # no files in /tmp bear this number
UID = os.getuid()


def found(requirement: str, **environment: str) -> Credential:
    return UserCredentials(requirement, UID, NOBODY, environment).current()


def private(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def test_proxy_certificate_that_the_user_names(tmp_path: Path) -> None:
    path = private(tmp_path / "proxy", PEM)
    assert found(X509, X509_USER_PROXY=path).certificate == PEM


def test_proxy_certificate_in_its_usual_place() -> None:
    number = int.from_bytes(os.urandom(4)) + (1 << 32)
    path = Path(f"/tmp/x509up_u{number}")
    try:
        private(path, PEM)
        assert UserCredentials(X509, UID, number, {}).current().certificate == PEM
    finally:
        path.unlink()


def test_tokens_are_looked_for_in_the_order_of_wlcg(tmp_path: Path) -> None:
    given_file = private(tmp_path / "given", b"from-file\n")
    private(tmp_path / f"bt_u{NOBODY}", b"from-runtime-directory\n")
    runtime = str(tmp_path)
    everywhere = {"BEARER_TOKEN_FILE": given_file, "XDG_RUNTIME_DIR": runtime}
    shown = [
        found(TOKEN, **everywhere, BEARER_TOKEN=" from-variable\n").bearer_token,  # noqa: S106
        found(TOKEN, **everywhere).bearer_token,
        found(TOKEN, XDG_RUNTIME_DIR=runtime).bearer_token,
    ]
    assert shown == ["from-variable", "from-file", "from-runtime-directory"]


def test_token_in_the_last_place() -> None:
    number = int.from_bytes(os.urandom(4)) + (1 << 32)
    path = Path(f"/tmp/bt_u{number}")
    try:
        private(path, b"a.b.c")
        environment = {"XDG_RUNTIME_DIR": "/nonexistent"}
        credentials = UserCredentials(TOKEN, UID, number, environment)
        assert credentials.current() == Credential(b"", "a.b.c")
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("requirement", "advice"), [(X509, "voms-proxy-init"), (TOKEN, "htgettoken")]
)
def test_missing_credential_says_what_to_do(requirement: str, advice: str) -> None:
    with pytest.raises(MissingCredentialError, match=f"/tmp/.*{NOBODY}") as caught:
        found(requirement)
    assert advice in caught.value.hint


def test_named_file_that_is_missing_is_not_replaced_by_another(tmp_path: Path) -> None:
    private(tmp_path / f"bt_u{NOBODY}", b"another")
    with pytest.raises(MissingCredentialError, match="absent"):
        found(
            TOKEN,
            BEARER_TOKEN_FILE=str(tmp_path / "absent"),
            XDG_RUNTIME_DIR=str(tmp_path),
        )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "proxy", PEM)
    os.chmod(path, mode)
    with pytest.raises(MissingCredentialError, match=f"{mode:04o}") as caught:
        found(X509, X509_USER_PROXY=path)
    assert f"chmod 600 {path}" in caught.value.hint


def test_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "proxy", PEM)
    credentials = UserCredentials(X509, UID + 1, NOBODY, {"X509_USER_PROXY": path})
    with pytest.raises(MissingCredentialError, match="belongs to another user"):
        credentials.current()


@pytest.mark.parametrize("kind", ["directory", "pipe", "link to itself"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "proxy"
    if kind == "directory":
        path.mkdir(0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.symlink_to(path)
    with pytest.raises(MissingCredentialError):
        found(X509, X509_USER_PROXY=str(path))


@pytest.mark.parametrize(
    ("requirement", "variable", "content"),
    [
        (X509, "X509_USER_PROXY", b""),
        (X509, "X509_USER_PROXY", b"-----BEGIN CERTIFICATE-----\nsecret\n"),
        (TOKEN, "BEARER_TOKEN_FILE", b""),
        (TOKEN, "BEARER_TOKEN_FILE", b"secret\r\nHost: evil"),
        (TOKEN, "BEARER_TOKEN_FILE", b"secret\xff"),
    ],
)
def test_content_that_is_no_credential_is_refused_and_not_shown(
    tmp_path: Path, requirement: str, variable: str, content: bytes
) -> None:
    path = private(tmp_path / "file", content)
    with pytest.raises(MissingCredentialError, match="does not hold") as caught:
        found(requirement, **{variable: path})
    assert "secret" not in str(caught.value) + caught.value.hint


def test_renewed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    private(path, b"old")
    credentials = UserCredentials(TOKEN, UID, NOBODY, {"BEARER_TOKEN_FILE": str(path)})
    first = credentials.current()
    assert credentials.current() is first
    private(tmp_path / "new", b"new")
    (tmp_path / "new").rename(path)
    assert credentials.current() == Credential(b"", "new")
    path.unlink()
    with pytest.raises(MissingCredentialError):
        credentials.current()


@pytest.mark.parametrize(
    "requirement", ["", "/cms", "kerberos%x", "X509%/cms", "x509", "%", " x509%x"]
)
def test_unknown_requirements_are_refused(requirement: str) -> None:
    with pytest.raises(UnsupportedTrustError, match="members only"):
        UserCredentials(requirement, UID, UID, {})


@given(st.binary(max_size=30))
def test_a_token_is_one_visible_word_or_refused(raw: bytes) -> None:
    try:
        credential = found(TOKEN, BEARER_TOKEN=os.fsdecode(raw).replace("\0", ""))
    except MissingCredentialError:
        return
    assert credential.bearer_token.isascii()
    assert not set(credential.bearer_token) & set(" \r\n\t")


def test_credentials_do_not_show_themselves() -> None:
    for credential in (Credential(b"secret"), Credential(b"", "secret")):
        assert "secret" not in f"{credential!r}{credential}{[credential]}"


def test_only_https_servers_of_the_list_see_a_credential() -> None:
    credential = Credential(b"", "secret")
    transport = MemoryTransport(decide=lambda _: 404)
    servers = ("http://plain", "https://secure", "file:///local")
    client = HttpClient(NetworkSettings(servers), transport)
    client.show_credential(lambda: credential)
    with pytest.raises(Exception, match="no server has") as caught:
        client.fetch("x", limit_bytes=9)
    seen = [request.credential for request in transport.requests]
    assert seen == [None, credential, None]
    assert "secret" not in repr((caught.value, transport.requests, client.failures()))


def test_credential_that_is_gone_ends_the_request() -> None:
    def gone() -> Credential:
        raise MissingCredentialError("it is gone")

    transport = MemoryTransport()
    client = HttpClient(
        NetworkSettings(("https://secure",), parse_proxy_list(DIRECT)), transport
    )
    client.show_credential(gone)
    with pytest.raises(MissingCredentialError):
        client.fetch("x", limit_bytes=9)
    assert transport.requests == []
