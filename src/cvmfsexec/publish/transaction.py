"""One publication, from a directory to a signed revision.

Order is everything here: objects first, then catalogs bottom-up, tags, certificate,
reflog, and at last the manifest, which is replaced in one step. A publication that
ends anywhere before that step has left the earlier revision as it was, and some
objects that nobody refers to.

Source: docs/reference/publisher-format.md, "Publication sequence".
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from cvmfsexec import log
from cvmfsexec.catalog.counters import Counters, totals
from cvmfsexec.catalog.history import Tag
from cvmfsexec.catalog.history_writer import write_history
from cvmfsexec.catalog.writer import CatalogVersion
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.manifest import ROOT_PATH_MD5, Manifest
from cvmfsexec.format.names import ROOT
from cvmfsexec.publish.catalogs import CatalogBuilder, StoredCatalog, plan_catalogs
from cvmfsexec.publish.contents import ContentPublisher
from cvmfsexec.publish.earlier import read_earlier
from cvmfsexec.publish.entries import EntryMaker
from cvmfsexec.publish.keys import (
    PublisherKeys,
    create_keys,
    load_keys,
    renewed_whitelist,
)
from cvmfsexec.publish.layout import MANIFEST, REFLOG, WHITELIST, RepositoryDirectory
from cvmfsexec.publish.nesting import Dirtab, transition_points, with_markers
from cvmfsexec.publish.objects import ObjectPool, PoolStatistics, zlib_is_original
from cvmfsexec.publish.reflog import references_of, write_reflog
from cvmfsexec.publish.scan import Advance, SourceTree, scan
from cvmfsexec.publish.settings import PublishSettings, check_settings
from cvmfsexec.publish.tags import check_tag_name, next_tags
from cvmfsexec.trust.chain import TrustSettings, verify
from cvmfsexec.trust.signature import sign_manifest_letter


class Publication(NamedTuple):
    """What was published.

    Attributes:
        manifest: The new one.
        tag: Name of the revision.
        counters: Of the whole repository.
        new_catalogs: How many catalogs changed.
        kept_catalogs: How many are as they were.
        objects: What was stored.
    """

    manifest: Manifest
    tag: str
    counters: Counters
    new_catalogs: int
    kept_catalogs: int
    objects: PoolStatistics


class ShowProgress(Protocol):
    """Shows how far something is that may take long."""

    def __call__(
        self, total: int | None, unit: str, label: str, /
    ) -> AbstractContextManager[Advance]:
        """Begin to show; the value is called with the amount done since last."""


@contextmanager
def no_progress(_total: int | None, _unit: str, _label: str) -> Iterator[Advance]:
    """Show nothing."""
    yield lambda _amount: None


def publish(
    source: Path,
    settings: PublishSettings,
    now_s: int,
    show_progress: ShowProgress = no_progress,
) -> Publication:
    """Publish a directory as the next revision of a repository.

    The first publication also makes the repository and its keys.

    Args:
        source: Becomes the repository's root; is only read.
        settings: Which repository, and how.
        now_s: Unix time of the publication.
        show_progress: Shows how far it is.

    Raises:
        ConfigurationError: The name is no repository name.
        PublishError: Something cannot be read, written, or published.
        FormatError: The earlier revision is damaged.
        TrustError: The earlier revision was not signed for this repository.
    """
    check_settings(settings, source)
    if settings.tag:
        check_tag_name(settings.tag, ())
    if not zlib_is_original():
        log.warning(
            "this Python compresses with another library than zlib: clients can read "
            "the repository, but the original's server tools will find fault with it"
        )
    with show_progress(None, "entries", "reading the directory tree") as advance:
        tree = scan(os.fsencode(source), advance)
    directory = RepositoryDirectory(settings.repository)
    with directory.publishing():
        keys = _keys(directory, settings, now_s)
        return PublishTransaction(directory, settings, keys, now_s).run(
            tree, show_progress
        )


def _keys(
    directory: RepositoryDirectory, settings: PublishSettings, now_s: int
) -> PublisherKeys:
    """Return the keys; new ones only for a new repository.

    Clients that know a repository would refuse it with other keys.
    """
    if not directory.is_published:
        create_keys(settings.keys_directory, settings.fqrn, now_s)
    return load_keys(settings.keys_directory, settings.fqrn)


class PublishTransaction:
    """The steps of one publication; the repository must be locked meanwhile."""

    def __init__(
        self,
        directory: RepositoryDirectory,
        settings: PublishSettings,
        keys: PublisherKeys,
        now_s: int,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._keys = keys
        self._now_s = now_s
        self._trust = TrustSettings(settings.fqrn, (keys.master_public,))
        self._earlier = earlier = read_earlier(directory, self._trust)
        algorithm = settings.algorithm
        self._pool = ObjectPool(
            directory, earlier.algorithm if algorithm is None else algorithm
        )
        self._ttl_s = earlier.ttl_s if settings.ttl_s is None else settings.ttl_s
        # A clock that was set back must not make a manifest that clients refuse.
        self._published_at_s = max(now_s, earlier.published_at_s)

    def run(
        self, tree: SourceTree, show_progress: ShowProgress = no_progress
    ) -> Publication:
        """Publish a tree."""
        if self._settings.tag:
            check_tag_name(self._settings.tag, self._earlier.tags)
        catalogs = self._store_tree(tree, show_progress)
        with show_progress(None, "steps", "signing"):
            tags = next_tags(self._earlier.tags, self._newest(catalogs[ROOT]))
            manifest = self._describe(catalogs[ROOT], self._store_tags(tags))
            manifest = self._make_current(manifest)
        new_count = sum(catalog.is_new for catalog in catalogs.values())
        return Publication(
            manifest=manifest,
            tag=self._settings.tag or tags[-1].name,
            counters=totals(catalogs[ROOT].counters),
            new_catalogs=new_count,
            kept_catalogs=len(catalogs) - new_count,
            objects=self._pool.statistics,
        )

    def _store_tree(
        self, tree: SourceTree, show_progress: ShowProgress
    ) -> dict[bytes, StoredCatalog]:
        """Store contents and catalogs."""
        points = transition_points(tree, Dirtab.parse(tree.read_dirtab()))
        tree = with_markers(tree, points)
        total = sum(entry.size for entry in tree.regular_files())
        with show_progress(total, "bytes", "storing files") as advance:
            contents = ContentPublisher(
                tree,
                self._pool,
                compression=self._settings.compression,
                chunk_sizes=self._settings.chunk_sizes,
                advance=advance,
            ).publish()
        entries = EntryMaker(
            tree,
            contents,
            points,
            algorithm=self._pool.algorithm,
            compression=self._settings.compression,
        )
        version = CatalogVersion(
            root_prefix=ROOT,
            revision=self._earlier.next_revision,
            last_modified_s=self._published_at_s,
            previous=self._earlier.root_catalog,
            ttl_s=self._ttl_s,
        )
        plan = plan_catalogs(tree, points)
        builder = CatalogBuilder(self._directory, self._pool, entries, contents)
        with show_progress(len(plan), "catalogs", "writing catalogs") as advance:
            return builder.build(plan, version, advance)

    def _newest(self, root: StoredCatalog) -> Tag:
        return Tag(
            name=self._settings.tag,
            root_catalog=root.content_hash,
            root_catalog_size=root.size,
            revision=self._earlier.next_revision,
            timestamp_s=self._published_at_s,
            description=self._settings.message,
            branch="",
        )

    def _store_tags(self, tags: list[Tag]) -> ContentHash:
        path = self._directory.scratch_path()
        write_history(path, self._settings.fqrn, tags, self._earlier.history)
        return self._pool.put(self._directory.take_scratch(path), ObjectKind.HISTORY)

    def _describe(self, root: StoredCatalog, history: ContentHash) -> Manifest:
        """Return the new manifest; everything that it names but the reflog is there."""
        before = self._earlier.manifest
        return Manifest(
            root_catalog=root.content_hash,
            root_catalog_size=root.size,
            revision=self._earlier.next_revision,
            ttl_s=self._ttl_s,
            root_path_md5=ROOT_PATH_MD5,
            fqrn=self._settings.fqrn,
            certificate=self._pool.put(self._keys.certificate, ObjectKind.CERTIFICATE),
            history=history,
            published_at_s=self._published_at_s,
            metainfo=before.metainfo if before else None,
            is_garbage_collectable=before.is_garbage_collectable if before else False,
        )

    def _make_current(self, manifest: Manifest) -> Manifest:
        """Sign the new revision and put it in the place of the earlier one."""
        reflog = self._reflog(manifest)
        manifest = manifest._replace(
            reflog=ContentHash.of(reflog, self._pool.algorithm)
        )
        signed = sign_manifest_letter(
            manifest, self._pool.algorithm, self._keys.private
        )
        whitelist = self._directory.read(WHITELIST)
        renewed = renewed_whitelist(
            whitelist,
            self._keys,
            self._settings.fqrn,
            self._pool.algorithm,
            self._now_s,
        )
        # What clients would refuse must not replace what they accept.
        verify(
            signed,
            renewed or whitelist or b"",
            self._keys.certificate,
            self._trust,
            None,
            self._now_s,
        )
        if self._settings.is_durable:
            # One flush for all objects; one for each takes hours for many files.
            os.sync()
        if renewed is not None:
            self._directory.replace(WHITELIST, renewed)
        self._directory.replace(REFLOG, reflog)
        self._directory.replace(MANIFEST, signed)
        return manifest

    def _reflog(self, manifest: Manifest) -> bytes:
        path = self._directory.scratch_path()
        references = [*self._earlier.references, *references_of(manifest)]
        write_reflog(path, self._settings.fqrn, references)
        return self._directory.take_scratch(path)
