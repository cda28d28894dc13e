"""One repository for all tests that look into it with ``cvmfs``."""

import os
from pathlib import Path

from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.bent_repository import BentRepository
from tests.support.cvmfs_command import local_dist
from tests.support.published import FQRN, PublishedRepository, publish_tree

LARGE = b"".join(b"line %d\n" % number for number in range(2500))
MTIME_S = 1_600_000_000


def publish_one_of_everything(home: Path) -> PublishedRepository:
    """Publish a tree with one of everything, owned by whoever runs the tests."""
    tree = home / "tree"
    (tree / "nested/deep").mkdir(parents=True)
    (tree / "nested/.cvmfscatalog").touch()
    (tree / "nested/deep/leaf").write_bytes(b"leaf\n")
    (tree / "hello").write_bytes(b"hello\n")
    (tree / "hello").chmod(0o4755)
    (tree / "large").write_bytes(LARGE)
    (tree / "empty").touch()
    (tree / ".dotted").write_bytes(b"dotted\n")
    (tree / "to-hello").symlink_to("hello")
    (tree / "to-leaf").symlink_to(f"/cvmfs/{FQRN}/nested/deep/leaf")
    (tree / "outside").symlink_to("/etc/passwd")
    (tree / "above").symlink_to("../../etc/passwd")
    (tree / "circle").symlink_to("circle")
    (tree / "dangling").symlink_to("nothing")
    os.mkfifo(tree / "fifo")
    Path(os.fsdecode(os.fsencode(tree) + b"/odd\xff\n\x1b[31m")).write_bytes(b"odd\n")
    for path in tree.rglob("*"):
        os.utime(path, (MTIME_S, MTIME_S), follow_symlinks=False)
    os.utime(tree, (MTIME_S, MTIME_S))
    return publish_tree(home, tree, tag="v1", chunk_sizes=ChunkSizes(2048, 4096, 8192))


def dist_of(home: Path, repository: PublishedRepository | BentRepository) -> str:
    """Make a dist for a repository (again) and return its path."""
    key = (home / "keys" / f"{repository.fqrn}.pub").read_bytes()
    return local_dist(home, repository.output, key)
