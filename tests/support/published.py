"""Small repositories made on the spot by our own publisher, and a server for them.

::

    repository = publish_tree(tmp_path, {"hello": b"hi\n", "bin": {"x": "../hello"}})
    with serve(repository.output) as base_url:
        ...  # {base_url}/{repository.fqrn}/.cvmfspublished

The keys are made once per run, because that takes longer than everything else.
"""

import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Union

from cvmfsexec.format.manifest import Manifest
from cvmfsexec.publish.keys import create_keys
from cvmfsexec.publish.server import RepositoryServer
from cvmfsexec.publish.settings import PublishSettings
from cvmfsexec.publish.transaction import Publication, publish

FQRN = "test.example.org"
PUBLISHED_AT_S = 1_700_000_000

Tree = Mapping[str, Union[bytes, str, "Tree"]]
"""Names to file contents (bytes), link targets (str), or directories (mappings)."""


class PublishedRepository(NamedTuple):
    """A repository on disk.

    Attributes:
        fqrn: Its name.
        output: What :func:`serve` serves; holds a directory named ``fqrn``.
        directory: The repository itself: ``.cvmfspublished``, ``data/``.
        source: What was published.
        keys_directory: All keys.
        master_key: File with the public master key, ending in ``.pub``.
        publication: What the publisher says about the newest revision.
    """

    fqrn: str
    output: Path
    directory: Path
    source: Path
    keys_directory: Path
    master_key: Path
    publication: Publication

    @property
    def master_key_pem(self) -> bytes:
        """The public master key."""
        return self.master_key.read_bytes()

    def spoil_files(self) -> None:
        """Put something else in the place of all contents of files."""
        for path in self.directory.glob("data/*/*"):
            if not path.name.endswith(("C", "X", "H")):
                path.write_bytes(b"something else")

    @property
    def manifest(self) -> Manifest:
        """The newest manifest."""
        return self.publication.manifest


def publish_tree(
    tmp_path: Path,
    tree: Tree | Path,
    fqrn: str = FQRN,
    *,
    now_s: int | None = None,
    **settings: Any,  # noqa: ANN401 -- checked by PublishSettings itself
) -> PublishedRepository:
    """Publish a tree; with the same ``tmp_path`` and ``fqrn`` as the next revision.

    Args:
        tmp_path: Gets the directories ``served``, ``keys`` and ``source``.
        tree: A directory, or what to make one of. In the latter case files that are
            as in the earlier revision keep their times.
        fqrn: Name of the repository.
        now_s: Time of the publication; now, if not given.
        settings: Further fields of ``PublishSettings``: ``algorithm``, ``tag``, ...
    """
    source = tree if isinstance(tree, Path) else tmp_path / "source" / fqrn
    if not isinstance(tree, Path):
        write_tree(source, tree)
    keys = tmp_path / "keys"
    keys.mkdir(exist_ok=True)
    for suffix, content in _keys().items():
        (keys / (fqrn + suffix)).write_bytes(content)
    chosen = PublishSettings(
        fqrn, tmp_path / "served", keys, **{"is_durable": False, **settings}
    )
    publication = publish(source, chosen, int(now_s or time.time()))
    return PublishedRepository(
        fqrn=fqrn,
        output=chosen.output,
        directory=chosen.repository,
        source=source,
        keys_directory=keys,
        master_key=chosen.master_key,
        publication=publication,
    )


def write_tree(directory: Path, tree: Tree) -> None:
    """Make a directory hold exactly this; what is so already is not touched."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.iterdir():
        if path.name not in tree:
            _remove(path)
    for name, value in tree.items():
        path = directory / name
        if isinstance(value, bytes):
            _write_file(path, value)
        elif isinstance(value, str):
            _write_link(path, value)
        else:
            if path.is_symlink() or not path.is_dir():
                _remove(path)
            write_tree(path, value)


@contextmanager
def serve(directory: Path) -> Iterator[str]:
    """Serve repositories on a free loopback port; yields ``http://host:port/cvmfs``.

    Args:
        directory: A repository, or a directory with one directory per fqrn.
    """
    with RepositoryServer(str(directory)) as server:
        yield server.url


def _write_file(path: Path, content: bytes) -> None:
    is_same = not path.is_symlink() and path.is_file() and path.read_bytes() == content
    if not is_same:
        _remove(path)
        path.write_bytes(content)


def _write_link(path: Path, target: str) -> None:
    if not (path.is_symlink() and os.readlink(path) == target):
        _remove(path)
        path.symlink_to(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@functools.cache
def _keys() -> dict[str, bytes]:
    """Return key files by the end of their names; RSA keys take a while to make."""
    with tempfile.TemporaryDirectory() as directory:
        create_keys(Path(directory), FQRN, PUBLISHED_AT_S)
        return {
            path.name.removeprefix(FQRN): path.read_bytes()
            for path in Path(directory).iterdir()
        }
