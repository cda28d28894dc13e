import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.pem import PEM_BYTES_MAX, PemBlock, parse_pem
from tests.support.der_values import pem

KEY = b"PUBLIC KEY"
CERTIFICATE = b"CERTIFICATE"
BLOCK = pem(KEY, b"content")

contents = st.binary(min_size=1, max_size=400)
labels = st.sampled_from([KEY, b"RSA PUBLIC KEY", b"X509 CERTIFICATE"])
remarks = st.text(st.characters(codec="ascii", exclude_characters="-")).map(
    lambda text: text.encode() + b"\n"
)


@given(labels, contents, remarks, remarks, st.sampled_from([b"\n", b"\r\n", b" \n"]))
def test_a_written_block_parses_back(
    label: bytes, content: bytes, before: bytes, after: bytes, line_end: bytes
) -> None:
    text = before + pem(label, content).replace(b"\n", line_end) + after
    assert parse_pem(text, [label]) == PemBlock(label, content)


@given(contents)
def test_a_block_written_by_others_is_read(content: bytes) -> None:
    text = ssl.DER_cert_to_PEM_cert(content).encode()
    assert parse_pem(text, [CERTIFICATE]).content == content


@given(st.binary() | st.binary().map(lambda data: BLOCK.replace(b"Y29u", data)))
def test_any_bytes_are_a_block_or_a_format_error(text: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert parse_pem(text, [KEY]).label == KEY


def test_the_first_block_with_a_wanted_label_counts() -> None:
    text = pem(b"EC PARAMETERS", b"1") + pem(CERTIFICATE, b"2") + BLOCK
    assert parse_pem(text, [KEY, CERTIFICATE]) == PemBlock(CERTIFICATE, b"2")
    assert parse_pem(text, [KEY]) == PemBlock(KEY, b"content")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"ssh-rsa AAAA", id="another-form"),
        pytest.param(pem(b"RSA PUBLIC KEY", b"1"), id="another-label"),
        pytest.param(b"# " + BLOCK, id="not-at-the-start-of-a-line"),
        pytest.param(BLOCK.replace(b"END PUBLIC", b"END RSA"), id="another-end"),
        pytest.param(BLOCK.partition(b"-----END")[0], id="no-end"),
        pytest.param(
            BLOCK.replace(b"Y29u", b"Proc-Type: 4,ENCRYPTED\n\nY29u"), id="headers"
        ),
        pytest.param(BLOCK.replace(b"Y29u", b"Y29*"), id="another-alphabet"),
    ],
)
def test_what_is_no_such_block_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="no PEM block with the label PUBLIC KEY"):
        parse_pem(text, [KEY])


@pytest.mark.parametrize("body", [b"Y29udGV", b"Y2=9", b"=", b"Y29udA==Y29u"])
def test_wrong_base64_is_refused(body: bytes) -> None:
    text = b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----" % body
    with pytest.raises(FormatError, match="not base64"):
        parse_pem(text, [KEY])


def test_the_length_has_a_limit() -> None:
    text = BLOCK.ljust(PEM_BYTES_MAX)
    assert parse_pem(text, [KEY]).content == b"content"
    with pytest.raises(FormatError, match="too long"):
        parse_pem(text + b" ", [KEY])
