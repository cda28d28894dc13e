"""The chain of trust: master key, whitelist, certificate, manifest, root catalog.

A repository is mutable in two small documents only, and both are signed. The master
key signs the whitelist, the whitelist names the certificates that may sign manifests,
the manifest names the root catalog by its hash, and by such hashes a catalog names
everything else. This module decides; whoever calls it fetches:

1. :func:`check_manifest`: complete, about this repository, not older than what was
   seen before. Nothing of it is trusted yet.
2. :func:`is_unchanged`: if it names the root catalog that is already here, that is
   all there is to learn from it, and the rest may be left out.
3. :func:`check_signed`: signed by the certificate that it names. The certificate is
   an object like any other: fetching it by hash is the caller's work.
4. :func:`check_whitelist`: current, about this repository, signed by a master key,
   naming that certificate. Now, and not before, the manifest is believed.

:func:`verify` does it all; :func:`verification_steps` does the same and says at which
step it is. Both go through the same generators, so that no way round leaves a step
out. Every refusal is an error class of its own; none is ever only logged.

Time, keys and bytes are arguments, so any thread may call anything here.

Source: docs/reference/repository-format.md, "Verification chain"; the numbers of the
steps are those of the table there.
"""

from collections.abc import Generator, Iterator
from enum import Enum
from typing import NamedTuple, TypeVar

from cvmfsexec.errors import (
    CertificateBlacklistedError,
    FingerprintNotListedError,
    FormatError,
    FqrnMismatchError,
    IncompleteManifestError,
    LetterHashMismatchError,
    MalformedWhitelistError,
    RevisionBlacklistedError,
    RollbackError,
    RootPathMismatchError,
    SignatureMismatchError,
    UnsupportedTrustError,
    WhitelistExpiredError,
)
from cvmfsexec.format.blacklist import EMPTY_BLACKLIST, Blacklist
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.envelope import SignedLetter, letter_hash_matches, parse_letter
from cvmfsexec.format.manifest import MANIFEST_BYTES_MAX, ROOT_PATH_MD5, Manifest
from cvmfsexec.format.whitelist import WHITELIST_BYTES_MAX, Fingerprint, Whitelist
from cvmfsexec.trust.keyring import Keyring
from cvmfsexec.trust.signature import (
    certificate_public_key,
    fingerprint_of,
    verify_manifest_signature,
)


class TrustSettings(NamedTuple):
    """What is known before anything is fetched.

    Attributes:
        fqrn: The repository that is wanted.
        master_keys: Public keys in PEM form, any of which may sign the whitelist.
        blacklist: What the site refuses although it is signed.
    """

    fqrn: str
    master_keys: tuple[bytes, ...]
    blacklist: Blacklist = EMPTY_BLACKLIST


class Watermark(NamedTuple):
    """The newest revision that was ever believed here: the mounted or stored one.

    Attributes:
        root_catalog: Its root catalog.
        published_at_s: Field T of its manifest, Unix time.
        revision: Field S of its manifest.
    """

    root_catalog: ContentHash
    published_at_s: int
    revision: int


class Step(Enum):
    """One check of the chain, as a sentence that holds once it has passed."""

    MANIFEST_COMPLETE = "the manifest is complete"
    MANIFEST_NAME = "the manifest speaks for the repository"
    MANIFEST_ROOT_PATH = "the manifest describes a whole repository"
    MANIFEST_NOT_OLDER = "the manifest is not older than what was seen before"
    REVISION_ALLOWED = "the revision is not blacklisted"
    CERTIFICATE_USABLE = "the certificate holds a usable key"
    MANIFEST_HASH = "the manifest's text is what was signed"
    MANIFEST_SIGNATURE = "the certificate signed the manifest"
    WHITELIST_WELL_FORMED = "the whitelist is well formed"
    WHITELIST_SUPPORTED = "the whitelist asks for no checks that are not made here"
    WHITELIST_CURRENT = "the whitelist has not expired"
    WHITELIST_NAME = "the whitelist speaks for the repository"
    WHITELIST_HASH = "the whitelist's text is what was signed"
    WHITELIST_SIGNATURE = "a master key signed the whitelist"
    CERTIFICATE_NOT_BLACKLISTED = "the certificate is not blacklisted"
    CERTIFICATE_LISTED = "the certificate is on the whitelist"


_Result = TypeVar("_Result")
_Steps = Generator[Step, None, _Result]
"""Announces each step, then makes it: whoever catches an error knows where."""


def check_manifest(
    blob: bytes, settings: TrustSettings, watermark: Watermark | None
) -> tuple[Manifest, SignedLetter]:
    """Read a manifest and refuse what needs no signature to be refused.

    Nothing of the result is trusted before :func:`check_signed` and
    :func:`check_whitelist`, except that :func:`is_unchanged` may be asked.

    Args:
        blob: The file ``.cvmfspublished``.
        settings: The repository wanted.
        watermark: The newest revision known here; ``None`` if there is none.

    Raises:
        FormatError: Not a signed letter, or a field has no value;
            ``IncompleteManifestError`` if one is missing.
        FqrnMismatchError: It speaks for another repository, or for none.
        RootPathMismatchError: Its root is not the root of a repository.
        RollbackError: It is older than the watermark.
        RevisionBlacklistedError: The blacklist asks for a newer revision.
    """
    return _run(_manifest_steps(blob, settings, watermark))


def is_unchanged(manifest: Manifest, watermark: Watermark | None) -> bool:
    """Whether a manifest names the root catalog that is already here (step 6).

    Then there is nothing new to verify; and nothing else may be taken from a
    manifest whose signature was not checked.
    """
    return watermark is not None and manifest.root_catalog == watermark.root_catalog


def is_newer(manifest: Manifest, watermark: Watermark | None) -> bool:
    """Whether a verified manifest is to replace what is here.

    It is if its revision is higher, and if both are 0, as in a repository where
    nothing has been published. Another root catalog with the *same* revision is no
    error, and is not adopted either.
    """
    return (
        watermark is None
        or manifest.revision > watermark.revision
        or manifest.revision == watermark.revision == 0
    )


def check_revision(revision: int, settings: TrustSettings) -> None:
    """Refuse a revision that the site has blacklisted.

    For a revision that is mounted without its manifest: from the cache, or pinned by
    tag, date or hash. :func:`check_manifest` asks the same.

    Raises:
        RevisionBlacklistedError: It is below the minimum of the blacklist.
    """
    minimum = settings.blacklist.minimum_revision(settings.fqrn)
    if revision < minimum:
        raise RevisionBlacklistedError(
            f"revision {revision} of {settings.fqrn} is blacklisted here; "
            f"{minimum} is the lowest allowed"
        )


def check_signed(
    signed: SignedLetter, certificate_pem: bytes, settings: TrustSettings
) -> None:
    """Refuse a manifest that its certificate did not sign (steps 7, 8).

    Args:
        signed: From :func:`check_manifest`.
        certificate_pem: The certificate that the manifest names, its hash checked
            and decompressed.
        settings: The repository wanted.

    Raises:
        MalformedCertificateError: The certificate holds no usable key.
        LetterHashMismatchError: The text is not what was signed.
        SignatureMismatchError: Another key signed.
    """
    _run(_signature_steps(signed, certificate_pem, settings))


def check_whitelist(
    blob: bytes, settings: TrustSettings, certificate_pem: bytes, now_s: float
) -> Whitelist:
    """Refuse a whitelist that does not allow a certificate to sign (steps 9-12).

    Args:
        blob: The file ``.cvmfswhitelist``.
        settings: The repository wanted, master keys and blacklist.
        certificate_pem: The certificate that signed the manifest.
        now_s: Unix time; the expiry is compared by the hour.

    Raises:
        MalformedWhitelistError: Not a signed letter, or not a whitelist.
        UnsupportedTrustError: It asks for PKCS#7 or a certificate chain.
        WhitelistExpiredError: Its expiry hour has begun.
        FqrnMismatchError: It speaks for another repository.
        LetterHashMismatchError: The text is not what was signed.
        NoMasterKeyError: There is no key to verify it with.
        SignatureMismatchError: No master key signed it.
        CertificateBlacklistedError: The site refuses the certificate.
        FingerprintNotListedError: The certificate is not on it.
    """
    return _run(_whitelist_steps(blob, settings, certificate_pem, now_s))


def verify(
    manifest_blob: bytes,
    whitelist_blob: bytes,
    certificate_pem: bytes,
    settings: TrustSettings,
    watermark: Watermark | None,
    now_s: float,
) -> Manifest:
    """Return a manifest that is believed; the whole chain, in its order.

    Raises:
        FormatError: See :func:`check_manifest`, :func:`check_signed`,
            :func:`check_whitelist`.
        TrustError: See there.
    """
    manifest, signed = check_manifest(manifest_blob, settings, watermark)
    check_signed(signed, certificate_pem, settings)
    check_whitelist(whitelist_blob, settings, certificate_pem, now_s)
    return manifest


def verification_steps(
    manifest_blob: bytes,
    whitelist_blob: bytes,
    certificate_pem: bytes,
    settings: TrustSettings,
    watermark: Watermark | None,
    now_s: float,
) -> Iterator[Step]:
    """Do what :func:`verify` does, and yield each step *before* it is made.

    A step has passed when the next one is yielded or the iteration ends; an error
    belongs to the step yielded last.
    """
    _, signed = yield from _manifest_steps(manifest_blob, settings, watermark)
    yield from _signature_steps(signed, certificate_pem, settings)
    yield from _whitelist_steps(whitelist_blob, settings, certificate_pem, now_s)


def _run(steps: _Steps[_Result]) -> _Result:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


def _manifest_steps(
    blob: bytes, settings: TrustSettings, watermark: Watermark | None
) -> _Steps[tuple[Manifest, SignedLetter]]:
    yield Step.MANIFEST_COMPLETE
    if len(blob) > MANIFEST_BYTES_MAX:
        raise FormatError(f"a manifest of {len(blob)} bytes is none")
    signed, manifest = _parse_manifest(blob, settings)
    if manifest.certificate is None:
        raise IncompleteManifestError("the manifest lacks X, its certificate")

    yield Step.MANIFEST_NAME
    _check_name("manifest", manifest.fqrn, settings)

    yield Step.MANIFEST_ROOT_PATH
    if manifest.root_path_md5 != ROOT_PATH_MD5:
        raise RootPathMismatchError(
            f"the manifest of {settings.fqrn} is about a part of a repository"
        )

    yield Step.MANIFEST_NOT_OLDER
    if watermark is not None:
        _check_not_older(manifest, watermark)

    yield Step.REVISION_ALLOWED
    check_revision(manifest.revision, settings)
    if watermark is not None and is_unchanged(manifest, watermark):
        # The signature may go unchecked then, so S proves nothing.
        check_revision(watermark.revision, settings)
    return manifest, signed


def _signature_steps(
    signed: SignedLetter, certificate_pem: bytes, settings: TrustSettings
) -> _Steps[None]:
    yield Step.CERTIFICATE_USABLE
    key = certificate_public_key(certificate_pem)

    yield Step.MANIFEST_HASH
    _check_letter_hash("manifest", signed, settings)

    yield Step.MANIFEST_SIGNATURE
    if not verify_manifest_signature(signed.hash_text, signed.signature, key):
        raise SignatureMismatchError(
            f"the manifest of {settings.fqrn} was not signed by its certificate"
        )


def _whitelist_steps(
    blob: bytes, settings: TrustSettings, certificate_pem: bytes, now_s: float
) -> _Steps[Whitelist]:
    yield Step.WHITELIST_WELL_FORMED
    signed, whitelist = _parse_whitelist(blob)

    yield Step.WHITELIST_SUPPORTED
    if whitelist.options:
        # Doing less than was asked for would be believing more than was said.
        raise UnsupportedTrustError(
            f"the whitelist of {settings.fqrn} asks for checks that are not made "
            f"here: {', '.join(whitelist.options)}"
        )

    yield Step.WHITELIST_CURRENT
    if whitelist.is_expired(now_s):
        raise WhitelistExpiredError(
            f"the whitelist of {settings.fqrn} expired at {whitelist.expires_at} UTC",
            hint="check this machine's clock, or tell the repository's owner",
        )

    yield Step.WHITELIST_NAME
    _check_name("whitelist", whitelist.fqrn, settings)

    yield Step.WHITELIST_HASH
    _check_letter_hash("whitelist", signed, settings)

    yield Step.WHITELIST_SIGNATURE
    keyring = Keyring.load(settings.master_keys)
    if keyring.find_signer(signed.hash_text, signed.signature) is None:
        raise SignatureMismatchError(
            f"the whitelist of {settings.fqrn} was not signed by a configured "
            f"master key ({len(keyring.keys)} tried)",
            hint="check that the right key is configured for the repository",
        )

    yield Step.CERTIFICATE_NOT_BLACKLISTED
    if _is_among(settings.blacklist.fingerprints, certificate_pem):
        raise CertificateBlacklistedError(
            f"the certificate that signs {settings.fqrn} is blacklisted here"
        )

    yield Step.CERTIFICATE_LISTED
    if not _is_among(whitelist.fingerprints, certificate_pem):
        raise FingerprintNotListedError(
            f"the certificate that signs {settings.fqrn} is not on its whitelist"
        )
    return whitelist


def _parse_manifest(
    blob: bytes, settings: TrustSettings
) -> tuple[SignedLetter, Manifest]:
    try:
        signed = parse_letter(blob)
        return signed, Manifest.parse(signed.letter)
    except IncompleteManifestError:
        raise
    except FormatError as error:
        raise FormatError(
            f"the manifest of {settings.fqrn} is malformed: {error}"
        ) from error


def _parse_whitelist(blob: bytes) -> tuple[SignedLetter, Whitelist]:
    if len(blob) > WHITELIST_BYTES_MAX:
        raise MalformedWhitelistError(f"a whitelist of {len(blob)} bytes is none")
    if not blob:
        raise MalformedWhitelistError("the whitelist is empty")
    try:
        signed = parse_letter(blob)
    except FormatError as error:
        raise MalformedWhitelistError(f"the whitelist is malformed: {error}") from error
    return signed, Whitelist.parse(signed.letter)


def _check_name(document: str, fqrn: str, settings: TrustSettings) -> None:
    """One master key often serves a whole domain, so the name must fit too."""
    if fqrn != settings.fqrn:
        raise FqrnMismatchError(
            f"the {document} is about {fqrn[:80]!r} and not about {settings.fqrn}"
        )


def _check_not_older(manifest: Manifest, watermark: Watermark) -> None:
    if manifest.published_at_s < watermark.published_at_s:
        raise RollbackError(
            f"the manifest was published at {manifest.published_at_s}, before the "
            f"one known here ({watermark.published_at_s})"
        )
    if manifest.revision < watermark.revision:
        raise RollbackError(
            f"the manifest has revision {manifest.revision}; {watermark.revision} "
            "is known here already"
        )


def _check_letter_hash(
    document: str, signed: SignedLetter, settings: TrustSettings
) -> None:
    if not letter_hash_matches(signed):
        raise LetterHashMismatchError(
            f"the text of the {document} of {settings.fqrn} was changed after signing"
        )


def _is_among(
    fingerprints: "frozenset[Fingerprint] | tuple[Fingerprint, ...]",
    certificate_pem: bytes,
) -> bool:
    """Whether a list names a certificate, by whichever algorithm a line uses."""
    algorithms = {fingerprint.algorithm for fingerprint in fingerprints}
    return any(
        fingerprint_of(certificate_pem, algorithm) in fingerprints
        for algorithm in algorithms
    )
