"""The revision before the one being published, as far as it must be carried on.

It is read from the directory that is served, where anybody may have been at work: so
its signature is checked against the publisher's own keys first.
"""

from typing import NamedTuple

from cvmfsexec.catalog.history import History, Tag
from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.manifest import Manifest
from cvmfsexec.publish.layout import MANIFEST, REFLOG, RepositoryDirectory
from cvmfsexec.publish.objects import read_object
from cvmfsexec.publish.reflog import Reference, read_reflog, references_of
from cvmfsexec.trust.chain import TrustSettings, check_manifest, check_signed

_DEFAULT_TTL_S = 240  # as the original's


class EarlierRevision(NamedTuple):
    """What there was; empty before the first publication.

    Attributes:
        manifest: None before the first publication.
        tags: All names of revisions.
        references: Everything that the repository ever referred to.
    """

    manifest: Manifest | None = None
    tags: tuple[Tag, ...] = ()
    references: tuple[Reference, ...] = ()

    @property
    def next_revision(self) -> int:
        """Number of the revision being published."""
        return self.manifest.revision + 1 if self.manifest else 1

    @property
    def root_catalog(self) -> ContentHash | None:
        """Name of the root catalog."""
        return self.manifest.root_catalog if self.manifest else None

    @property
    def history(self) -> ContentHash | None:
        """Name of the tag database."""
        return self.manifest.history if self.manifest else None

    @property
    def algorithm(self) -> HashAlgorithm:
        """How the repository names its objects."""
        if self.manifest is None:
            return HashAlgorithm.SHA1
        return self.manifest.root_catalog.algorithm

    @property
    def ttl_s(self) -> int:
        """How long clients go without asking again."""
        return self.manifest.ttl_s if self.manifest else _DEFAULT_TTL_S

    @property
    def published_at_s(self) -> int:
        """When it was published, Unix time; 0 before the first publication."""
        return self.manifest.published_at_s if self.manifest else 0


def read_earlier(
    directory: RepositoryDirectory, trust: TrustSettings
) -> EarlierRevision:
    """Read the present revision of a repository.

    Args:
        directory: Of the repository, locked.
        trust: Its name and master key.

    Raises:
        FormatError: It is damaged.
        IntegrityError: An object is.
        PublishError: Something cannot be read.
        TrustError: It was not signed for this repository.
    """
    blob = directory.read(MANIFEST)
    if blob is None:
        return EarlierRevision()
    manifest, signed = check_manifest(blob, trust, None)
    if manifest.certificate is not None:
        kind = ObjectKind.CERTIFICATE
        certificate = read_object(directory, manifest.certificate, kind)
        check_signed(signed, certificate, trust)
    references = references_of(manifest)
    if directory.read(REFLOG) is not None:
        references = read_reflog(str(directory.path / REFLOG)) + references
    return EarlierRevision(manifest, _read_tags(directory, manifest), tuple(references))


def _read_tags(directory: RepositoryDirectory, manifest: Manifest) -> tuple[Tag, ...]:
    if manifest.history is None:
        return ()
    data = read_object(directory, manifest.history, ObjectKind.HISTORY)
    history = History.open(directory.write_scratch(data))
    try:
        return tuple(history.tags())
    finally:
        history.close()
