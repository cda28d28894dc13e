"""Places where ``cvmfsexec`` meets bad input, and what it must do about it there.

Whatever is bad: one clear sentence, the documented status, no payload, no mount, no
process, and nothing in the cache that is not what its name says.
"""

import contextlib
import hashlib
import os
import subprocess
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.bent_repository import BentRepository
from tests.support.commands import client_dist, plain_environment, run_exec
from tests.support.http_server import HttpServer
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree
from tests.support.sessions import mount_table, wait_until

TOP = f"/cvmfs/{FQRN}"
LARGE = b"".join(b"line %d\n" % number for number in range(20_000))
PAYLOAD = ("echo", "the payload ran")

_TREE: Tree = {
    "file": b"content\n",
    "other": b"other content\n",
    "large": LARGE,
    "link": "file",
    "nested": {
        ".cvmfscatalog": b"",
        "leaf": b"leaf\n",
        "deep": {".cvmfscatalog": b"", "far": b"far away\n"},
    },
}


def publish_victim(home: Path) -> PublishedRepository:
    """Publish what all tests then make copies of."""
    return publish_tree(home, _TREE, chunk_sizes=ChunkSizes(16_384, 32_768, 65_536))


class Place(NamedTuple):
    """A repository that is hostile or about to be, its server, and a client.

    Attributes:
        repository: May be changed at any time.
        server: Likewise.
        dist: Of the client.
    """

    repository: BentRepository
    server: HttpServer
    dist: Path

    @property
    def cache(self) -> Path:
        """The client's cache of the repository."""
        return self.dist / "var/lib/cvmfs" / FQRN

    @property
    def log(self) -> str:
        """What is in the client's log."""
        path = self.dist.parent / "log" / f"{FQRN}.log"
        return path.read_text() if path.exists() else ""

    def configure(self, **settings: str) -> None:
        """Set parameters; later ones win."""
        with (self.dist / "etc/cvmfs/default.local").open("a") as file:
            file.writelines(f"{name}='{value}'\n" for name, value in settings.items())

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the repository."""
        return run_exec(self.dist, FQRN, "--", "sh", "-c", f"cd {TOP}\n{script}")


@contextlib.contextmanager
def hostile_place(
    victim: PublishedRepository, *keys: bytes, **settings: str
) -> Iterator[Place]:
    """Make a place with a copy of the victim; at the end its cache is examined.

    Args:
        victim: From :func:`publish_victim`.
        keys: Master public keys of the client, if not the victim's.
        settings: Parameters of the client.
    """
    with tempfile.TemporaryDirectory() as home:
        repository = BentRepository(victim, Path(home) / "served")
        with (
            HttpServer(str(repository.output)) as server,
            client_dist(server.url, *(keys or (victim.master_key_pem,))) as dist,
        ):
            place = Place(repository, server, dist)
            place.configure(**settings)
            yield place
            sources = (victim.directory, repository.directory)
            assert wrong_objects(place.cache, sources) == []
            assert list(place.cache.glob("txn/*")) == []


def refuse(
    dist: Path,
    *words: str,
    status: int,
    about: str = "",
    run: Callable[..., subprocess.CompletedProcess[str]] = run_exec,
) -> str:
    """Check that a session is refused as it must be; return the sentence.

    Args:
        dist: Of the client.
        words: For the command line.
        status: The exit status.
        about: What the sentence must name, such as a repository.
        run: Runs the command, as ``run_exec`` does.
    """
    mark = uuid.uuid4().hex
    mounts = mount_table()
    done = run(dist, *words, environment={**plain_environment(), "MARK": mark})
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "", "a payload ran"
    assert done.stderr.count("\n") == 1, done.stderr
    sentence = done.stderr.removesuffix("\n")
    assert sentence.startswith("cvmfsexec: "), sentence
    assert about in sentence
    assert sentence.isprintable()
    assert len(sentence) < 1000
    assert done.returncode == status, sentence
    assert mount_table() == mounts
    wait_until(lambda: not _processes_with(mark), "no process is left")
    return sentence


def refuse_repository(place: Place, *, status: int) -> str:
    """Check that the place's repository is refused; return the sentence."""
    return refuse(place.dist, FQRN, "--", *PAYLOAD, status=status, about=FQRN)


def wrong_objects(cache: Path, repositories: tuple[Path, ...]) -> list[str]:
    """Return what is in a cache and is not what was published under its name."""
    return [
        str(path)
        for path in cache.glob("??/*")
        if path.read_bytes() not in _contents(path, repositories)
    ]


def _contents(cached: Path, repositories: tuple[Path, ...]) -> Iterator[bytes]:
    """Yield what an object may hold: only from stored bytes that hash to its name."""
    name = cached.parent.name + cached.name
    for repository in repositories:
        for letter in ("", "C", "H", "X", "M", "P"):
            path = repository / "data" / cached.parent.name / (cached.name + letter)
            if not path.exists():
                continue
            stored = path.read_bytes()
            if hashlib.sha1(stored, usedforsecurity=False).hexdigest() != name:
                continue
            yield stored
            with contextlib.suppress(zlib.error):
                yield zlib.decompress(stored)


def _processes_with(mark: str) -> list[str]:
    """Return the processes that have a mark in their environment."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found
