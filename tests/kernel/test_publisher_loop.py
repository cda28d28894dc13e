"""A repository that is published all the time, and readers who never see it half done.

The long form takes two minutes: ``CVMFSEXEC_LONG_TESTS=1``.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.installs import Installation, installation
from tests.support.published import (
    FQRN,
    PublishedRepository,
    Tree,
    publish_tree,
    serve,
)
from tests.support.sessions import ROOT, Caller, skip_unless_possible
from tests.support.version_reader import content_of

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

IS_LONG = bool(os.environ.get("CVMFSEXEC_LONG_TESTS"))
DURATION_S = 120 if IS_LONG else 20
PERIOD_S = 2
READERS = 8
MANY = 1000
MARKER: Tree = {".cvmfscatalog": b""}
PATIENCE_S = 120


def tree(version: int) -> Tree:
    """Return a revision: files added, changed, removed, renamed, of other types."""
    return {
        "every": content_of("every", version),
        "some": {
            f"{n}": content_of(f"{n}", version - version % (n + 1)) for n in range(20)
        },
        "many": {**MARKER, **_files(range(MANY), version)},
        "moving": _files(range(version * 50, version * 50 + 100), 1),
        f"renamed {version % 3}": {"inside": content_of("inside", 1)},
        "odd": _files(range(5), version) if version % 2 else "many",
        "even": content_of("even", version) if version % 2 else _files([1], version),
        "nested": _nested(version),
        "kept": {**MARKER, "deep": {**MARKER, **_files(range(50), 1)}, "leaf": b""},
    }


def _nested(version: int) -> Tree:
    """Return a directory in which catalogs are made, merged, and moved."""
    inner = {**(MARKER if version % 2 else {}), **_files(range(10), version // 2)}
    outer = {**(MARKER if version % 3 else {}), **_files(range(5), version)}
    return {"a": {"b": inner, **outer}, f"at {version % 4}": {**MARKER, **inner}}


def _files(numbers: "range | list[int]", version: int) -> Tree:
    return {f"f{number}": content_of(f"f{number}", version) for number in numbers}


class Published(NamedTuple):
    """A repository, and an installation that reads it.

    Attributes:
        directory: To publish again from.
        install: The commands.
    """

    directory: Path
    install: Installation


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Published]:
    skip_unless_possible(Caller.ORDINARY)
    made: PublishedRepository = publish_tree(tmp_path, tree(1), ttl_s=1)
    with (
        serve(made.output) as base_url,
        installation(base_url, made.master_key_pem) as install,
    ):
        yield Published(tmp_path, install)


def test_readers_see_whole_files_and_none_goes_back(published: Published) -> None:
    install = published.install
    reader = (sys.executable, str(ROOT / "tests/support/version_reader.py"))
    line = install.line(
        "cvmfsexec", FQRN, "--", *reader, f"/cvmfs/{FQRN}", str(READERS)
    )
    ours, theirs = os.pipe()
    process = install.start(*line, stdin=ours)
    os.close(ours)
    try:
        newest = _publish_for_a_while(published.directory)
        time.sleep(2 * PERIOD_S)
    finally:
        os.close(theirs)
        output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    said = output.splitlines()
    assert [told for told in said if told.startswith("fault")] == []
    assert len(said) == READERS
    assert newest > DURATION_S // PERIOD_S // 2, "the publisher kept up"
    for told in said:
        _, count, _, seen = told.split()
        assert int(count) > 100
        assert int(seen) > newest - 3, "followed to the end"


def _publish_for_a_while(directory: Path) -> int:
    """Publish revisions; return the number of the last one."""
    end_s = time.monotonic() + DURATION_S
    version = 1
    while time.monotonic() < end_s:
        next_s = time.monotonic() + PERIOD_S
        version += 1
        publish_tree(directory, tree(version))
        time.sleep(max(next_s - time.monotonic(), 0))
    return version


COUNT_REQUESTS = f"""
cd /cvmfs/{FQRN}
while read -r word; do
    find kept -type f -exec cat {{}} + | cksum >&2
    echo "$(getfattr -n user.revision --only-values .)" \\
        $(getfattr -n user.fuse_requests --only-values . |
            grep -e LOOKUP -e READ -e OPEN)
done
"""


def test_what_is_untouched_is_not_asked_for_again(published: Published) -> None:
    line = published.install.line("cvmfsexec", FQRN, "--", "sh", "-c", COUNT_REQUESTS)
    ours, theirs = os.pipe()
    process = published.install.start(*line, stdin=ours)
    os.close(ours)
    assert process.stdout is not None
    errors: list[str] = []
    drain = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    drain.start()

    def count() -> tuple[str, list[str]]:
        os.write(theirs, b"count\n")
        revision, *requests = process.stdout.readline().split()  # type: ignore[union-attr]
        return revision, requests

    try:
        count()
        counted = [count()]
        for version in range(2, 5):
            publish_tree(published.directory, tree(version))
            deadline_s = time.monotonic() + PATIENCE_S
            while (latest := count())[0] != str(version):
                assert time.monotonic() < deadline_s
                time.sleep(0.2)
            counted.append(latest)
    finally:
        os.close(theirs)
        process.wait(PATIENCE_S)
        drain.join()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    assert [revision for revision, _ in counted] == ["1", "2", "3", "4"]
    # A kernel may drop any cached page at any time, and then asks for it again.
    assert any(before == after for (_, before), (_, after) in pairwise(counted)), (
        counted
    )
