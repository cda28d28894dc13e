import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError, MalformedCertificateError
from cvmfsexec.format.digest import HashAlgorithm
from cvmfsexec.trust.signature import (
    PublicKey,
    certificate_public_key,
    fingerprint_of,
    generate_certificate,
    load_public_key,
    sign_manifest,
    sign_whitelist,
    verify_manifest_signature,
    verify_whitelist_signature,
)
from tests.support.der_values import (
    VERSION_3,
    CertificateParts,
    pem,
    public_key_info,
    rsa_public_key,
)
from tests.support.signed_documents import (
    FQRN,
    NOW_S,
    Documents,
    certificate,
    private_key,
    public_key,
)

DIGITS = b"0123456789abcdef0123456789abcdef01234567"
HASH_TEXTS = [DIGITS, DIGITS + b"-rmd160", DIGITS + b"-shake128"]
SHA1_DIGEST_INFO = bytes.fromhex("3021300906052b0e03021a05000414")


def key() -> PublicKey:
    return load_public_key(public_key("publisher"))


def openssl_key() -> rsa.RSAPublicKey:
    loaded = serialization.load_pem_public_key(public_key("publisher"))
    assert isinstance(loaded, rsa.RSAPublicKey)
    return loaded


def sign_block(block: bytes) -> bytes:
    """Sign any block whatever, as only the owner of the key can."""
    loaded = serialization.load_pem_private_key(private_key("publisher"), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    number = int.from_bytes(block)
    return pow(number, loaded.private_numbers().d, key().modulus).to_bytes(256)


def der_of(certificate_pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(certificate_pem).public_bytes(
        serialization.Encoding.DER
    )


class TestManifestSignature:
    @pytest.mark.parametrize("hash_text", HASH_TEXTS)
    def test_openssl_agrees(self, hash_text: bytes) -> None:
        signature = sign_manifest(hash_text, private_key("publisher"))
        assert verify_manifest_signature(hash_text, signature, key())
        openssl_key().verify(
            signature,
            hash_text,
            padding.PKCS1v15(),
            hashes.SHA1(),  # noqa: S303
        )

    def test_a_signature_of_the_other_kind_is_refused(self) -> None:
        signature = sign_whitelist(DIGITS, private_key("publisher"))
        assert not verify_manifest_signature(DIGITS, signature, key())

    def test_another_text_is_refused(self) -> None:
        signature = sign_manifest(DIGITS, private_key("publisher"))
        assert not verify_manifest_signature(DIGITS + b"-rmd160", signature, key())

    def test_another_key_is_refused(self) -> None:
        signature = sign_manifest(DIGITS, private_key("other"))
        assert not verify_manifest_signature(DIGITS, signature, key())


class TestWhitelistSignature:
    @pytest.mark.parametrize("hash_text", HASH_TEXTS)
    def test_openssl_agrees(self, hash_text: bytes) -> None:
        signature = sign_whitelist(hash_text, private_key("publisher"))
        assert verify_whitelist_signature(hash_text, signature, key())
        recovered = openssl_key().recover_data_from_signature(
            signature, padding.PKCS1v15(), None
        )
        assert recovered == hash_text

    def test_a_signature_of_the_other_kind_is_refused(self) -> None:
        signature = sign_manifest(DIGITS, private_key("publisher"))
        assert not verify_whitelist_signature(DIGITS, signature, key())

    @pytest.mark.parametrize(
        "block",
        [
            pytest.param(b"\0\1" + b"\xff" * 8 + b"\0" + DIGITS, id="short-filler"),
            pytest.param(
                b"\0\1" + b"\xff" * 8 + b"\0" + DIGITS + b"\xff" * 205, id="garbage"
            ),
            pytest.param(b"\0\1" + b"\xff" * 213 + b"\1" + DIGITS, id="separator"),
            pytest.param(b"\0\2" + b"\xff" * 213 + b"\0" + DIGITS, id="block-type"),
            pytest.param(
                b"\0\1" + b"\xff" * 212 + b"\xfe\0" + DIGITS, id="filler-not-all-ones"
            ),
            pytest.param(DIGITS, id="no-padding"),
        ],
    )
    def test_sloppy_padding_is_refused(self, block: bytes) -> None:
        assert not verify_whitelist_signature(DIGITS, sign_block(block), key())

    def test_the_exact_padding_is_accepted(self) -> None:
        block = b"\0\1" + b"\xff" * 213 + b"\0" + DIGITS
        assert verify_whitelist_signature(DIGITS, sign_block(block), key())


class TestLengths:
    @pytest.mark.parametrize(
        "change", [lambda s: s[:-1], lambda s: s + b"\n", lambda s: b"\0" + s]
    )
    def test_a_signature_is_as_long_as_the_modulus(
        self, change: Callable[[bytes], bytes]
    ) -> None:
        signature = change(sign_manifest(DIGITS, private_key("publisher")))
        assert not verify_manifest_signature(DIGITS, signature, key())

    def test_a_number_above_the_modulus_is_refused(self) -> None:
        small = PublicKey(2**2047 + 1, 1)
        block = int.from_bytes(b"\0\1" + b"\xff" * 213 + b"\0" + DIGITS)
        assert verify_whitelist_signature(DIGITS, block.to_bytes(256), small)
        beyond = (block + small.modulus).to_bytes(256)
        assert not verify_whitelist_signature(DIGITS, beyond, small)

    @given(st.binary(max_size=300))
    def test_a_text_that_does_not_fit_the_key_is_refused(
        self, signature: bytes
    ) -> None:
        tiny = PublicKey(2**200 + 1, 3)
        assert not verify_manifest_signature(DIGITS, signature, tiny)


class TestPublicKeys:
    def test_a_key_is_its_two_numbers(self) -> None:
        numbers = openssl_key().public_numbers()
        assert key() == PublicKey(numbers.n, numbers.e)
        assert key().size_bytes == 256

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"ssh-rsa AAAA", id="ssh"),
            pytest.param(pem(b"PUBLIC KEY", b"0\0"), id="no-key-inside"),
        ],
    )
    def test_what_is_no_key_is_a_configuration_error(self, text: bytes) -> None:
        with pytest.raises(ConfigurationError, match="no RSA public key"):
            load_public_key(text)

    def test_a_certificate_is_no_master_key(self) -> None:
        with pytest.raises(ConfigurationError):
            load_public_key(certificate("publisher"))

    def test_another_kind_of_key_is_refused(self) -> None:
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        text = public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(ConfigurationError, match="not an RSA key"):
            load_public_key(text)

    @pytest.mark.parametrize("bits", [1024, 16384])
    def test_keys_of_any_reasonable_size_are_read(self, bits: int) -> None:
        numbers = PublicKey(2 ** (bits - 1) + 1, 3)
        text = pem(b"PUBLIC KEY", public_key_info(rsa_public_key(*numbers)))
        assert load_public_key(text) == numbers

    def test_a_key_may_come_without_the_name_of_its_algorithm(self) -> None:
        text = openssl_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
        )
        assert text.startswith(b"-----BEGIN RSA PUBLIC KEY-----")
        assert load_public_key(text) == key()

    def test_the_two_forms_of_a_key_are_not_mixed_up(self) -> None:
        for label, content in [
            (b"PUBLIC KEY", rsa_public_key()),
            (b"RSA PUBLIC KEY", public_key_info()),
        ]:
            with pytest.raises(ConfigurationError):
                load_public_key(pem(label, content))

    @pytest.mark.parametrize(
        ("modulus", "exponent", "reason"),
        [
            pytest.param(2**1023 - 1, 3, "1023 bits", id="modulus-too-short"),
            pytest.param(2**16384 + 1, 3, "16385 bits", id="modulus-too-long"),
            pytest.param(0, 3, "0 bits", id="modulus-zero"),
            pytest.param(2**2047, 3, "even", id="modulus-even"),
            pytest.param(2**2047 + 1, 0, "exponent", id="exponent-zero"),
            pytest.param(2**2047 + 1, 1, "exponent", id="exponent-one"),
            pytest.param(2**2047 + 1, 65536, "even", id="exponent-even"),
            pytest.param(2**2047 + 1, 2**64 + 1, "exponent", id="exponent-too-long"),
        ],
    )
    def test_a_key_of_unreasonable_numbers_is_refused(
        self, modulus: int, exponent: int, reason: str
    ) -> None:
        info = public_key_info(rsa_public_key(modulus, exponent))
        with pytest.raises(ConfigurationError, match=reason):
            load_public_key(pem(b"PUBLIC KEY", info))
        der = CertificateParts(key=info).der()
        with pytest.raises(MalformedCertificateError, match=reason):
            certificate_public_key(pem(b"CERTIFICATE", der))


class TestCertificates:
    def test_a_generated_one_carries_the_key_for_a_year(self) -> None:
        loaded = x509.load_pem_x509_certificate(certificate("publisher"))
        assert certificate_public_key(certificate("publisher")) == key()
        assert loaded.version is x509.Version.v3
        assert loaded.subject.rfc4514_string() == f"CN={FQRN}"
        assert loaded.not_valid_before_utc.timestamp() == NOW_S
        lifetime = loaded.not_valid_after_utc - loaded.not_valid_before_utc
        assert lifetime.days == 365
        loaded.verify_directly_issued_by(loaded)

    def test_fingerprints_are_those_of_openssl(self) -> None:
        loaded = x509.load_pem_x509_certificate(certificate("publisher"))
        fingerprint = fingerprint_of(certificate("publisher"), HashAlgorithm.SHA1)
        assert fingerprint.digest == loaded.fingerprint(hashes.SHA1())  # noqa: S303

    @pytest.mark.parametrize("kind", [b"CERTIFICATE", b"X509 CERTIFICATE"])
    def test_text_around_and_other_names_do_not_matter(self, kind: bytes) -> None:
        plain = certificate("publisher")
        framed = b"Subject: me\n\n" + pem(kind, der_of(plain)) + b"more"
        assert certificate_public_key(framed) == key()
        assert fingerprint_of(framed, HashAlgorithm.SHAKE128) == fingerprint_of(
            plain, HashAlgorithm.SHAKE128
        )

    def test_remarks_of_openssl_are_no_part_of_a_trusted_certificate(self) -> None:
        plain = certificate("publisher")
        remarks = bytes.fromhex("300c300a06082b06010505070301")
        trusted = pem(b"TRUSTED CERTIFICATE", der_of(plain) + remarks)
        assert certificate_public_key(trusted) == key()
        assert fingerprint_of(trusted, HashAlgorithm.SHA1) == fingerprint_of(
            plain, HashAlgorithm.SHA1
        )

    def test_key_and_fingerprint_come_from_the_same_certificate(self) -> None:
        both = certificate("publisher") + certificate("other")
        assert certificate_public_key(both) == key()
        assert fingerprint_of(both, HashAlgorithm.SHA1) == fingerprint_of(
            certificate("publisher"), HashAlgorithm.SHA1
        )

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(b"", id="empty"),
            pytest.param(pem(b"PUBLIC KEY", b"\x30\1\0"), id="a-public-key"),
            pytest.param(
                b"-----BEGIN CERTIFICATE-----\nMIIC\n-----END X509 CERTIFICATE-----",
                id="another-end",
            ),
            pytest.param(
                b"-----BEGIN CERTIFICATE-----\nMIIC=9\n-----END CERTIFICATE-----",
                id="not-base64",
            ),
            pytest.param(pem(b"CERTIFICATE", b"\x30"), id="one-byte"),
            pytest.param(pem(b"CERTIFICATE", b"\x31\1\0"), id="no-sequence"),
            pytest.param(pem(b"CERTIFICATE", b"\x30\2\0"), id="cut-short"),
            pytest.param(pem(b"CERTIFICATE", b"\x30\x80\0\0"), id="without-length"),
            pytest.param(pem(b"CERTIFICATE", b"\x30\xff" + b"\1" * 200), id="endless"),
        ],
    )
    def test_what_is_no_certificate_is_malformed(self, text: bytes) -> None:
        with pytest.raises(MalformedCertificateError):
            certificate_public_key(text)
        with pytest.raises(MalformedCertificateError):
            fingerprint_of(text, HashAlgorithm.SHA1)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            pytest.param(VERSION_3, VERSION_3[:-1] + b"\x2a", id="version"),
            pytest.param(b"\x2a\x86\x48", b"\x2a\x86\x49", id="algorithms"),
            pytest.param(b"\x03\x82", b"\x04\x82", id="structure"),
        ],
    )
    def test_a_certificate_that_was_bent_is_malformed(
        self, old: bytes, new: bytes
    ) -> None:
        der = der_of(certificate("publisher"))
        assert old in der
        with pytest.raises(MalformedCertificateError, match="cannot be used"):
            certificate_public_key(pem(b"CERTIFICATE", der.replace(old, new)))

    def test_a_certificate_of_another_kind_of_key_is_refused(self) -> None:
        other = ec.generate_private_key(ec.SECP256R1())
        loaded = x509.load_pem_x509_certificate(certificate("publisher"))
        text = (
            x509.CertificateBuilder()
            .subject_name(loaded.subject)
            .issuer_name(loaded.issuer)
            .public_key(other.public_key())
            .serial_number(1)
            .not_valid_before(loaded.not_valid_before_utc)
            .not_valid_after(loaded.not_valid_after_utc)
            .sign(other, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        with pytest.raises(MalformedCertificateError, match="not an RSA key"):
            certificate_public_key(text)

    def test_none_is_made_for_a_name_that_is_none(self) -> None:
        with pytest.raises(ConfigurationError, match="not a repository name"):
            generate_certificate("../etc", private_key("publisher"), NOW_S)


class TestPrivateKeys:
    def test_an_encrypted_key_is_refused(self) -> None:
        loaded = serialization.load_pem_private_key(private_key("publisher"), None)
        text = loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        with pytest.raises(ConfigurationError, match="unencrypted"):
            sign_manifest(DIGITS, text)

    def test_another_kind_of_key_is_refused(self) -> None:
        text = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with pytest.raises(ConfigurationError, match="RSA private key"):
            sign_whitelist(DIGITS, text)

    def test_a_key_whose_numbers_do_not_fit_makes_no_signature(self) -> None:
        loaded = serialization.load_pem_private_key(private_key("publisher"), None)
        assert isinstance(loaded, rsa.RSAPrivateKey)
        good = loaded.private_numbers()
        bad = rsa.RSAPrivateNumbers(
            good.p,
            good.q,
            good.d + 2,
            good.dmp1,
            good.dmq1,
            good.iqmp,
            good.public_numbers,
        ).private_key(unsafe_skip_rsa_key_validation=True)
        text = bad.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with pytest.raises(ConfigurationError, match="belong together"):
            sign_manifest(DIGITS, text)

    @pytest.mark.parametrize("text", [b"", b"nonsense"])
    def test_what_is_no_key_is_refused(self, text: bytes) -> None:
        with pytest.raises(ConfigurationError, match="RSA private key"):
            sign_manifest(DIGITS, text)


def test_verifying_does_without_cryptography() -> None:
    program = (
        "import json, sys; sys.modules['cryptography'] = None; "
        "from cvmfsexec.trust import chain; "
        "manifest, whitelist, certificate, fqrn, key, now_s = json.load(sys.stdin); "
        "trust = chain.TrustSettings(fqrn, (key.encode(),)); "
        "blobs = (text.encode('latin-1') for text in (manifest, whitelist)); "
        "chain.verify(*blobs, certificate.encode(), trust, None, now_s)"
    )
    documents = Documents.valid()
    texts = (
        documents.manifest_blob().decode("latin-1"),
        documents.whitelist_blob().decode("latin-1"),
        documents.certificate.decode(),
        FQRN,
        public_key("master").decode(),
        NOW_S,
    )
    subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(texts), text=True, check=True
    )


def test_the_digest_info_is_that_of_sha1() -> None:
    recovered = openssl_key().recover_data_from_signature(
        sign_manifest(DIGITS, private_key("publisher")), padding.PKCS1v15(), None
    )
    assert recovered.startswith(SHA1_DIGEST_INFO)
    assert len(recovered) == len(SHA1_DIGEST_INFO) + 20
