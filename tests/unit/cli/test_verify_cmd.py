import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cvmfsexec.cache.memory import MemoryStore
from cvmfsexec.cli import verify_cmd
from cvmfsexec.format.digest import ObjectKind
from tests.support.bent_repository import BentRepository
from tests.support.cvmfs_command import CvmfsCommand
from tests.support.published import FQRN
from tests.unit.cli.conftest import Bent, Home


def test_a_sound_repository_is_ok(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("verify", "--dist", home.dist, FQRN, "--objects")
    assert (told.status, told.err) == (0, "")
    *claims, verdict = told.lines
    assert verdict == f"{FQRN} revision 1: ok"
    assert len(claims) == 18
    assert {claim.split()[0] for claim in claims} == {"ok"}
    assert claims[-2].endswith("the catalogs are sound (2 catalogs, 18 rows)")
    assert "every object is what its name says" in claims[-1]


def test_no_more_than_one_catalog_is_kept(
    cvmfs: CvmfsCommand, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores: list[MemoryStore] = []

    def new_store() -> MemoryStore:
        stores.append(MemoryStore())
        return stores[-1]

    monkeypatch.setattr(verify_cmd, "MemoryStore", new_store)
    assert cvmfs("verify", "--dist", home.dist, FQRN, "--objects").status == 0
    (store,) = stores
    left = store.used_bytes()
    certificate = home.repository.keys_directory / f"{FQRN}.crt"
    assert left == certificate.stat().st_size


def test_external_files_are_not_asked_for(cvmfs: CvmfsCommand, bent: Bent) -> None:
    bent.repository.execute(
        "UPDATE catalog SET flags = flags | 128 WHERE name IN ('hello', 'large')"
    )
    bent.repository.change(bent.repository.path_of(b"/hello"), lambda _: b"spoilt")
    told = cvmfs("verify", "--dist", bent.dist, FQRN, "--objects")
    chunks = len(bent.repository.chunk_paths(b"/large"))
    assert told.status == 0, told.err
    assert f"; {1 + chunks} external ones were not asked for)" in told.lines[-2]


def test_programs_get_json(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cvmfs("verify", "--dist", home.dist, FQRN, "--json")
    report = json.loads(told.out)
    assert report["fqrn"] == FQRN
    assert report["revision"] == 1
    assert report["root_catalog"] == str(home.repository.manifest.root_catalog)
    assert report["errors"] == []
    assert "a master key signed the whitelist" in report["passed"]


def test_nothing_is_taken_from_the_cache_or_put_there(
    cvmfs: CvmfsCommand, bent: Bent
) -> None:
    assert cvmfs("cat", "--dist", bent.dist, FQRN, "hello").status == 0
    before = sorted(Path(bent.dist).rglob("*"))
    bent.repository.write(bent.repository.path_of(b"/hello"), b"spoilt")
    told = cvmfs("verify", "--dist", bent.dist, FQRN, "--objects")
    assert told.status == 16
    assert sorted(Path(bent.dist).rglob("*")) == before


def spoil_a_file(bent: BentRepository) -> None:
    bent.write(bent.path_of(b"/hello"), b"spoilt")


def spoil_a_chunk(bent: BentRepository) -> None:
    bent.write(bent.chunk_paths(b"/large")[1], b"spoilt")


def lose_a_file(bent: BentRepository) -> None:
    (bent.directory / bent.path_of(b"/nested/deep/leaf")).unlink()


def announce_another_size(bent: BentRepository) -> None:
    bent.execute("UPDATE catalog SET size = 7 WHERE name = 'hello'")


def spoil_a_catalog(bent: BentRepository) -> None:
    bent.write(bent.catalog_path(b"/nested"), b"spoilt")


def name_an_entry_badly(bent: BentRepository) -> None:
    bent.edit(
        lambda database: database.execute(
            "UPDATE catalog SET name = '..' WHERE name = 'leaf'"
        ),
        b"/nested",
    )


def make_a_hole(bent: BentRepository) -> None:
    bent.execute("DELETE FROM chunks WHERE offset = 0")


def lose_a_hash(bent: BentRepository) -> None:
    bent.execute("UPDATE catalog SET hash = NULL WHERE name = 'hello'")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (spoil_a_file, "an object is what its name says"),
        (spoil_a_chunk, "an object is what its name says"),
        (lose_a_file, "no server has data/"),
        (announce_another_size, "an object is what its name says"),
        (spoil_a_catalog, "the catalogs are sound"),
        (name_an_entry_badly, "the catalogs are sound"),
        (make_a_hole, "'large'"),
        (lose_a_hash, "'hello'"),
    ],
)
def test_what_is_wrong_is_found(
    cvmfs: CvmfsCommand,
    bent: Bent,
    spoil: Callable[[BentRepository], None],
    complaint: str,
) -> None:
    spoil(bent.repository)
    told = cvmfs("verify", "--dist", bent.dist, FQRN, "--objects")
    assert told.status == 16
    assert told.lines[-1] == f"{FQRN} revision 1: FAILED"
    failures = told.err.splitlines()
    assert failures
    assert all(line.startswith("  FAILED  ") for line in failures)
    assert complaint in told.err
    report = json.loads(
        cvmfs("verify", "--dist", bent.dist, FQRN, "--objects", "--json").out
    )
    assert len(report["errors"]) == len(failures)


def test_a_tampered_manifest_ends_it(cvmfs: CvmfsCommand, bent: Bent) -> None:
    bent.repository.change(
        ".cvmfspublished", lambda blob: blob.replace(b"\nS1\n", b"\nS2\n")
    )
    told = cvmfs("verify", "--dist", bent.dist, FQRN)
    assert told.status == 15
    assert told.out == b""
    assert told.err.startswith("cvmfs: the text of the manifest")


def test_a_tampered_manifest_of_a_known_revision_is_found(
    cvmfs: CvmfsCommand, bent: Bent
) -> None:
    """A session would learn nothing from it, and so would not look at it closely."""
    assert cvmfs("ls", "--dist", bent.dist, FQRN).status == 0
    bent.repository.change(
        ".cvmfspublished", lambda blob: blob.replace(b"\nS1\n", b"\nS2\n")
    )
    told = cvmfs("verify", "--dist", bent.dist, FQRN)
    assert told.status == 15
    assert "FAILED  the manifest's text is what was signed" in told.err


def test_a_certificate_that_is_lost_is_found(cvmfs: CvmfsCommand, bent: Bent) -> None:
    assert cvmfs("ls", "--dist", bent.dist, FQRN).status == 0
    certificate = bent.repository.manifest.certificate
    assert certificate is not None
    path = certificate.object_path(ObjectKind.CERTIFICATE)
    (bent.repository.directory / path).unlink()
    told = cvmfs("verify", "--dist", bent.dist, FQRN)
    assert told.status == 16
    assert "no server has data/" in told.err


def test_a_pinned_root_has_no_chain_to_be_checked(
    cvmfs: CvmfsCommand, bent: Bent
) -> None:
    root = bent.repository.manifest.root_catalog
    with open(f"{bent.dist}/etc/cvmfs/default.local", "a") as file:
        file.write(f"CVMFS_ROOT_HASH={root}\n")
    told = cvmfs("verify", "--dist", bent.dist, FQRN)
    assert told.status == 0
    assert len(told.lines) == 2
