"""Which revision is believed: servers of every kind, and what the cache remembers."""

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier

import pytest

from cvmfsexec.cache.breadcrumb import Breadcrumb, read_breadcrumb, write_breadcrumb
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.catalog.history import Tag
from cvmfsexec.catalog.history_writer import write_history
from cvmfsexec.configuration.settings import RevisionSettings
from cvmfsexec.errors import (
    CertificateBlacklistedError,
    CvmfsError,
    FormatError,
    FqrnMismatchError,
    IntegrityError,
    MalformedCertificateError,
    RevisionBlacklistedError,
    RollbackError,
    SignatureMismatchError,
    TagNotFoundError,
    TransferError,
    TrustError,
    WhitelistExpiredError,
)
from cvmfsexec.fetch import Fetcher
from cvmfsexec.format.blacklist import Blacklist
from cvmfsexec.format.digest import ContentHash, ObjectKind
from cvmfsexec.format.whitelist import format_time
from cvmfsexec.repository.revision import Revision, RevisionSelector
from cvmfsexec.trust.chain import TrustSettings
from cvmfsexec.trust.signature import fingerprint_of
from tests.support.catalog_files import write_catalog
from tests.support.signed_documents import (
    FQRN,
    MONTH_S,
    NOW_S,
    Documents,
    certificate,
    public_key,
    settings,
)
from tests.support.simulated_servers import MANIFEST, WHITELIST, SimulatedServers

HEAD = RevisionSettings(
    root_hash=None,
    tag="",
    date_s=None,
    auto_update=True,
    max_ttl_s=None,
    alt_root_path=False,
)
ROOT = 1
OTHER_ROOT = 2


@functools.cache
def root_catalog(number: int) -> bytes:
    """Return one of many root catalogs."""
    with tempfile.TemporaryDirectory() as scratch:
        path = write_catalog(f"{scratch}/catalog", properties={"revision": number})
        return Path(path).read_bytes()


class World:
    """A client's cache directory and the servers that it knows."""

    def __init__(self, directory: Path, server_count: int = 1) -> None:
        self.servers = SimulatedServers(server_count)
        self.directory = str(directory / "cache")
        self.store = DirectoryStore.open(self.directory)
        self.http = self.servers.client()
        self.fetcher = Fetcher(self.http, self.store)

    def documents(self, revision: int = 7, root: int = ROOT) -> Documents:
        """Return valid documents of a revision, published a minute later each."""
        valid = Documents.valid()
        content = root_catalog(root)
        return valid._replace(
            manifest=valid.manifest._replace(
                root_catalog=self.servers.put_object(content, ObjectKind.CATALOG),
                root_catalog_size=len(content),
                revision=revision,
                published_at_s=NOW_S - 6000 + 60 * revision,
            )
        )

    def publish(
        self, revision: int = 7, root: int = ROOT, servers: tuple[int, ...] = ()
    ) -> Documents:
        documents = self.documents(revision, root)
        self.servers.publish(documents, servers=servers)
        return documents

    def selector(
        self, trust: TrustSettings | None = None, *, remembers: bool = True
    ) -> RevisionSelector:
        return RevisionSelector(
            self.http,
            self.fetcher,
            trust or settings(),
            self.directory,
            remembers=remembers,
            clock=lambda: NOW_S,
        )

    def select(self, pin: RevisionSettings = HEAD) -> Revision:
        return self.selector().select(pin)

    def remember(self, documents: Documents, *, cached: bool = True) -> None:
        """Let the cache be as after a session with these documents."""
        manifest = documents.manifest
        crumb = Breadcrumb(
            manifest.root_catalog, manifest.published_at_s, manifest.revision
        )
        write_breadcrumb(self.directory, FQRN, crumb)
        if cached:
            put(self.store, manifest.root_catalog, b"decompressed")

    @property
    def remembered(self) -> Breadcrumb | None:
        return read_breadcrumb(self.directory, FQRN)


def put(store: DirectoryStore, content_hash: ContentHash, content: bytes) -> None:
    with store.transaction() as transaction:
        transaction.write(content)
        os.close(transaction.commit(content_hash))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, server_count=2)
    yield world
    world.store.close()


# What is new, and what is not


def test_the_head_is_adopted_and_remembered(world: World) -> None:
    manifest = world.publish().manifest
    assert world.select() == Revision(
        manifest.root_catalog,
        manifest.root_catalog_size,
        number=7,
        published_at_s=manifest.published_at_s,
    )
    assert world.remembered == (manifest.root_catalog, manifest.published_at_s, 7)


def test_a_newer_revision_is_adopted(world: World) -> None:
    world.remember(world.documents(6, OTHER_ROOT))
    manifest = world.publish(7).manifest
    assert world.select().root_catalog == manifest.root_catalog
    assert world.remembered is not None
    assert world.remembered.revision == 7


def test_who_only_looks_leaves_no_trace(world: World) -> None:
    world.publish()
    world.selector(remembers=False).select(HEAD)
    assert world.remembered is None


def test_an_unchanged_root_needs_no_signature(world: World) -> None:
    documents = world.publish()
    world.remember(documents)
    assert world.select().root_catalog == documents.manifest.root_catalog
    assert world.servers.asked(WHITELIST) == []
    assert world.servers.asked("data/") == []


def test_nothing_else_is_learnt_from_an_unchanged_manifest(world: World) -> None:
    documents = world.documents()
    world.remember(documents)
    lie = documents.manifest._replace(revision=99, root_catalog_size=1, ttl_s=1)
    world.servers.publish(documents._replace(manifest=lie))
    # The size in particular: a wrong one would have the cached catalog thrown away.
    assert world.select() == Revision(
        lie.root_catalog, 0, number=7, published_at_s=documents.manifest.published_at_s
    )
    assert world.remembered is not None
    assert world.remembered.revision == 7


def test_other_content_under_the_same_number_is_not_adopted(world: World) -> None:
    known = world.documents(7)
    world.remember(known)
    world.publish(7, OTHER_ROOT)
    revision = world.select()
    assert revision == Revision(
        known.manifest.root_catalog,
        number=7,
        published_at_s=known.manifest.published_at_s,
    )
    assert not revision.is_offline
    assert world.remembered is not None
    assert world.remembered.root_catalog == known.manifest.root_catalog


def test_other_content_under_the_same_number_is_better_than_none(world: World) -> None:
    world.remember(world.documents(7), cached=False)
    manifest = world.publish(7, OTHER_ROOT).manifest
    assert world.select().root_catalog == manifest.root_catalog
    assert world.remembered is not None
    assert world.remembered.root_catalog == manifest.root_catalog


def test_revision_0_replaces_revision_0(world: World) -> None:
    known = world.documents(0)
    world.remember(known)
    manifest = world.publish(0, OTHER_ROOT).manifest
    assert world.select().root_catalog == manifest.root_catalog


# Downloads that begin early


def paths_of(documents: Documents) -> tuple[str, str]:
    """Return where the certificate and the root catalog of a manifest are."""
    manifest = documents.manifest
    assert manifest.certificate is not None
    return (
        manifest.certificate.object_path(ObjectKind.CERTIFICATE),
        manifest.root_catalog.object_path(ObjectKind.CATALOG),
    )


def test_a_first_start_takes_two_round_trips(world: World) -> None:
    documents = world.publish()
    for paths in ((MANIFEST, WHITELIST), paths_of(documents)):
        barrier = Barrier(len(paths))
        world.servers.together.update(dict.fromkeys(paths, barrier))
    assert world.select().root_catalog == documents.manifest.root_catalog
    assert len(world.servers.asked()) == 4


def test_a_new_revision_takes_two_round_trips(world: World) -> None:
    world.remember(world.documents(6, OTHER_ROOT))
    documents = world.publish(7)
    paths = (WHITELIST, *paths_of(documents))
    world.servers.together.update(dict.fromkeys(paths, Barrier(len(paths))))
    assert world.select().root_catalog == documents.manifest.root_catalog
    assert len(world.servers.asked()) == 4


def offer_expired(world: World, documents: Documents) -> None:
    late = documents.whitelist._replace(expires_at=format_time(NOW_S))
    world.servers.publish(documents._replace(whitelist=late))


def offer_signed_by_another(world: World, documents: Documents) -> None:
    world.servers.publish(documents)
    world.servers.put(MANIFEST, documents.manifest_blob(signer="somebody"))


@pytest.mark.parametrize("offer", [offer_expired, offer_signed_by_another])
def test_what_came_early_is_not_kept_unless_it_is_believed(
    world: World, offer: Callable[[World, Documents], None]
) -> None:
    documents = world.documents()
    offer(world, documents)
    with pytest.raises(TrustError):
        world.select()
    assert not world.store.has(documents.manifest.root_catalog)
    assert world.remembered is None
    # Whoever asks for it now is not left waiting.
    world.servers.publish(documents)
    assert world.select().root_catalog == documents.manifest.root_catalog


def test_a_root_catalog_that_came_early_and_wrong_is_fetched_again(
    world: World,
) -> None:
    documents = world.publish()
    path = paths_of(documents)[1]
    world.servers.behind_caches[path] = b"something else"
    assert world.select().root_catalog == documents.manifest.root_catalog
    assert len(world.servers.asked(path)) == 3


# Rollback


def older_number(documents: Documents) -> Documents:
    return documents._replace(manifest=documents.manifest._replace(revision=6))


def older_time(documents: Documents) -> Documents:
    at_s = documents.manifest.published_at_s - 1
    return documents._replace(
        manifest=documents.manifest._replace(published_at_s=at_s, revision=8)
    )


@pytest.mark.parametrize("older", [older_number, older_time])
class TestRollback:
    def test_is_refused(
        self, world: World, older: Callable[[Documents], Documents]
    ) -> None:
        world.remember(world.documents(7), cached=False)
        replayed = older(world.documents(7, OTHER_ROOT))
        world.servers.publish(replayed)
        with pytest.raises(RollbackError):
            world.select()

    def test_does_not_matter_to_who_has_the_newer_one(
        self,
        world: World,
        older: Callable[[Documents], Documents],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        known = world.documents(7)
        world.remember(known)
        world.servers.publish(older(world.documents(7, OTHER_ROOT)))
        revision = world.select()
        assert revision.root_catalog == known.manifest.root_catalog
        assert revision.number == 7
        assert revision.is_offline
        assert f"{FQRN}: working offline with revision 7 from the cache" in caplog.text
        assert world.remembered is not None
        assert world.remembered.revision == 7


# No server that can be believed


def test_without_a_server_and_without_a_cache_there_is_no_revision(
    world: World,
) -> None:
    world.publish()
    world.servers.take_down()
    with pytest.raises(TransferError):
        world.select()


def test_without_a_server_the_last_known_revision_is_used(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    known = world.publish()
    world.remember(known)
    world.servers.take_down()
    revision = world.select()
    assert revision.root_catalog == known.manifest.root_catalog
    assert (revision.number, revision.is_offline) == (7, True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "working offline" in caplog.text


def test_a_breadcrumb_without_its_catalog_is_no_revision(world: World) -> None:
    world.remember(world.publish(), cached=False)
    world.servers.take_down()
    with pytest.raises(TransferError):
        world.select()


def test_a_blacklisted_revision_is_not_used_offline(world: World) -> None:
    world.remember(world.publish())
    world.servers.take_down()
    trust = settings()._replace(blacklist=Blacklist(frozenset(), {FQRN: 8}))
    with pytest.raises(RevisionBlacklistedError):
        world.selector(trust).select(HEAD)


def test_a_blacklisted_head_is_refused_in_spite_of_the_cache(world: World) -> None:
    world.remember(world.documents(6, OTHER_ROOT))
    world.publish(7)
    trust = settings()._replace(blacklist=Blacklist(frozenset(), {FQRN: 8}))
    with pytest.raises(RevisionBlacklistedError):
        world.selector(trust).select(HEAD)


def test_a_blacklisted_certificate_is_refused(world: World) -> None:
    documents = world.publish()
    fingerprint = fingerprint_of(documents.certificate, documents.algorithm)
    blacklist = Blacklist(frozenset({fingerprint}), {})
    with pytest.raises(CertificateBlacklistedError):
        world.selector(settings()._replace(blacklist=blacklist)).select(HEAD)


# A root catalog that cannot be had


def lose_root(world: World) -> None:
    world.publish(8, OTHER_ROOT)
    path = world.documents(8, OTHER_ROOT).manifest.root_catalog
    world.servers.put(path.object_path(ObjectKind.CATALOG), b"spoilt")


def publish_junk(world: World) -> None:
    documents = world.documents(8)
    junk = world.servers.put_object(b"no catalog" * 1000, ObjectKind.CATALOG)
    manifest = documents.manifest._replace(root_catalog=junk, root_catalog_size=10_000)
    world.servers.publish(documents._replace(manifest=manifest))


def announce_another_size(world: World) -> None:
    documents = world.documents(8, OTHER_ROOT)
    manifest = documents.manifest._replace(root_catalog_size=99)
    world.servers.publish(documents._replace(manifest=manifest))


BAD_ROOTS = pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lose_root, IntegrityError),
        (publish_junk, FormatError),
        (announce_another_size, IntegrityError),
    ],
)


@BAD_ROOTS
def test_a_revision_without_a_root_catalog_is_refused(
    world: World, spoil: Callable[[World], None], error: type[CvmfsError]
) -> None:
    spoil(world)
    with pytest.raises(error):
        world.select()
    assert world.remembered is None


@BAD_ROOTS
def test_a_revision_without_a_root_catalog_does_not_replace_a_sound_one(
    world: World, spoil: Callable[[World], None], error: type[CvmfsError]
) -> None:
    del error
    world.remember(world.documents(7))
    spoil(world)
    revision = world.select()
    assert (revision.number, revision.is_offline) == (7, True)
    assert world.remembered is not None
    assert world.remembered.revision == 7


# Several servers, of which the first is bad

Bend = Callable[[World], None]


def is_behind(world: World) -> None:
    world.publish(6, root=3, servers=(0,))


def speaks_for_another_repository(world: World) -> None:
    documents = world.documents(8)
    manifest = documents.manifest._replace(fqrn="other.example.org")
    world.servers.publish(documents._replace(manifest=manifest), servers=(0,))


def has_an_expired_whitelist(world: World) -> None:
    expired = world.documents().whitelist._replace(expires_at=format_time(NOW_S))
    world.servers.publish(world.documents(8)._replace(whitelist=expired), servers=(0,))


def tampers_with_the_manifest(world: World) -> None:
    blob = world.documents(8).manifest_blob().replace(b"\nS8\n", b"\nS9\n")
    world.servers.put(MANIFEST, blob, servers=(0,))


def signs_with_another_key(world: World) -> None:
    blob = world.documents(8).manifest_blob(signer="somebody")
    world.servers.put(MANIFEST, blob, servers=(0,))


def truncates_the_manifest(world: World) -> None:
    blob = world.documents(8).manifest_blob()[:-300]
    world.servers.put(MANIFEST, blob, servers=(0,))


def answers_with_a_web_page(world: World) -> None:
    world.servers.put(MANIFEST, b"<html>Welcome to the hotel!</html>", servers=(0,))


def floods(world: World) -> None:
    world.servers.put(MANIFEST, b"Nx\n" * 50_000, servers=(0,))


BAD_SERVERS = pytest.mark.parametrize(
    ("bend", "error"),
    [
        (is_behind, RollbackError),
        (speaks_for_another_repository, FqrnMismatchError),
        (has_an_expired_whitelist, WhitelistExpiredError),
        (tampers_with_the_manifest, CvmfsError),
        (signs_with_another_key, SignatureMismatchError),
        (truncates_the_manifest, FormatError),
        (answers_with_a_web_page, FormatError),
        (floods, CvmfsError),
    ],
)


@BAD_SERVERS
def test_a_bad_server_is_refused(
    world: World, bend: Bend, error: type[CvmfsError]
) -> None:
    world.remember(world.documents(7, OTHER_ROOT), cached=False)
    world.publish(8)
    bend(world)
    with pytest.raises(error):
        world.select()


@BAD_SERVERS
def test_a_bad_server_is_skipped_for_a_good_one(
    two: World, bend: Bend, error: type[CvmfsError]
) -> None:
    del error
    two.remember(two.documents(7, OTHER_ROOT), cached=False)
    two.publish(8)
    bend(two)
    assert two.select().number == 8
    # A flood is asked for once more past caches, as all wrong data.
    assert list(dict.fromkeys(two.servers.asked(MANIFEST))) == [0, 1]
    assert two.http.routes.active_host == two.servers.hosts[1]


def test_each_server_is_asked_once_if_all_are_bad(two: World) -> None:
    two.publish()
    for server in (0, 1):
        two.servers.put(MANIFEST, b"nothing of the kind", servers=(server,))
    with pytest.raises(FormatError):
        two.select()
    assert two.servers.asked(MANIFEST) == [0, 1]


def test_a_server_that_is_down_is_no_reason_to_stop(two: World) -> None:
    two.publish()
    two.servers.take_down(0)
    assert two.select().number == 7
    assert two.http.routes.active_host == two.servers.hosts[1]


def test_the_reason_to_be_offline_is_told(
    two: World, caplog: pytest.LogCaptureFixture
) -> None:
    two.remember(two.publish())
    for server in (0, 1):
        two.servers.put(MANIFEST, b"nothing of the kind", servers=(server,))
    assert two.select().is_offline
    assert "a signed document is cut short" in caplog.text


# Whitelist and certificate


def test_an_old_whitelist_in_a_proxy_is_asked_for_afresh(world: World) -> None:
    documents = world.publish()
    expired = documents.whitelist._replace(expires_at=format_time(NOW_S))
    world.servers.behind_caches[WHITELIST] = documents._replace(
        whitelist=expired
    ).whitelist_blob()
    assert world.select().number == 7
    assert world.servers.asked(WHITELIST) == [0, 0]


def test_the_signature_of_another_master_key_is_refused(world: World) -> None:
    world.publish()
    trust = TrustSettings(FQRN, (public_key("somebody"),))
    with pytest.raises(SignatureMismatchError):
        world.selector(trust).select(HEAD)


def test_a_certificate_that_is_not_its_hash_is_refused(world: World) -> None:
    documents = world.publish()
    content_hash = documents.manifest.certificate
    assert content_hash is not None
    path = content_hash.object_path(ObjectKind.CERTIFICATE)
    world.servers.put(path, b"something else")
    with pytest.raises(IntegrityError):
        world.select()


def test_a_certificate_torn_in_the_cache_is_fetched_again(world: World) -> None:
    content_hash = world.publish().manifest.certificate
    assert content_hash is not None
    put(world.store, content_hash, certificate("publisher")[:100])
    assert world.select().number == 7


def test_a_certificate_that_is_none_is_refused(world: World) -> None:
    documents = world.documents()
    junk = world.servers.put_object(b"no certificate", ObjectKind.CERTIFICATE)
    manifest = documents.manifest._replace(certificate=junk)
    world.servers.publish(documents._replace(manifest=manifest))
    with pytest.raises(MalformedCertificateError):
        world.select()


# Pins

TAGS = [
    Tag("v1", ContentHash.of(b"1"), 100, 3, NOW_S - 3000, "first", ""),
    Tag("v2", ContentHash.of(b"2"), 200, 5, NOW_S - 2000, "second", ""),
    Tag("side", ContentHash.of(b"s"), 300, 6, NOW_S - 1000, "", "branch"),
]


def publish_tags(world: World, tmp_path: Path, fqrn: str = FQRN) -> ContentHash:
    path = tmp_path / "history"
    write_history(str(path), fqrn, TAGS, None)
    history = world.servers.put_object(path.read_bytes(), ObjectKind.HISTORY)
    documents = world.documents()
    manifest = documents.manifest._replace(history=history)
    world.servers.publish(documents._replace(manifest=manifest))
    return history


def test_a_pinned_root_hash_is_believed_without_any_server(world: World) -> None:
    pinned = ContentHash.of(b"the one")
    assert world.select(HEAD._replace(root_hash=pinned)) == Revision(
        pinned, is_fixed=True
    )
    assert world.servers.asked() == []


@pytest.mark.parametrize(
    ("pin", "tag"),
    [
        (HEAD._replace(tag="v1"), TAGS[0]),
        (HEAD._replace(tag="side"), TAGS[2]),
        (HEAD._replace(date_s=NOW_S - 2000), TAGS[1]),
        (HEAD._replace(date_s=NOW_S - 2001), TAGS[0]),
        (HEAD._replace(date_s=NOW_S), TAGS[1]),
    ],
    ids=["tag", "tag of a branch", "date", "a second before", "default branch only"],
)
def test_a_tag_or_date_fixes_the_revision(
    world: World, tmp_path: Path, pin: RevisionSettings, tag: Tag
) -> None:
    publish_tags(world, tmp_path)
    assert world.select(pin) == Revision(
        tag.root_catalog,
        tag.root_catalog_size,
        number=tag.revision,
        tag=tag.name,
        is_fixed=True,
    )
    assert world.remembered is None


@pytest.mark.parametrize(
    "pin", [HEAD._replace(tag="v3"), HEAD._replace(date_s=NOW_S - 3001)]
)
def test_an_unknown_tag_or_date_is_an_error_that_helps(
    world: World, tmp_path: Path, pin: RevisionSettings
) -> None:
    publish_tags(world, tmp_path)
    with pytest.raises(TagNotFoundError, match=FQRN) as caught:
        world.select(pin)
    assert f"cvmfs tags {FQRN}" in caught.value.hint


def test_a_repository_without_history_has_no_tags(world: World) -> None:
    world.publish()
    assert world.selector().tags() == []
    with pytest.raises(TagNotFoundError):
        world.select(HEAD._replace(tag="v1"))


def test_tags_are_listed(world: World, tmp_path: Path) -> None:
    publish_tags(world, tmp_path)
    assert sorted(world.selector().tags()) == sorted(TAGS)


def test_tags_are_believed_from_a_verified_manifest_only(
    world: World, tmp_path: Path
) -> None:
    publish_tags(world, tmp_path)
    world.remember(world.documents())
    world.servers.put(WHITELIST, b"")
    with pytest.raises(CvmfsError):
        world.select(HEAD._replace(tag="v1"))


def test_tags_of_another_repository_are_refused(world: World, tmp_path: Path) -> None:
    publish_tags(world, tmp_path, "other.example.org")
    with pytest.raises(FqrnMismatchError):
        world.select(HEAD._replace(tag="v1"))


def test_a_tag_database_torn_in_the_cache_is_fetched_again(
    world: World, tmp_path: Path
) -> None:
    history = publish_tags(world, tmp_path)
    put(world.store, history, (tmp_path / "history").read_bytes()[:5000])
    assert world.select(HEAD._replace(tag="v1")).number == 3


def test_documents_are_shown_unverified_to_who_checks_them_himself(
    world: World,
) -> None:
    documents = world.publish()
    world.servers.put(WHITELIST, b"rubbish")
    assert world.selector().signed_documents() == (
        documents.manifest_blob(),
        b"rubbish",
        documents.certificate,
    )


def test_a_whitelist_of_a_month_ends_after_a_month(world: World) -> None:
    world.publish()
    selector = RevisionSelector(
        world.http,
        world.fetcher,
        settings(),
        world.directory,
        clock=lambda: NOW_S + MONTH_S,
    )
    with pytest.raises(WhitelistExpiredError):
        selector.select(HEAD)
