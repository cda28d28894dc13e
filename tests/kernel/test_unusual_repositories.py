"""What no fixture holds, read through the kernel: odd hashes, places, sizes, times."""

import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cvmfsexec.format.digest import ContentHash, HashAlgorithm, ObjectKind
from cvmfsexec.format.dirent import Compression, Flag
from cvmfsexec.format.names import path_hash
from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.bent_repository import BentRepository
from tests.support.commands import SYSTEM_PYTHON, client_dist, run_cvmfs, run_exec
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree, serve

LARGE = hashlib.shake_128(b"large").digest(300_000)
LONG_NAME = "n" * 255
TREE: Tree = {
    "hello": b"hello\n",
    "empty": b"",
    "large": LARGE,
    LONG_NAME: b"long\n",
    "nested": {
        ".cvmfscatalog": b"",
        "deep": {"leaf": b"leaf\n"},
        "inner": {".cvmfscatalog": b"", "core": b"core\n"},
    },
}
CHUNKS = ChunkSizes.around(64 * 1024)
WHOLE_OF_2_TO_63 = 2**63 - 1

pytestmark = pytest.mark.kernel

_LOOK = """
import hashlib, json, os, sys
os.chdir(sys.argv[1])
def files(top):
    return {os.path.join(directory, name)[2:]:
            hashlib.sha256(open(os.path.join(directory, name), "rb").read()).hexdigest()
            for directory, _, names in os.walk(top) for name in names}
def facts(path):
    status = os.stat(path)
    return {"mtime_ns": status.st_mtime_ns, "size": status.st_size,
            "blocks": status.st_blocks, "nlink": status.st_nlink, "uid": status.st_uid}
print(json.dumps(eval(sys.argv[2])))
"""


@contextmanager
def client(output: Path, *keys: bytes, settings: str = "") -> Iterator[Path]:
    with (
        serve(output) as base_url,
        client_dist(base_url, *keys, settings=settings) as dist,
    ):
        yield dist


def look(dist: Path, expression: str) -> Any:  # noqa: ANN401 -- whatever JSON has
    """Evaluate an expression in the top directory of the mounted repository."""
    words = (SYSTEM_PYTHON, "-c", _LOOK, f"/cvmfs/{FQRN}", expression)
    done = run_exec(dist, FQRN, "--", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def content_of(tree: Tree, top: str = "") -> dict[str, str]:
    """Return what ``files`` should tell about a published tree."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        path = os.path.join(top, name)
        if isinstance(value, bytes):
            found[path] = hashlib.sha256(value).hexdigest()
        elif not isinstance(value, str):
            found.update(content_of(value, path))
    return found


def row(path: bytes, **cells: object) -> Callable[[sqlite3.Connection], object]:
    """Return what changes cells of an entry."""
    own = path_hash(path)
    changes = ", ".join(f"{column} = :{column}" for column in cells)
    where = {"one": own.md5_1, "two": own.md5_2}
    return lambda database: database.execute(
        f"UPDATE catalog SET {changes} WHERE md5path_1 = :one AND md5path_2 = :two",  # noqa: S608
        {**cells, **where},
    )


@pytest.mark.parametrize("compression", list(Compression), ids=lambda one: one.name)
@pytest.mark.parametrize("algorithm", list(HashAlgorithm), ids=lambda one: one.name)
def test_every_hash_and_compression_is_read(
    tmp_path: Path, algorithm: HashAlgorithm, compression: Compression
) -> None:
    made = publish_tree(
        tmp_path,
        TREE,
        algorithm=algorithm,
        compression=compression,
        chunk_sizes=CHUNKS,
    )
    with client(made.output, made.master_key_pem) as dist:
        assert look(dist, "files('.')") == content_of(TREE)
        attribute = "os.getxattr('hello', 'user.hash').decode()"
        assert look(dist, attribute).endswith(algorithm.suffix)
        verified = run_cvmfs(dist, "verify", FQRN, "--objects")
        assert verified.returncode == 0, verified.stderr


def test_a_repository_that_changed_its_hash_is_read(tmp_path: Path) -> None:
    publish_tree(tmp_path, TREE, chunk_sizes=CHUNKS, tag="old")
    changed: Tree = {**TREE, "new": b"new\n"}
    made = publish_tree(
        tmp_path, changed, chunk_sizes=CHUNKS, algorithm=HashAlgorithm.RMD160
    )
    with client(made.output, made.master_key_pem) as dist:
        assert look(dist, "files('.')") == content_of(changed)
    pin = "CVMFS_REPOSITORY_TAG=old\n"
    with client(made.output, made.master_key_pem, settings=pin) as dist:
        assert look(dist, "files('.')") == content_of(TREE)


def bind_snapshot(bent: BentRepository, old: PublishedRepository) -> None:
    """Make ``/.cvmfs`` hidden, and the old root appear as ``snapshots/v1`` in it."""
    manifest = old.manifest
    hidden = Flag.HIDDEN | Flag.DIRECTORY

    def bind(database: sqlite3.Connection) -> None:
        row(b"/.cvmfs", flags=hidden | Flag.NESTED_ROOT)(database)
        flags = Flag.DIRECTORY | Flag.BIND_MOUNTPOINT
        row(b"/.cvmfs/snapshots/v1", flags=flags)(database)
        database.execute(
            "INSERT INTO bind_mountpoints (path, sha1, size) VALUES (?, ?, ?)",
            (
                "/.cvmfs/snapshots/v1",
                str(manifest.root_catalog),
                manifest.root_catalog_size,
            ),
        )

    bent.edit(bind, b"/.cvmfs")
    bent.edit(row(b"/.cvmfs", flags=hidden | Flag.NESTED_MOUNTPOINT))


def rename_to_reserved(bent: BentRepository) -> None:
    """Give the directory ``/cvmfs`` the name that publishers do not let through."""

    def rename(database: sqlite3.Connection) -> None:
        paths = (b"", b"/snapshots", b"/snapshots/v1", b"/.cvmfscatalog")
        moved = {path_hash(b"/cvmfs" + p): path_hash(b"/.cvmfs" + p) for p in paths}
        for columns in ("md5path", "parent"):
            for old, new in moved.items():
                database.execute(
                    f"UPDATE catalog SET {columns}_1 = ?, {columns}_2 = ?"  # noqa: S608
                    f" WHERE {columns}_1 = ? AND {columns}_2 = ?",
                    (*new, *old),
                )
        for table in ("nested_catalogs", "properties"):
            column = "path" if table == "nested_catalogs" else "value"
            database.execute(
                f"UPDATE {table} SET {column} = '/.cvmfs' WHERE {column} = '/cvmfs'"  # noqa: S608
            )
        database.execute("UPDATE catalog SET name = '.cvmfs' WHERE name = 'cvmfs'")

    bent.edit(rename, b"/cvmfs")
    bent.edit(rename)


def test_snapshots_are_bound_below_a_hidden_directory(tmp_path: Path) -> None:
    old = publish_tree(tmp_path, TREE, chunk_sizes=CHUNKS)
    place: Tree = {".cvmfscatalog": b"", "snapshots": {"v1": {}}}
    new = publish_tree(tmp_path, {"hello": b"new\n", "cvmfs": place})
    bent = BentRepository(new, tmp_path / "bent")
    rename_to_reserved(bent)
    bind_snapshot(bent, old)
    bound = ".cvmfs/snapshots/v1"
    with client(bent.output, new.master_key_pem) as dist:
        assert look(dist, "os.listdir('.')") == ["hello"]
        assert look(dist, "os.listdir('.cvmfs/snapshots')") == ["v1"]
        assert look(dist, f"files('./{bound}')") == content_of(TREE, bound)
        inner = f"{bound}/nested/inner"
        climb = f"os.path.samefile('{inner}/../..', '{bound}')"
        assert look(dist, climb)
        told = look(dist, f"os.getxattr('{inner}', 'user.catalog_counters').decode()")
        assert f"catalog_mountpoint: /{inner}\n" in told
        listed = run_cvmfs(dist, "cat", FQRN, f"/{inner}/core")
        assert listed.stdout == b"core\n"


@pytest.mark.parametrize("compression", list(Compression), ids=lambda one: one.name)
def test_external_files_come_from_their_own_server(
    tmp_path: Path, compression: Compression
) -> None:
    made = publish_tree(tmp_path, TREE, chunk_sizes=CHUNKS, compression=compression)
    bent = BentRepository(made, tmp_path / "bent")
    bent.execute(
        "UPDATE catalog SET flags = flags | :external WHERE name IN ('hello', 'large')",
        {"external": Flag.EXTERNAL},
    )
    is_zlib = compression is Compression.ZLIB
    (bent.directory / "elsewhere").mkdir()
    bent.write("elsewhere/hello", zlib.compress(b"hello\n") if is_zlib else b"hello\n")
    bent.write("elsewhere/large", LARGE)
    for chunk in bent.chunk_paths(b"/large"):
        (bent.directory / chunk).unlink()
    with serve(bent.output) as base_url:
        settings = f"CVMFS_EXTERNAL_URL={base_url}/{FQRN}/elsewhere\n"
        with client_dist(base_url, made.master_key_pem, settings=settings) as dist:
            assert look(dist, "open('hello').read()") == "hello\n"
            if not is_zlib:  # ranges are of the file as it is
                wanted = content_of(TREE)["large"]
                assert look(dist, "files('.')['large']") == wanted


@pytest.mark.parametrize(
    ("cells", "facts"),
    [
        ({"mtime": -1, "mtimens": 999_999_999}, {"mtime_ns": -1}),
        ({"mtime": -(2**63)}, {}),
        ({"mtime": 2**63 - 1}, {}),
        ({"size": WHOLE_OF_2_TO_63}, {"size": WHOLE_OF_2_TO_63}),
        ({"hardlinks": 1 << 32 | 0xFFFFFFFF}, {"nlink": 0xFFFFFFFF}),
        ({"uid": 2**32 - 1, "gid": 2**32 - 1}, {"uid": 65534}),
    ],
)
def test_extreme_values_are_shown(
    tmp_path: Path, cells: dict[str, int], facts: dict[str, int]
) -> None:
    made = publish_tree(tmp_path, {"odd": b"odd\n"})
    bent = BentRepository(made, tmp_path / "bent")
    bent.edit(row(b"/odd", **cells))
    settings = "CVMFS_CLAIM_OWNERSHIP=no\n"
    with client(bent.output, made.master_key_pem, settings=settings) as dist:
        assert facts.items() <= look(dist, "facts('odd')").items()
        assert run_cvmfs(dist, "ls", FQRN, "-l").returncode == 0


def test_files_beyond_4_gib_are_read(tmp_path: Path) -> None:
    step = 1 << 28
    made = publish_tree(tmp_path, {"huge": LARGE}, chunk_sizes=CHUNKS)
    bent = BentRepository(made, tmp_path / "bent")
    zeros = bent.put(bytes(step), ObjectKind.CHUNK)
    last = bent.put(b"the end", ObjectKind.CHUNK)
    own = path_hash(b"/huge")
    chunks = [(*own, number * step, step, zeros.digest) for number in range(20)]
    chunks.append((*own, 20 * step, 7, last.digest))

    def replace(database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM chunks")
        database.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", chunks)
        row(b"/huge", size=20 * step + 7)(database)

    bent.edit(replace)
    with client(bent.output, made.master_key_pem) as dist:
        end = 20 * step
        assert look(dist, "facts('huge')")["size"] == end + 7
        read = "os.pread(os.open('huge', 0), 99, {}).decode()"
        assert look(dist, read.format(end - 3)) == "\0\0\0the end"
        assert look(dist, read.format(end + 7)) == ""


def test_revision_0_is_mounted_again_and_again(tmp_path: Path) -> None:
    made = publish_tree(tmp_path, {"hello": b"hello\n"})
    bent = BentRepository(made, tmp_path / "bent")
    bent.execute("UPDATE properties SET value = '0' WHERE key = 'revision'")
    bent.sign_manifest(revision=0)
    with client(bent.output, made.master_key_pem) as dist:
        for _ in range(2):
            assert look(dist, "os.getxattr('.', 'user.revision').decode()") == "0"
        bent.execute("UPDATE catalog SET mtime = 7 WHERE name = 'hello'")
        assert look(dist, "facts('hello')")["mtime_ns"] // 10**9 == 7


def test_a_directory_of_100_000_entries_is_whole_and_keeps_its_place(
    tmp_path: Path,
) -> None:
    count = 100_000
    made = publish_tree(tmp_path, {"huge": {"0": b""}})
    bent = BentRepository(made, tmp_path / "bent")
    parent = path_hash(b"/huge")
    empty = ContentHash.of(zlib.compress(b""))

    def fill(database: sqlite3.Connection) -> None:
        database.executemany(
            "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2, hardlinks,"
            " hash, size, mode, mtime, flags, name, symlink, uid, gid)"
            " VALUES (?, ?, ?, ?, 1, ?, 0, 33188, 0, 4, ?, '', 0, 0)",
            (
                (*path_hash(b"/huge/%d" % n), *parent, empty.digest, str(n))
                for n in range(1, count)
            ),
        )

    bent.edit(fill)
    script = """
        ls -f huge | sort | uniq | wc -l
        find huge -type f -size 0 | wc -l
        pid=$(getfattr --only-values -n user.pid .)
        sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$pid/status
    """
    with client(bent.output, made.master_key_pem) as dist:
        command = f"cd /cvmfs/{FQRN}\n{script}"
        done = run_exec(dist, FQRN, "--", "sh", "-c", command)
        assert done.returncode == 0, done.stderr
        names, files, *peak_kib = map(int, done.stdout.split())
        assert (names, files) == (count + 2, count)
        assert all(kib < 60 << 10 for kib in peak_kib)
