"""A publisher that dies at any step leaves the earlier revision as it was.

Every step of a publication that others can see is a rename. So a process kills itself
at its first rename, another one at its second, and so on, until one comes through.
They are forked, which wants a process without threads: not this one.
"""

import os
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

from cvmfsexec.publish.layout import MANIFEST
from cvmfsexec.publish.settings import PublishSettings
from cvmfsexec.publish.transaction import publish
from tests.support.check_repository import check_repository
from tests.support.published import (
    FQRN,
    PublishedRepository,
    Tree,
    publish_tree,
    write_tree,
)

BEFORE: Tree = {"a": b"a", "n": {".cvmfscatalog": b"", "x": b"x"}}
AFTER: Tree = {"a": b"changed", "n": {".cvmfscatalog": b"", "x": b"y"}, "new": b"new"}
RENAMES = 8  # 3 files, 2 catalogs, tags, reflog, manifest
REFLOG_IS_AHEAD = "manifest: Y"


def test_a_crash_leaves_the_earlier_revision(tmp_path: Path) -> None:
    process = get_context("spawn").Process(target=crash_everywhere, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0


def crash_everywhere(path: Path) -> None:
    earlier = publish_tree(path, BEFORE)
    before = (earlier.directory / MANIFEST).read_bytes()
    write_tree(earlier.source, AFTER)
    for renames in range(RENAMES + 1):
        output = path / f"surviving {renames} renames"
        shutil.copytree(earlier.output, output)
        repository = earlier._replace(output=output, directory=output / FQRN)
        is_published = comes_through(repository, renames)
        assert is_published == (renames == RENAMES)
        if not is_published:
            assert (repository.directory / MANIFEST).read_bytes() == before
            # The reflog goes first: a client does not read it, and the next
            # publication puts it right.
            assert set(problems_of(repository)) <= {REFLOG_IS_AHEAD}
            assert comes_through(repository, RENAMES)
        assert (repository.directory / MANIFEST).read_bytes() != before
        assert problems_of(repository) == []
        assert list((repository.directory / "data" / "txn").iterdir()) == []


def problems_of(repository: PublishedRepository) -> list[str]:
    return check_repository(repository.directory, repository.master_key_pem)


def comes_through(repository: PublishedRepository, renames: int) -> bool:
    """Publish in a process that survives so many renames."""
    child = os.fork()
    if child == 0:
        publish_and_die(repository, renames)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return status == 0


def publish_and_die(repository: PublishedRepository, renames: int) -> None:
    settings = PublishSettings(
        FQRN, repository.output, repository.keys_directory, is_durable=False
    )
    rename = os.rename
    remaining = renames

    def rename_or_die(source: str, target: str) -> None:
        nonlocal remaining
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        remaining -= 1
        rename(source, target)

    with mock.patch("os.rename", rename_or_die):
        publish(repository.source, settings, int(time.time()))
    os._exit(0)
