"""Keys and certificates are read as ``cryptography`` and OpenSSL read them.

A public key needs no private one to be put into a certificate, so that only a single
key signs here, and the keys that are read are any odd numbers.
"""

import contextlib
import datetime as dt
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError, MalformedCertificateError
from cvmfsexec.format.digest import HashAlgorithm, ObjectKind
from cvmfsexec.format.envelope import parse_letter
from cvmfsexec.format.manifest import Manifest
from cvmfsexec.trust.signature import (
    PublicKey,
    certificate_public_key,
    fingerprint_of,
    load_public_key,
)
from tests.support.der_values import pem
from tests.support.fixtures import REPOSITORIES, fixture_key, fixture_repository
from tests.support.signed_documents import certificate, private_key

FORMS = [
    serialization.PublicFormat.SubjectPublicKeyInfo,
    serialization.PublicFormat.PKCS1,
]
EARLIEST = dt.datetime(1950, 1, 1, tzinfo=dt.UTC)
EXTENSIONS: list[x509.ExtensionType] = [
    x509.BasicConstraints(ca=True, path_length=3),
    x509.SubjectAlternativeName([x509.UniformResourceIdentifier("cvmfs:a.example")]),
    x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(300)),
]

odd_keys = st.builds(
    lambda bits, low, exponent: PublicKey(
        1 << (bits - 1) | low % (1 << (bits - 1)) | 1, exponent | 1
    ),
    st.integers(1024, 4096),
    st.integers(0, 1 << 4096),
    st.integers(3, (1 << 64) - 1),
)


def library_key(numbers: PublicKey) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(numbers.exponent, numbers.modulus).public_key()


def numbers_of(key: object) -> PublicKey:
    assert isinstance(key, rsa.RSAPublicKey)
    return PublicKey(key.public_numbers().n, key.public_numbers().e)


def signing_key() -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(private_key("publisher"), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


@st.composite
def certificates(draw: st.DrawFn, numbers: PublicKey) -> x509.Certificate:
    names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16)
    name, issuer = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, draw(names))])
        for _ in range(2)
    )
    days = dt.timedelta(draw(st.integers(1, 36524)))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(library_key(numbers))
        .serial_number(draw(st.integers(1, (1 << 159) - 1)))
        .not_valid_before(EARLIEST)
        .not_valid_after(EARLIEST + days)
    )
    for extension in draw(st.lists(st.sampled_from(EXTENSIONS), unique=True)):
        builder = builder.add_extension(extension, critical=draw(st.booleans()))
    return builder.sign(signing_key(), hashes.SHA256())


@given(odd_keys, st.sampled_from(FORMS))
def test_any_key_that_the_library_writes_is_read(
    numbers: PublicKey, form: serialization.PublicFormat
) -> None:
    text = library_key(numbers).public_bytes(serialization.Encoding.PEM, form)
    assert load_public_key(text) == numbers


@given(odd_keys, st.data())
def test_any_certificate_that_the_library_writes_is_read(
    numbers: PublicKey, data: st.DataObject
) -> None:
    written = data.draw(certificates(numbers))
    text = written.public_bytes(serialization.Encoding.PEM)
    assert certificate_public_key(text) == numbers
    fingerprint = fingerprint_of(text, HashAlgorithm.SHA1)
    assert fingerprint.digest == written.fingerprint(hashes.SHA1())  # noqa: S303


@pytest.mark.filterwarnings("ignore")  # the library warns of what it lets pass
@given(st.data())
def test_a_bent_certificate_shows_both_the_same_key(data: st.DataObject) -> None:
    der = bytearray(
        x509.load_pem_x509_certificate(certificate("publisher")).public_bytes(
            serialization.Encoding.DER
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(der) - 1))
        der[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(
        MalformedCertificateError, ValueError, x509.InvalidVersion
    ):
        ours = certificate_public_key(pem(b"CERTIFICATE", bytes(der)))
        theirs = x509.load_der_x509_certificate(bytes(der)).public_key()
        assert ours == numbers_of(theirs)


@pytest.mark.parametrize("fqrn", REPOSITORIES)
def test_certificates_of_the_original_are_read(fqrn: str) -> None:
    directory = fixture_repository(fqrn)
    letter = parse_letter((directory / ".cvmfspublished").read_bytes()).letter
    name = Manifest.parse(letter).certificate
    assert name is not None
    text = zlib.decompress(
        (directory / name.object_path(ObjectKind.CERTIFICATE)).read_bytes()
    )
    theirs = x509.load_pem_x509_certificate(text)
    assert certificate_public_key(text) == numbers_of(theirs.public_key())
    fingerprint = fingerprint_of(text, HashAlgorithm.SHA1)
    assert fingerprint.digest == theirs.fingerprint(hashes.SHA1())  # noqa: S303


def test_the_master_key_of_the_original_is_read() -> None:
    theirs = serialization.load_pem_public_key(fixture_key())
    assert load_public_key(fixture_key()) == numbers_of(theirs)


class TestOpenssl:
    """What the program writes; left out where it is not installed."""

    @pytest.fixture
    def key_file(self, tmp_path: Path) -> Path:
        if shutil.which("openssl") is None:
            pytest.skip("no program openssl to compare with")
        path = tmp_path / "key.pem"
        path.write_bytes(private_key("publisher"))
        return path

    def test_its_version_1_and_trusted_certificates_are_read(
        self, key_file: Path
    ) -> None:
        sign = ["-signkey", str(key_file), "-days", "2"]
        request = openssl(
            "req", "-new", "-key", str(key_file), "-subj", "/CN=a.example"
        )
        plain = openssl("x509", "-req", *sign, feed=request)
        trusted = openssl(
            "x509",
            "-trustout",
            "-addtrust",
            "serverAuth",
            "-setalias",
            "me",
            feed=plain,
        )
        assert x509.load_pem_x509_certificate(plain).version is x509.Version.v1
        assert trusted.startswith(b"-----BEGIN TRUSTED CERTIFICATE-----")
        for text in (plain, trusted):
            assert certificate_public_key(text) == numbers_of(
                signing_key().public_key()
            )
            stated = openssl("x509", "-noout", "-fingerprint", "-sha1", feed=text)
            digits = stated.decode().strip().rpartition("=")[2].replace(":", "")
            digest = fingerprint_of(text, HashAlgorithm.SHA1).digest
            assert digest == bytes.fromhex(digits)

    def test_its_keys_are_read(self, key_file: Path) -> None:
        for option in ("-pubout", "-RSAPublicKey_out"):
            text = openssl("rsa", "-in", str(key_file), option)
            assert load_public_key(text) == numbers_of(signing_key().public_key())

    @pytest.mark.parametrize(
        "options",
        [
            ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
            ("-algorithm", "ED25519"),
            ("-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:1024"),
        ],
        ids=lambda options: options[1],
    )
    def test_its_other_keys_are_refused(
        self, key_file: Path, options: tuple[str, ...]
    ) -> None:
        private = openssl("genpkey", *options)
        public = openssl("pkey", "-pubout", feed=private)
        with pytest.raises(ConfigurationError, match="not an RSA key"):
            load_public_key(public)
        key_file.write_bytes(private)
        request = ("req", "-x509", "-new", "-subj", "/CN=a.example", "-key")
        with pytest.raises(MalformedCertificateError, match="not an RSA key"):
            certificate_public_key(openssl(*request, str(key_file)))


def openssl(*arguments: str, feed: bytes = b"") -> bytes:
    run = subprocess.run(
        ["openssl", *arguments], input=feed, capture_output=True, check=True
    )
    return run.stdout
