"""Servers, documents and root catalogs that must not be believed: refused at the start.

Each is a real session with the real command against a real server.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfsexec.cli import exit_codes
from cvmfsexec.format.digest import ObjectKind
from cvmfsexec.format.whitelist import Fingerprint, format_time
from cvmfsexec.trust.signature import fingerprint_of
from tests.support import signed_documents
from tests.support.hostile_places import (
    PAYLOAD,
    TOP,
    Place,
    hostile_place,
    publish_victim,
    refuse,
    refuse_repository,
)
from tests.support.http_server import (
    Behaviour,
    CutOff,
    ForwardProxy,
    Garbage,
    Oversized,
    Redirect,
    Slow,
    Stall,
    Status,
    unused_port_url,
)
from tests.support.published import FQRN, PublishedRepository, publish_tree

MANIFEST = ".cvmfspublished"
WHITELIST = ".cvmfswhitelist"

Spoil = Callable[[Place], object]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_victim(tmp_path_factory.mktemp("victim"))


def manifest(behaviour: Behaviour) -> Spoil:
    """Return what makes the server misbehave when it is asked for the manifest."""
    return lambda place: place.server.misbehave(behaviour, MANIFEST)


def configured(**settings: str) -> Spoil:
    return lambda place: place.configure(**settings)


# Servers


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda place: place.server.stop(), "cannot connect"),
        (manifest(Status(404)), "HTTP status 404"),
        (manifest(Status(403)), "HTTP status 403"),
        (manifest(Status(500)), "HTTP status 500"),
        (manifest(Status(204)), "cut short"),
        (manifest(Redirect("http://127.0.0.1:1/")), "a redirect"),
        (manifest(CutOff(100)), "transfer cut short"),
        (manifest(Stall(100)), "too slow"),
        (manifest(Stall()), "too slow"),
        (manifest(Slow(50)), "too slow"),
        (manifest(Garbage()), "cvmfspublished"),
        (manifest(Oversized(1 << 20)), "more than 65536 bytes"),
        (manifest(Status(200, body=b"<html>Log in first</html>")), "cut short"),
        (manifest(Status(200, body=b"")), "cut short"),
        (configured(CVMFS_SERVER_URL="http://no.such.host.invalid/@fqrn@"), "resolve"),
        (configured(CVMFS_SERVER_URL="file:///nowhere/@fqrn@"), "nowhere"),
        (configured(CVMFS_HTTP_PROXY=unused_port_url()), "via http://127.0.0.1"),
        (configured(CVMFS_HTTP_PROXY="http://no.such.host.invalid:3128"), "resolve"),
    ],
)
def test_a_server_that_does_not_deliver(
    victim: PublishedRepository, spoil: Spoil, reason: str
) -> None:
    with hostile_place(victim, CVMFS_TIMEOUT="2", CVMFS_TIMEOUT_DIRECT="2") as place:
        spoil(place)
        sentence = refuse_repository(place, status=exit_codes.REPOSITORY)
    assert reason in sentence


def test_a_proxy_that_lets_nobody_through(victim: PublishedRepository) -> None:
    with hostile_place(victim) as place, ForwardProxy(credentials="eA==") as proxy:
        place.configure(CVMFS_HTTP_PROXY=proxy.url)
        sentence = refuse_repository(place, status=exit_codes.REPOSITORY)
    assert "HTTP status 407 from the proxy" in sentence
    assert "CVMFS_HTTP_PROXY" in sentence


def test_passwords_of_proxies_are_not_told(victim: PublishedRepository) -> None:
    url = unused_port_url().replace("http://", "http://user:secret@")
    with hostile_place(victim, CVMFS_HTTP_PROXY=url) as place:
        sentence = refuse_repository(place, status=exit_codes.REPOSITORY)
    assert "secret" not in sentence


def test_a_repository_that_the_server_does_not_have(
    victim: PublishedRepository,
) -> None:
    with hostile_place(victim) as place:
        sentence = refuse(
            place.dist,
            *("unknown.example.org", "--", *PAYLOAD),
            status=exit_codes.REPOSITORY,
            about="unknown.example.org",
        )
    assert "check the name of the repository" in sentence


# Signed documents


def tamper_with_manifest(place: Place) -> None:
    place.repository.change(MANIFEST, lambda blob: blob.replace(b"\nS", b"\nS9", 1))


def tamper_with_manifest_signature(place: Place) -> None:
    place.repository.change(MANIFEST, lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]))


def truncate_manifest(place: Place) -> None:
    place.repository.change(MANIFEST, lambda blob: blob[: len(blob) // 2])


def sign_manifest_with_another_key(place: Place) -> None:
    place.repository.sign_manifest(key=signed_documents.private_key("thief"))


def sign_manifest_with_an_unlisted_certificate(place: Place) -> None:
    pem = signed_documents.certificate("thief")
    name = place.repository.put(pem, ObjectKind.CERTIFICATE)
    place.repository.sign_manifest(
        key=signed_documents.private_key("thief"), certificate=name
    )


def tamper_with_whitelist(place: Place) -> None:
    place.repository.change(WHITELIST, lambda blob: blob.replace(b"\nE20", b"\nE21"))


def sign_whitelist_with_another_key(place: Place) -> None:
    place.repository.sign_whitelist(key=signed_documents.private_key("thief"))


def list_another_certificate(place: Place) -> None:
    place.repository.sign_whitelist(fingerprints=(other_fingerprint(),))


def other_fingerprint() -> Fingerprint:
    certificate = signed_documents.certificate("thief")
    algorithm = signed_documents.Documents.valid().algorithm
    return fingerprint_of(certificate, algorithm)


def list_nothing(place: Place) -> None:
    place.repository.sign_whitelist(fingerprints=())


def let_whitelist_expire(place: Place) -> None:
    place.repository.sign_whitelist(expires_at=format_time(1_000_000_000))


def name_another_repository(place: Place) -> None:
    place.repository.sign_manifest(fqrn="other.example.org")


def name_another_repository_on_the_whitelist(place: Place) -> None:
    place.repository.sign_whitelist(fqrn="other.example.org")


def describe_a_part(place: Place) -> None:
    place.repository.sign_manifest(root_path_md5="0" * 32)


def ask_for_pkcs7(place: Place) -> None:
    place.repository.sign_whitelist(options=("Vpkcs7",))


def ask_for_a_chain(place: Place) -> None:
    place.repository.sign_whitelist(options=("Wcachain",))


def ask_for_members(place: Place) -> None:
    place.repository.execute("INSERT INTO properties VALUES ('voms_authz', 'x509%cms')")


def empty_whitelist(place: Place) -> None:
    place.repository.write(WHITELIST, b"")


def flood_whitelist(place: Place) -> None:
    place.repository.write(WHITELIST, b"x" * (1 << 20))


def write_a_web_page_for_whitelist(place: Place) -> None:
    place.repository.write(WHITELIST, b"<html></html>\n--\n")


def lose_whitelist(place: Place) -> None:
    (place.repository.directory / WHITELIST).unlink()


def certificate_path(place: Place) -> str:
    certificate = place.repository.manifest.certificate
    assert certificate is not None
    return certificate.object_path(ObjectKind.CERTIFICATE)


def tamper_with_certificate(place: Place) -> None:
    place.repository.change(certificate_path(place), lambda stored: stored[:-1] + b"x")


def truncate_certificate(place: Place) -> None:
    place.repository.change(certificate_path(place), lambda stored: stored[:100])


def lose_certificate(place: Place) -> None:
    (place.repository.directory / certificate_path(place)).unlink()


def replace_certificate(place: Place, content: bytes) -> None:
    name = place.repository.put(content, ObjectKind.CERTIFICATE)
    place.repository.sign_manifest(certificate=name)


def publish_junk_for_certificate(place: Place) -> None:
    replace_certificate(place, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END ")


def publish_a_bomb_for_certificate(place: Place) -> None:
    replace_certificate(place, bytes(50_000_000))


def name_no_certificate(place: Place) -> None:
    place.repository.sign_manifest(certificate=None)


@pytest.mark.parametrize(
    ("spoil", "status", "reason"),
    [
        (tamper_with_manifest, 15, "was changed after signing"),
        (tamper_with_manifest_signature, 15, "was not signed by its certificate"),
        (truncate_manifest, 16, "cut short"),
        (sign_manifest_with_another_key, 15, "was not signed by its certificate"),
        (sign_manifest_with_an_unlisted_certificate, 15, "is not on its whitelist"),
        (name_another_repository, 15, "is about 'other.example.org'"),
        (describe_a_part, 15, "a part of a repository"),
        (name_no_certificate, 16, "lacks X"),
        (tamper_with_whitelist, 15, "was changed after signing"),
        (sign_whitelist_with_another_key, 15, "not signed by a configured master key"),
        (list_another_certificate, 15, "is not on its whitelist"),
        (list_nothing, 15, "is not on its whitelist"),
        (let_whitelist_expire, 15, "expired at 20010909014640 UTC; check this machine"),
        (name_another_repository_on_the_whitelist, 15, "is about 'other.example.org'"),
        (ask_for_pkcs7, 15, "Vpkcs7"),
        (ask_for_a_chain, 15, "Wcachain"),
        (ask_for_members, 15, "open to members only (x509%cms)"),
        (empty_whitelist, 16, "the whitelist is empty"),
        (flood_whitelist, 16, "more than 262144 bytes"),
        (write_a_web_page_for_whitelist, 16, "the whitelist is malformed"),
        (lose_whitelist, 16, "no server has .cvmfswhitelist"),
        (tamper_with_certificate, 16, "is corrupt wherever it was fetched"),
        (truncate_certificate, 16, "is corrupt wherever it was fetched"),
        (lose_certificate, 16, "no server has data/"),
        (publish_junk_for_certificate, 16, "certificate cannot be used"),
        (publish_a_bomb_for_certificate, 16, "more than 65536 bytes"),
    ],
)
def test_a_document_that_is_not_believed(
    victim: PublishedRepository, spoil: Spoil, status: int, reason: str
) -> None:
    with hostile_place(victim) as place:
        spoil(place)
        sentence = refuse_repository(place, status=status)
        is_remembered = any(place.cache.glob("cvmfschecksum.*"))
    assert reason in sentence
    # Who is no member may know all the same which revision there is.
    assert is_remembered == (spoil is ask_for_members)


def test_another_master_key(victim: PublishedRepository) -> None:
    key = signed_documents.public_key("thief")
    with hostile_place(victim, key) as place:
        sentence = refuse_repository(place, status=exit_codes.SIGNATURE)
    assert "check that the right key is configured" in sentence


def test_no_master_key(victim: PublishedRepository) -> None:
    with hostile_place(victim, CVMFS_KEYS_DIR="/etc/cvmfs/other") as place:
        sentence = refuse_repository(place, status=exit_codes.SIGNATURE)
    assert "no master key" in sentence
    assert "put the public key of the repository there" in sentence


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"not a key",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"k" * 100_000,
    ],
)
def test_a_master_key_that_is_none(victim: PublishedRepository, key: bytes) -> None:
    with hostile_place(victim, key) as place:
        refuse_repository(place, status=exit_codes.CONFIGURATION)


# Root catalogs


def tamper_with_root(place: Place) -> None:
    path = place.repository.catalog_path()
    place.repository.change(path, lambda stored: stored[:-1] + b"x")


def truncate_root(place: Place) -> None:
    place.repository.change(place.repository.catalog_path(), lambda stored: stored[:99])


def lose_root(place: Place) -> None:
    (place.repository.directory / place.repository.catalog_path()).unlink()


def publish_junk_for_root(place: Place) -> None:
    place.repository.replace_catalog(b"SQLite format 3\0" + bytes(10_000))


def publish_nothing_for_root(place: Place) -> None:
    place.repository.replace_catalog(b"", size=0)


def publish_no_stream_for_root(place: Place) -> None:
    place.repository.replace_catalog(bytes(10_000), stored=b"not zlib")


def publish_a_bomb_for_root(place: Place) -> None:
    bomb = zlib.compress(bytes(200_000_000), 9)
    place.repository.replace_catalog(bytes(10_000), stored=bomb)


def append_to_root(place: Place) -> None:
    content = zlib.decompress(
        (place.repository.directory / place.repository.catalog_path()).read_bytes()
    )
    place.repository.replace_catalog(content, stored=zlib.compress(content) + b"more")


def announce_a_smaller_root(place: Place) -> None:
    place.repository.sign_manifest(root_catalog_size=1000)


def announce_a_huge_root(place: Place) -> None:
    place.repository.sign_manifest(root_catalog_size=2**63)


def remove_the_top(place: Place) -> None:
    place.repository.execute("DELETE FROM catalog WHERE name = ''")


def make_the_top_a_file(place: Place) -> None:
    place.repository.execute(
        "UPDATE catalog SET flags = 4, mode = 33188 WHERE name = ''"
    )


def name_no_root(place: Place) -> None:
    null = place.repository.manifest.root_catalog._replace(digest=bytes(20))
    place.repository.sign_manifest(root_catalog=null)


def run(*statements: str) -> Spoil:
    def run_all(place: Place) -> None:
        for sql in statements:
            place.repository.execute(sql)

    return run_all


def make_a_view(place: Place) -> None:
    run(
        "ALTER TABLE catalog RENAME TO hidden",
        "CREATE VIEW catalog AS SELECT * FROM hidden",
    )(place)


def make_a_virtual_table(place: Place) -> None:
    run(
        "ALTER TABLE chunks RENAME TO hidden",
        "CREATE VIRTUAL TABLE chunks USING fts3(md5path_1, offset, hash)",
    )(place)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (tamper_with_root, "is corrupt wherever it was fetched"),
        (truncate_root, "is corrupt wherever it was fetched"),
        (lose_root, "no server has data/"),
        (publish_junk_for_root, ""),
        (publish_nothing_for_root, ""),
        (publish_no_stream_for_root, "cannot decompress"),
        (publish_a_bomb_for_root, "more than"),
        (append_to_root, "bytes after the end of the compressed data"),
        (announce_a_smaller_root, "more than"),
        (announce_a_huge_root, ""),
        (remove_the_top, "has no root directory"),
        (make_the_top_a_file, "has no root directory"),
        (name_no_root, "names no root catalog"),
        (make_a_view, "is not a plain table"),
        (make_a_virtual_table, "is not a plain table"),
        (run("DROP TABLE catalog"), "is not a catalog"),
        (run("ALTER TABLE catalog RENAME COLUMN flags TO other"), "no column flags"),
        (run("UPDATE properties SET value = '3.0' WHERE key = 'schema'"), "schema"),
        (run("UPDATE properties SET value = 'x' WHERE key = 'revision'"), "revision"),
        (run("INSERT INTO properties VALUES ('root_prefix', '/x')"), "is made for"),
        (run("INSERT INTO properties VALUES ('root_prefix', '/../x')"), "'..'"),
    ],
)
def test_a_root_catalog_that_is_none(
    victim: PublishedRepository, spoil: Spoil, reason: str
) -> None:
    with hostile_place(victim) as place:
        spoil(place)
        sentence = refuse_repository(place, status=exit_codes.REPOSITORY)
    assert reason in sentence


def test_triggers_and_other_objects_do_nothing(victim: PublishedRepository) -> None:
    with hostile_place(victim) as place:
        run(
            "CREATE TRIGGER t AFTER INSERT ON catalog BEGIN DELETE FROM catalog; END",
            "CREATE VIEW v AS SELECT load_extension('/tmp/evil.so')",
            "CREATE TABLE [odd ' name] (a, b GENERATED ALWAYS AS (a + 1))",
            "CREATE INDEX i ON catalog (mode) WHERE abs(mode) > 0",
        )(place)
        done = place.run("cat file nested/leaf")
    assert (done.returncode, done.stdout, done.stderr) == (0, "content\nleaf\n", "")


# Policy


def test_a_blacklisted_revision(victim: PublishedRepository) -> None:
    with hostile_place(victim, CVMFS_BLACKLIST="/etc/cvmfs/blacklist") as place:
        (place.dist / "etc/cvmfs/blacklist").write_text(f"<{FQRN} 2\n")
        sentence = refuse_repository(place, status=exit_codes.REVISION_BLACKLISTED)
    assert "revision 1" in sentence
    assert "2 is the lowest allowed" in sentence


def test_a_blacklisted_certificate(victim: PublishedRepository) -> None:
    with hostile_place(victim) as place:
        (fingerprint,) = place.repository.whitelist.fingerprints
        blacklist = place.dist / "etc/cvmfs/blacklist"
        blacklist.write_text(f"{fingerprint.digest.hex(':').upper()} # stolen\n")
        sentence = refuse_repository(place, status=exit_codes.SIGNATURE)
    assert "is blacklisted here" in sentence


def test_an_unknown_tag(victim: PublishedRepository) -> None:
    with hostile_place(victim, CVMFS_REPOSITORY_TAG="v99") as place:
        sentence = refuse_repository(place, status=exit_codes.HISTORY)
    assert "has no tag 'v99'" in sentence
    assert f"'cvmfs tags {FQRN}' lists what there is" in sentence


def replay(place: Place, old: Path) -> None:
    """Let the server offer revision 1 again."""
    for name in (MANIFEST, WHITELIST):
        place.repository.write(name, (old / name).read_bytes())


@pytest.fixture
def replayed(tmp_path: Path) -> tuple[PublishedRepository, Path]:
    """Return a repository of two revisions, and the documents of the first."""
    first = publish_tree(tmp_path, {"file": b"old\n"})
    old = tmp_path / "old"
    old.mkdir()
    for name in (MANIFEST, WHITELIST):
        (old / name).write_bytes((first.directory / name).read_bytes())
    return publish_tree(tmp_path, {"file": b"new\n"}), old


def test_a_rollback_without_what_was_seen(
    replayed: tuple[PublishedRepository, Path],
) -> None:
    repository, old = replayed
    with hostile_place(repository) as place:
        assert place.run("cat file").stdout == "new\n"
        for path in place.cache.glob("??/*"):
            path.unlink()
        replay(place, old)
        sentence = refuse_repository(place, status=exit_codes.REPOSITORY)
        assert place.cache.joinpath(f"cvmfschecksum.{FQRN}").exists()
    assert "is known here already" in sentence or "before the one known" in sentence


def test_a_rollback_with_what_was_seen(
    replayed: tuple[PublishedRepository, Path],
) -> None:
    repository, old = replayed
    with hostile_place(repository) as place:
        assert place.run("cat file").stdout == "new\n"
        replay(place, old)
        done = place.run("cat file")
    assert (done.returncode, done.stdout) == (0, "new\n")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"cvmfsexec: {FQRN}: working offline with revision 2")


@pytest.mark.parametrize(
    "spoil",
    [
        tamper_with_manifest,
        sign_manifest_with_another_key,
        let_whitelist_expire,
        lose_root,
        publish_junk_for_root,
        manifest(Status(500)),
    ],
)
def test_a_bad_server_does_not_take_away_what_is_cached(
    tmp_path: Path, spoil: Spoil
) -> None:
    victim = publish_tree(tmp_path, {"file": b"old\n"})
    with hostile_place(victim) as place:
        assert place.run("cat file").stdout == "old\n"
        publish_tree(tmp_path, {"file": b"new\n"})
        newer = place.repository.directory
        for path in victim.directory.rglob("*"):
            if path.is_file():
                target = newer / path.relative_to(victim.directory)
                target.write_bytes(path.read_bytes())
        spoil(place)
        done = place.run("cat file")
        assert (done.returncode, done.stdout) == (0, "old\n")
        assert "working offline with revision 1" in done.stderr
        assert done.stderr.count("\n") == 1


def test_one_bad_repository_stops_all(victim: PublishedRepository) -> None:
    with hostile_place(victim) as place:
        for words in ((FQRN, "bad.example.org"), ("bad.example.org", FQRN)):
            refuse(
                place.dist,
                *(*words, "--", "cat", f"{TOP}/file"),
                status=exit_codes.REPOSITORY,
                about="bad.example.org",
            )


def test_two_bad_repositories_are_told_in_one_sentence(
    victim: PublishedRepository,
) -> None:
    with hostile_place(victim) as place:
        words = ("one.example.org", "two.example.org", "--", *PAYLOAD)
        refuse(place.dist, *words, status=exit_codes.REPOSITORY, about="example.org")
