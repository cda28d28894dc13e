"""Why bytes are believed: one valid set of documents, and every way to bend it."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import (
    CertificateBlacklistedError,
    ConfigurationError,
    CvmfsError,
    FingerprintNotListedError,
    FormatError,
    FqrnMismatchError,
    IncompleteManifestError,
    LetterHashMismatchError,
    MalformedCertificateError,
    MalformedWhitelistError,
    MissingCredentialError,
    NoMasterKeyError,
    RevisionBlacklistedError,
    RollbackError,
    RootPathMismatchError,
    SignatureMismatchError,
    TrustError,
    UnsupportedTrustError,
    UntrustedPackageError,
    WhitelistExpiredError,
)
from cvmfsexec.format.blacklist import Blacklist
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.manifest import MANIFEST_BYTES_MAX
from cvmfsexec.format.whitelist import WHITELIST_BYTES_MAX, format_time
from cvmfsexec.trust.chain import (
    Step,
    TrustSettings,
    Watermark,
    check_manifest,
    check_revision,
    check_signed,
    check_whitelist,
    is_newer,
    is_unchanged,
    verification_steps,
    verify,
)
from cvmfsexec.trust.signature import fingerprint_of
from tests.support.fixtures import REPOSITORIES, fixture_key, fixture_repository
from tests.support.signed_documents import (
    FQRN,
    MONTH_S,
    NOW_S,
    Documents,
    certificate,
    public_key,
    settings,
)

OTHER_ROOT = ContentHash.of(b"another root catalog")


class Case(NamedTuple):
    """Everything that the chain is given."""

    manifest: bytes
    whitelist: bytes
    certificate: bytes
    settings: TrustSettings
    watermark: Watermark | None = None
    now_s: float = NOW_S


def case(documents: Documents) -> Case:
    return Case(
        documents.manifest_blob(),
        documents.whitelist_blob(),
        documents.certificate,
        settings(),
    )


def valid() -> Case:
    return case(Documents.valid())


def with_manifest(**changes: object) -> Case:
    documents = Documents.valid()
    return case(documents._replace(manifest=documents.manifest._replace(**changes)))  # type: ignore[arg-type]


def with_whitelist(**changes: object) -> Case:
    documents = Documents.valid()
    return case(documents._replace(whitelist=documents.whitelist._replace(**changes)))  # type: ignore[arg-type]


def with_blacklist(text: str) -> Case:
    blacklisting = settings()._replace(blacklist=Blacklist.parse(text))
    return valid()._replace(settings=blacklisting)


def seen(*, published_at_s: int = NOW_S - 60, revision: int = 7) -> Watermark:
    return Watermark(OTHER_ROOT, published_at_s, revision)


def changed_text(blob: bytes) -> bytes:
    return blob.replace(b"--\n", b"q\n--\n", 1)


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_valid_documents_are_believed(algorithm: HashAlgorithm) -> None:
    documents = Documents.valid(algorithm)
    assert verify(*case(documents)) == documents.manifest


@pytest.mark.parametrize("algorithm", HashAlgorithm)
def test_every_step_is_announced_in_order(algorithm: HashAlgorithm) -> None:
    assert list(verification_steps(*case(Documents.valid(algorithm)))) == list(Step)


@pytest.mark.parametrize("fqrn", REPOSITORIES)
def test_repositories_of_the_original_are_believed(fqrn: str) -> None:
    root = fixture_repository(fqrn)
    trusting = TrustSettings(fqrn, (fixture_key(),))
    blob = (root / ".cvmfspublished").read_bytes()
    manifest, signed = check_manifest(blob, trusting, None)
    assert manifest.certificate is not None
    path = manifest.object_path(manifest.certificate, ObjectKind.CERTIFICATE)
    stored = (root / path).read_bytes()
    assert ContentHash.of(stored, manifest.certificate.algorithm) == (
        manifest.certificate
    )
    pem = zlib.decompress(stored)
    check_signed(signed, pem, trusting)
    whitelist = (root / ".cvmfswhitelist").read_bytes()
    check_whitelist(whitelist, trusting, pem, NOW_S)
    assert verify(blob, whitelist, pem, trusting, None, NOW_S) == manifest


REFUSALS = [
    pytest.param(
        lambda: valid()._replace(manifest=b"<html>404</html>"),
        FormatError,
        Step.MANIFEST_COMPLETE,
        id="manifest-is-a-web-page",
    ),
    pytest.param(
        lambda: valid()._replace(manifest=bytes(MANIFEST_BYTES_MAX + 1)),
        FormatError,
        Step.MANIFEST_COMPLETE,
        id="manifest-too-big",
    ),
    pytest.param(
        lambda: valid()._replace(
            manifest=valid().manifest.replace(b"\nS7\n", b"\ns7\n")
        ),
        IncompleteManifestError,
        Step.MANIFEST_COMPLETE,
        id="manifest-without-revision",
    ),
    pytest.param(
        lambda: with_manifest(certificate=None),
        IncompleteManifestError,
        Step.MANIFEST_COMPLETE,
        id="manifest-without-certificate",
    ),
    pytest.param(
        lambda: with_manifest(fqrn="other.example.org"),
        FqrnMismatchError,
        Step.MANIFEST_NAME,
        id="manifest-of-another-repository",
    ),
    pytest.param(
        lambda: with_manifest(fqrn=FQRN.upper()),
        FqrnMismatchError,
        Step.MANIFEST_NAME,
        id="manifest-name-in-capitals",
    ),
    pytest.param(
        lambda: with_manifest(fqrn=""),
        FqrnMismatchError,
        Step.MANIFEST_NAME,
        id="manifest-without-name",
    ),
    pytest.param(
        lambda: with_manifest(root_path_md5="0" * 32),
        RootPathMismatchError,
        Step.MANIFEST_ROOT_PATH,
        id="manifest-of-a-subtree",
    ),
    pytest.param(
        lambda: valid()._replace(watermark=seen(published_at_s=NOW_S - 59)),
        RollbackError,
        Step.MANIFEST_NOT_OLDER,
        id="published-before-what-was-seen",
    ),
    pytest.param(
        lambda: valid()._replace(watermark=seen(revision=8)),
        RollbackError,
        Step.MANIFEST_NOT_OLDER,
        id="revision-below-what-was-seen",
    ),
    pytest.param(
        lambda: with_blacklist(f"<{FQRN} 8"),
        RevisionBlacklistedError,
        Step.REVISION_ALLOWED,
        id="revision-blacklisted",
    ),
    pytest.param(
        lambda: valid()._replace(certificate=b"no certificate"),
        MalformedCertificateError,
        Step.CERTIFICATE_USABLE,
        id="certificate-malformed",
    ),
    pytest.param(
        lambda: valid()._replace(manifest=changed_text(valid().manifest)),
        LetterHashMismatchError,
        Step.MANIFEST_HASH,
        id="manifest-text-changed",
    ),
    pytest.param(
        lambda: valid()._replace(
            manifest=Documents.valid().manifest_blob(signer="other")
        ),
        SignatureMismatchError,
        Step.MANIFEST_SIGNATURE,
        id="manifest-signed-by-a-stranger",
    ),
    pytest.param(
        lambda: valid()._replace(manifest=valid().manifest[:-1]),
        SignatureMismatchError,
        Step.MANIFEST_SIGNATURE,
        id="manifest-signature-cut-short",
    ),
    pytest.param(
        lambda: valid()._replace(whitelist=b""),
        MalformedWhitelistError,
        Step.WHITELIST_WELL_FORMED,
        id="whitelist-empty",
    ),
    pytest.param(
        lambda: valid()._replace(whitelist=bytes(WHITELIST_BYTES_MAX + 1)),
        MalformedWhitelistError,
        Step.WHITELIST_WELL_FORMED,
        id="whitelist-too-big",
    ),
    pytest.param(
        lambda: valid()._replace(whitelist=b"<html>404</html>"),
        MalformedWhitelistError,
        Step.WHITELIST_WELL_FORMED,
        id="whitelist-is-a-web-page",
    ),
    pytest.param(
        lambda: valid()._replace(whitelist=valid().manifest),
        MalformedWhitelistError,
        Step.WHITELIST_WELL_FORMED,
        id="whitelist-is-a-manifest",
    ),
    pytest.param(
        lambda: with_whitelist(options=("Vpkcs7",)),
        UnsupportedTrustError,
        Step.WHITELIST_SUPPORTED,
        id="whitelist-wants-pkcs7",
    ),
    pytest.param(
        lambda: with_whitelist(options=("Wcachain",)),
        UnsupportedTrustError,
        Step.WHITELIST_SUPPORTED,
        id="whitelist-wants-a-certificate-chain",
    ),
    pytest.param(
        lambda: valid()._replace(now_s=NOW_S + MONTH_S),
        WhitelistExpiredError,
        Step.WHITELIST_CURRENT,
        id="whitelist-expired",
    ),
    pytest.param(
        lambda: with_whitelist(fqrn="other.example.org"),
        FqrnMismatchError,
        Step.WHITELIST_NAME,
        id="whitelist-of-another-repository",
    ),
    pytest.param(
        lambda: valid()._replace(whitelist=changed_text(valid().whitelist)),
        LetterHashMismatchError,
        Step.WHITELIST_HASH,
        id="whitelist-text-changed",
    ),
    pytest.param(
        lambda: valid()._replace(settings=TrustSettings(FQRN, ())),
        NoMasterKeyError,
        Step.WHITELIST_SIGNATURE,
        id="no-master-key",
    ),
    pytest.param(
        lambda: valid()._replace(settings=TrustSettings(FQRN, (b"no key",))),
        ConfigurationError,
        Step.WHITELIST_SIGNATURE,
        id="master-key-malformed",
    ),
    pytest.param(
        lambda: valid()._replace(
            settings=TrustSettings(FQRN, (public_key("other"), public_key("publisher")))
        ),
        SignatureMismatchError,
        Step.WHITELIST_SIGNATURE,
        id="wrong-master-keys",
    ),
    pytest.param(
        lambda: valid()._replace(
            whitelist=Documents.valid().whitelist_blob(signer="publisher")
        ),
        SignatureMismatchError,
        Step.WHITELIST_SIGNATURE,
        id="whitelist-signed-by-the-publisher",
    ),
    *(
        pytest.param(
            lambda algorithm=algorithm: with_blacklist(
                str(fingerprint_of(certificate("publisher"), algorithm))
            ),
            CertificateBlacklistedError,
            Step.CERTIFICATE_NOT_BLACKLISTED,
            id=f"certificate-blacklisted-by-{algorithm.name.lower()}",
        )
        for algorithm in HashAlgorithm
    ),
    pytest.param(
        lambda: with_whitelist(
            fingerprints=(fingerprint_of(certificate("other"), HashAlgorithm.SHA1),)
        ),
        FingerprintNotListedError,
        Step.CERTIFICATE_LISTED,
        id="another-certificate-listed",
    ),
    pytest.param(
        lambda: with_whitelist(fingerprints=()),
        FingerprintNotListedError,
        Step.CERTIFICATE_LISTED,
        id="no-certificate-listed",
    ),
    pytest.param(
        lambda: with_whitelist(
            fingerprints=(
                fingerprint_of(certificate("publisher"), HashAlgorithm.SHA1)._replace(
                    algorithm=HashAlgorithm.RMD160
                ),
            )
        ),
        FingerprintNotListedError,
        Step.CERTIFICATE_LISTED,
        id="listed-by-the-digits-of-another-algorithm",
    ),
    pytest.param(
        lambda: case(
            Documents.valid()._replace(certificate=certificate("other"))
        )._replace(manifest=Documents.valid().manifest_blob(signer="other")),
        FingerprintNotListedError,
        Step.CERTIFICATE_LISTED,
        id="well-signed-by-a-stranger-with-his-own-certificate",
    ),
]


@pytest.mark.parametrize(("bend", "error", "step"), REFUSALS)
def test_bent_documents_are_refused_at_the_right_step(
    bend: Callable[[], Case], error: type[CvmfsError], step: Step
) -> None:
    bent = bend()
    with pytest.raises(error) as caught:
        verify(*bent)
    assert caught.type is error
    assert str(caught.value)

    steps = verification_steps(*bent)
    before = list(Step)[: list(Step).index(step)]
    assert [next(steps) for _ in before] == before
    assert next(steps) is step
    with pytest.raises(error):
        next(steps)


def test_every_refusal_and_every_step_has_a_case() -> None:
    errors = {param.values[1] for param in REFUSALS}
    steps = {param.values[2] for param in REFUSALS}
    # Credentials and packages are judged elsewhere.
    elsewhere = {MissingCredentialError, UntrustedPackageError}
    assert errors >= set(TrustError.__subclasses__()) - elsewhere
    assert errors >= set(FormatError.__subclasses__())
    assert steps == set(Step)


@given(st.data())
def test_no_byte_of_a_signed_document_can_be_changed(data: st.DataObject) -> None:
    good = valid()
    document = data.draw(st.sampled_from([good.manifest, good.whitelist]))
    blob = bytearray(document)
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    bent = (bytes(blob) if given is document else given for given in good)
    with pytest.raises((FormatError, TrustError)):
        verify(*bent)  # type: ignore[arg-type]


@given(st.binary())
def test_any_bytes_are_refused_by_our_own_errors(blob: bytes) -> None:
    good = valid()
    for bent in (
        good._replace(manifest=blob),
        good._replace(whitelist=blob),
        good._replace(certificate=blob),
    ):
        with pytest.raises((FormatError, TrustError)):
            verify(*bent)


@pytest.mark.parametrize(
    "watermark",
    [
        pytest.param(None, id="nothing-seen"),
        pytest.param(seen(), id="same-revision-and-time"),
        pytest.param(seen(revision=6, published_at_s=NOW_S - 61), id="older"),
    ],
)
def test_what_is_not_older_passes(watermark: Watermark | None) -> None:
    assert verify(*valid()._replace(watermark=watermark)).revision == 7


def test_a_whitelist_holds_until_its_expiry_hour() -> None:
    expiring = with_whitelist(expires_at=format_time(NOW_S + 3600))
    hour_begins = NOW_S + 3600 - NOW_S % 3600
    assert verify(*expiring._replace(now_s=hour_begins - 1))
    with pytest.raises(WhitelistExpiredError) as caught:
        verify(*expiring._replace(now_s=hour_begins))
    assert "clock" in caught.value.hint


def test_one_of_several_fingerprints_suffices() -> None:
    listed = (
        fingerprint_of(certificate("other"), HashAlgorithm.SHA1),
        fingerprint_of(certificate("publisher"), HashAlgorithm.RMD160),
    )
    assert verify(*with_whitelist(fingerprints=listed))


def test_any_of_several_master_keys_suffices() -> None:
    keys = (public_key("other"), public_key("master"))
    assert verify(*valid()._replace(settings=TrustSettings(FQRN, keys)))


def test_other_repositories_revisions_may_be_blacklisted() -> None:
    assert verify(*with_blacklist(f"<other.example.org 8\n<{FQRN} 7"))


def test_the_same_root_catalog_is_unchanged() -> None:
    manifest = Documents.valid().manifest
    here = Watermark(manifest.root_catalog, NOW_S - 60, 7)
    assert is_unchanged(manifest, here)
    assert not is_unchanged(manifest, here._replace(root_catalog=OTHER_ROOT))
    assert not is_unchanged(manifest, None)


def test_an_unsigned_revision_does_not_lift_the_blacklist() -> None:
    # Whoever is between here and the server can claim any S beside the known C.
    claimed = with_manifest(revision=100)
    manifest = Documents.valid().manifest
    here = Watermark(manifest.root_catalog, NOW_S - 60, 7)
    blacklisting = settings()._replace(blacklist=Blacklist.parse(f"<{FQRN} 8"))
    with pytest.raises(RevisionBlacklistedError):
        check_manifest(claimed.manifest, blacklisting, here)


def test_a_local_revision_can_be_asked_about_without_a_manifest() -> None:
    blacklisting = settings()._replace(blacklist=Blacklist.parse(f"<{FQRN} 8"))
    check_revision(8, blacklisting)
    with pytest.raises(RevisionBlacklistedError, match="8 is the lowest"):
        check_revision(7, blacklisting)


@pytest.mark.parametrize(
    ("here", "there", "newer"),
    [
        pytest.param(6, 7, True, id="higher"),
        pytest.param(7, 7, False, id="same"),
        pytest.param(8, 7, False, id="lower"),
        pytest.param(0, 0, True, id="nothing-published-yet"),
    ],
)
def test_only_a_higher_revision_replaces(here: int, there: int, *, newer: bool) -> None:
    manifest = Documents.valid().manifest._replace(revision=there)
    assert is_newer(manifest, seen(revision=here)) is newer
    assert is_newer(manifest, None)
