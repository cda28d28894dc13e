"""Which root catalog is believed: head, pinned, or the last one known.

Normally the head of a server: its manifest is fetched and verified, and adopted if it
is newer than what this cache has seen. A mount can also be fixed to a root hash, a
tag, or a date. Without a server that can be believed, the last revision known to the
cache is used, with a warning: *offline*. What was seen is kept in a breadcrumb, which
is also the high-water mark against replayed old manifests.

A server that answers with something that cannot be believed is skipped once.

Where nothing is known yet, a start takes three round trips: to connect; for manifest
and whitelist; for certificate and root catalog. The order of trust is another matter:
what came early is looked at in that order, and used only after what it rests upon.

Source: docs/reference/client-behaviour.md, "Mount sequence and root selection",
"Pinning"; docs/reference/repository-format.md, "Verification chain".
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple, Protocol

from cvmfsexec import log
from cvmfsexec.cache.breadcrumb import Breadcrumb, read_breadcrumb, write_breadcrumb
from cvmfsexec.catalog.history import History, Tag
from cvmfsexec.catalog.reader import Catalog
from cvmfsexec.configuration.settings import RevisionSettings
from cvmfsexec.errors import (
    CvmfsError,
    FormatError,
    IncompleteManifestError,
    MalformedCertificateError,
    NoRouteError,
    RevisionBlacklistedError,
    SignatureMismatchError,
    TagNotFoundError,
    TransferError,
    TrustError,
)
from cvmfsexec.fetch import ObjectRequest
from cvmfsexec.format.blacklist import Blacklist
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.envelope import SignedLetter, parse_letter
from cvmfsexec.format.manifest import MANIFEST_BYTES_MAX, Manifest
from cvmfsexec.format.whitelist import WHITELIST_BYTES_MAX
from cvmfsexec.repository.early import (
    EARLY_BYTES_MAX,
    Download,
    EarlyObject,
    Prefetch,
)
from cvmfsexec.repository.objects import (
    CERTIFICATE_BYTES_MAX,
    catalog_request,
    document_request,
    named_catalog,
    open_whole,
)
from cvmfsexec.trust import chain

MANIFEST_PATH = ".cvmfspublished"
WHITELIST_PATH = ".cvmfswhitelist"


class DocumentSource(Protocol):
    """The part of the HTTP client that this module needs."""

    def hosts(self) -> list[str]:
        """Return the base URLs of all servers."""

    def fetch(
        self,
        path: str,
        *,
        limit_bytes: int,
        no_cache: bool = False,
        label: "Callable[[], str] | None" = None,
    ) -> bytes:
        """Return a small document below the repository's base URL."""

    def next_host(self) -> bool:
        """Leave the present server for the next; ``False`` if there is no other."""


class ObjectSource(Protocol):
    """The part of the fetcher that this module needs."""

    def open(self, request: ObjectRequest) -> int:
        """Return a descriptor of the verified object."""

    def read(self, request: ObjectRequest, limit_bytes: int) -> bytes:
        """Return a small verified object."""

    def has(self, content_hash: ContentHash) -> bool:
        """Whether an object is in the cache."""

    def discard(self, content_hash: ContentHash, damaged: int | None = None) -> None:
        """Forget a cached object that its reader finds damaged."""

    def prefetch(self, request: ObjectRequest) -> Prefetch | None:
        """Begin to fetch an object by other means; ``None`` if there is no need."""


class Revision(NamedTuple):
    """A root catalog that is believed.

    Attributes:
        root_catalog: Its hash.
        root_catalog_size: Bytes, uncompressed; 0 if nobody announced it.
        number: Serial number; 0 if only the root catalog itself knows it.
        tag: Name of the tag that was mounted; empty for the head.
        is_fixed: Whether it must not be replaced while mounted.
        is_offline: Whether no server could be believed.
        has_alternative_path: Whether the root catalog is asked for by that path.
        published_at_s: When it was published, Unix time; 0 if only the root catalog
            itself knows it.
    """

    root_catalog: ContentHash
    root_catalog_size: int = 0
    number: int = 0
    tag: str = ""
    is_fixed: bool = False
    is_offline: bool = False
    has_alternative_path: bool = False
    published_at_s: int = 0


class RevisionSelector:
    """Decides on a revision for one repository. Used by one thread."""

    def __init__(
        self,
        documents: DocumentSource,
        objects: ObjectSource,
        trust: chain.TrustSettings,
        breadcrumb_directory: str,
        *,
        remembers: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a selector; nothing is fetched yet.

        Args:
            documents: Manifest and whitelist come from here.
            objects: Certificate and tag database come from here.
            trust: Name, master keys and blacklist.
            breadcrumb_directory: Where the cache keeps what was seen.
            remembers: Whether what is adopted now is kept there.
            clock: Present time in seconds since 1970.
        """
        self._documents = documents
        self._objects = objects
        self._trust = trust
        self._directory = breadcrumb_directory
        self._remembers = remembers
        self._clock = clock
        self._prefers_alternative = False
        self._early_root: EarlyObject | None = None

    def select(self, pin: RevisionSettings) -> Revision:
        """Return the revision to mount.

        Raises:
            TagNotFoundError: The pinned tag or date is not in the history.
            CvmfsError: No server can be believed, and the cache knows no revision.
        """
        self._prefers_alternative = pin.alt_root_path
        if pin.root_hash is not None:
            revision = Revision(pin.root_hash, is_fixed=True)
        elif pin.tag or pin.date_s is not None:
            revision = self._tagged(pin)
        else:
            revision = self._head()
        if pin.alt_root_path:
            return revision._replace(has_alternative_path=True)
        return revision

    def newer(self, shown: Revision) -> Revision | None:
        """Return the head if it is to replace what a mount shows; ``None`` if not.

        Another session may have found it meanwhile, and left word in the cache.

        Raises:
            CvmfsError: No server can be believed, or the head cannot be opened.
        """
        seen = self._watermark()
        if seen is None or seen.revision < shown.number:
            seen = chain.Watermark(
                shown.root_catalog, shown.published_at_s, shown.number
            )
        watermark = seen
        try:
            manifest = self._ask_hosts(lambda: self._newer_manifest(watermark))
            head = self._kept_or_adopted(watermark, manifest)
        finally:
            self._drop_early_root()
        if head.root_catalog == shown.root_catalog or 0 < head.number <= shown.number:
            return None
        return head

    @contextmanager
    def root_catalog(self, revision: Revision) -> Iterator[Catalog]:
        """Open the root catalog of a revision.

        Raises:
            CvmfsError: It cannot be had, or is none.
        """
        request = self._root_request(
            revision.root_catalog,
            revision.root_catalog_size,
            is_alternative=revision.has_alternative_path,
        )
        with closing(
            open_whole(self._objects, request, named_catalog(request))
        ) as catalog:
            yield catalog

    @property
    def trust(self) -> chain.TrustSettings:
        """What is believed, and refused."""
        return self._trust

    @property
    def blacklist(self) -> Blacklist:
        """What the site refuses."""
        return self._trust.blacklist

    @blacklist.setter
    def blacklist(self, blacklist: Blacklist) -> None:
        self._trust = self._trust._replace(blacklist=blacklist)

    def tags(self) -> list[Tag]:
        """Return the named revisions of the head, in no order.

        Raises:
            CvmfsError: No server can be believed.
        """
        with self._history() as history:
            return history.tags() if history is not None else []

    def verified_manifest(self) -> Manifest:
        """Return a manifest of which every signature was checked.

        Raises:
            CvmfsError: No server can be believed.
        """
        return self._ask_hosts(lambda: self._manifest_of_host(self._watermark()))

    def signed_documents(self) -> tuple[bytes, bytes, bytes]:
        """Return manifest, whitelist and certificate of the active server, unverified.

        Raises:
            CvmfsError: One cannot be fetched, or the manifest names no certificate.
        """
        manifest = self._documents.fetch(MANIFEST_PATH, limit_bytes=MANIFEST_BYTES_MAX)
        whitelist = self._documents.fetch(
            WHITELIST_PATH, limit_bytes=WHITELIST_BYTES_MAX
        )
        letter = parse_letter(manifest).letter
        return manifest, whitelist, self._certificate(Manifest.parse(letter))

    def _head(self) -> Revision:
        seen = self._watermark()
        try:
            manifest = self._ask_hosts(lambda: self._newer_manifest(seen))
            return self._kept_or_adopted(seen, manifest)
        except (NoRouteError, RevisionBlacklistedError):
            raise
        except CvmfsError as error:
            return self._offline(seen, error)
        finally:
            self._drop_early_root()

    def _kept_or_adopted(
        self, seen: chain.Watermark | None, manifest: Manifest
    ) -> Revision:
        if seen is not None and self._is_kept(seen, manifest):
            # If it is the same catalog the signature was not checked, so that nothing
            # else may be learnt from the manifest but where to ask.
            return Revision(
                seen.root_catalog,
                number=seen.revision,
                has_alternative_path=manifest.has_alternative_path,
                published_at_s=seen.published_at_s,
            )
        revision = Revision(
            manifest.root_catalog,
            manifest.root_catalog_size,
            number=manifest.revision,
            has_alternative_path=manifest.has_alternative_path,
            published_at_s=manifest.published_at_s,
        )
        # Who remembered a revision that cannot be opened could not go back to the one
        # that is in the cache.
        self._open_root(revision)
        if self._remembers:
            self._leave_breadcrumb(manifest)
        return revision

    def _open_root(self, revision: Revision) -> None:
        """Fetch a root catalog, and see that it is one."""
        if self._early_root is not None:
            self._early_root.keep()
            self._early_root = None
        with self.root_catalog(revision):
            pass

    def _root_request(
        self, root_catalog: ContentHash, size_bytes: int, *, is_alternative: bool
    ) -> ObjectRequest:
        return catalog_request(
            root_catalog,
            size_bytes,
            b"",
            is_alternative=is_alternative or self._prefers_alternative,
        )

    def _download_root_early(self, manifest: Manifest) -> None:
        """Begin to download the root catalog of a manifest that is not believed yet."""
        if not 0 < manifest.root_catalog_size <= EARLY_BYTES_MAX:
            return
        request = self._root_request(
            manifest.root_catalog,
            manifest.root_catalog_size,
            is_alternative=manifest.has_alternative_path,
        )
        try:
            prefetch = self._objects.prefetch(request)
        except CvmfsError:
            return  # told when it is wanted
        if prefetch is not None:
            fetch = partial(
                self._documents.fetch,
                request.path,
                limit_bytes=request.stored_max_bytes,
                label=request.label,
            )
            self._early_root = EarlyObject(request, prefetch, fetch)

    def _drop_early_root(self) -> None:
        if self._early_root is not None:
            self._early_root.drop()
            self._early_root = None

    @contextmanager
    def _history(self) -> Iterator[History | None]:
        """Open the tag database of the head, if it has one."""
        manifest = self.verified_manifest()
        if manifest.history is None:
            yield None
            return
        request = document_request(manifest.history, ObjectKind.HISTORY)
        name = f"tag database {manifest.history}"

        def open_tags(descriptor: int) -> History:
            path = f"/proc/self/fd/{descriptor}"
            return History.open(path, fqrn=self._trust.fqrn, name=name)

        with closing(open_whole(self._objects, request, open_tags)) as history:
            yield history

    def _tagged(self, pin: RevisionSettings) -> Revision:
        tag = None
        with self._history() as history:
            if history is not None and pin.tag:
                tag = history.find_tag(pin.tag)
            elif history is not None:
                tag = history.find_date(pin.date_s or 0)
        if tag is None:
            what = f"tag {pin.tag!r}" if pin.tag else "tag as old as the date wanted"
            raise TagNotFoundError(
                f"{self._trust.fqrn} has no {what}",
                hint=f"'cvmfs tags {self._trust.fqrn}' lists what there is",
            )
        return Revision(
            tag.root_catalog,
            tag.root_catalog_size,
            number=tag.revision,
            tag=tag.name,
            is_fixed=True,
        )

    def _ask_hosts(self, ask: Callable[[], Manifest]) -> Manifest:
        """Return the first manifest that is believed; each server is asked once.

        A server that shows something else, because it lags behind or worse, is
        skipped. Servers that cannot be reached are the HTTP client's business.
        """
        for _ in range(len(self._documents.hosts()) - 1):
            try:
                return ask()
            except TransferError:
                raise
            except CvmfsError as error:
                if not self._documents.next_host():
                    raise
                log.info("%s: %s; asking the next server", self._trust.fqrn, error)
        return ask()

    def _newer_manifest(self, seen: chain.Watermark | None) -> Manifest:
        """Return a manifest that is verified, unless it tells nothing new."""
        whitelist = self._whitelist() if seen is None else None
        manifest, signed = self._fetch_manifest(seen)
        if not chain.is_unchanged(manifest, seen):
            self._drop_early_root()
            if chain.is_newer(manifest, seen):
                self._download_root_early(manifest)
            self._verify(manifest, signed, whitelist or self._whitelist())
        return manifest

    def _manifest_of_host(self, seen: chain.Watermark | None) -> Manifest:
        whitelist = self._whitelist()
        manifest, signed = self._fetch_manifest(seen)
        self._verify(manifest, signed, whitelist)
        return manifest

    def _fetch_manifest(
        self, seen: chain.Watermark | None
    ) -> tuple[Manifest, SignedLetter]:
        blob = self._documents.fetch(MANIFEST_PATH, limit_bytes=MANIFEST_BYTES_MAX)
        try:
            return chain.check_manifest(blob, self._trust, seen)
        except FormatError as error:
            url = f"{self._documents.hosts()[0]}/{MANIFEST_PATH}"
            error.hint = error.hint or f"see what {url} is"
            raise

    def _verify(
        self, manifest: Manifest, signed: SignedLetter, whitelist: Download
    ) -> None:
        certificate = self._certificate(manifest)
        try:
            chain.check_signed(signed, certificate, self._trust)
        except (MalformedCertificateError, SignatureMismatchError):
            certificate = self._certificate(manifest, is_torn=True)
            chain.check_signed(signed, certificate, self._trust)
        try:
            self._check_whitelist(whitelist.wait(), certificate)
        except (FormatError, TrustError):
            # A proxy may still hold the whitelist from before a change of keys.
            self._check_whitelist(self._fetch_whitelist(no_cache=True), certificate)

    def _certificate(self, manifest: Manifest, *, is_torn: bool = False) -> bytes:
        if manifest.certificate is None:
            raise IncompleteManifestError("the manifest names no certificate")
        if is_torn:  # see open_whole
            self._objects.discard(manifest.certificate)
        request = document_request(
            manifest.certificate,
            ObjectKind.CERTIFICATE,
            is_alternative=manifest.has_alternative_path or self._prefers_alternative,
        )
        return self._objects.read(request, CERTIFICATE_BYTES_MAX)

    def _whitelist(self) -> Download:
        """Begin to download the whitelist: small, and wanted with any new manifest."""
        return Download(partial(self._fetch_whitelist, no_cache=False))

    def _fetch_whitelist(self, *, no_cache: bool) -> bytes:
        return self._documents.fetch(
            WHITELIST_PATH, limit_bytes=WHITELIST_BYTES_MAX, no_cache=no_cache
        )

    def _check_whitelist(self, blob: bytes, certificate: bytes) -> None:
        chain.check_whitelist(blob, self._trust, certificate, self._clock())

    def _is_kept(self, seen: chain.Watermark, manifest: Manifest) -> bool:
        """Whether to stay with what was seen.

        That is so if the manifest names the same catalog, and also if it names another
        one under the same serial number, unless the known one is lost.
        """
        if chain.is_unchanged(manifest, seen):
            return True
        is_newer = chain.is_newer(manifest, seen)
        return not is_newer and self._objects.has(seen.root_catalog)

    def _offline(self, seen: chain.Watermark | None, reason: CvmfsError) -> Revision:
        """Return the last revision known here, or raise the reason."""
        if seen is None or not self._objects.has(seen.root_catalog):
            raise reason
        chain.check_revision(seen.revision, self._trust)
        log.warning(
            "%s: working offline with revision %d from the cache: %s",
            self._trust.fqrn,
            seen.revision,
            reason,
        )
        return Revision(
            seen.root_catalog,
            number=seen.revision,
            is_offline=True,
            published_at_s=seen.published_at_s,
        )

    def _watermark(self) -> chain.Watermark | None:
        seen = read_breadcrumb(self._directory, self._trust.fqrn)
        return None if seen is None else chain.Watermark(*seen)

    def _leave_breadcrumb(self, manifest: Manifest) -> None:
        breadcrumb = Breadcrumb(
            manifest.root_catalog, manifest.published_at_s, manifest.revision
        )
        write_breadcrumb(self._directory, self._trust.fqrn, breadcrumb)
