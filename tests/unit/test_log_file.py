"""The log file of a file server, which stays short."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from cvmfsexec.log_file import LimitedFile

LIMIT_BYTES = 2000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.example.org.log"


@pytest.fixture
def handler(path: Path) -> Iterator[LimitedFile]:
    made = LimitedFile(str(path), LIMIT_BYTES)
    yield made
    made.close()


def say(handler: LimitedFile, text: str) -> None:
    handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, text, None, None))


def test_a_long_file_is_moved_aside_and_two_are_kept(
    handler: LimitedFile, path: Path
) -> None:
    for number in range(1000):
        say(handler, f"message {number}")
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "a.example.org.log",
        "a.example.org.log.1",
    ]
    assert path.stat().st_size < LIMIT_BYTES + 20
    assert path.read_text().endswith("message 999\n")


def test_a_file_that_was_moved_or_removed_is_made_again(
    handler: LimitedFile, path: Path
) -> None:
    say(handler, "one")
    path.rename(path.parent / "elsewhere")
    say(handler, "two")
    assert path.read_text() == "two\n"
    path.unlink()
    say(handler, "three")
    assert path.read_text() == "three\n"


def write_many(path: str, name: str) -> None:
    handler = LimitedFile(path, LIMIT_BYTES)
    for number in range(300):
        say(handler, f"{name} {number:04}")
    handler.close()


def test_several_processes_share_a_file(path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        for name in "abcd":
            pool.submit(write_many, str(path), name)
    lines = path.read_text().splitlines()
    lines += Path(f"{path}.1").read_text().splitlines()
    assert all(line[0] in "abcd" and len(line) == 6 for line in lines)
    assert path.stat().st_size < LIMIT_BYTES + 100


def test_a_directory_that_cannot_be_written_any_more_does_no_harm(
    handler: LimitedFile, path: Path
) -> None:
    path.unlink()
    os.rmdir(path.parent)
    say(handler, "lost")
