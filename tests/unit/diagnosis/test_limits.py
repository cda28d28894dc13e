"""Limits that sessions inherit."""

import resource
from collections.abc import Iterator

import pytest

from cvmfsexec.diagnosis.finding import State
from cvmfsexec.diagnosis.limits import FILES_MIN, examine_limits


@pytest.fixture
def files() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def state_of_files() -> State:
    return next(one.state for one in examine_limits() if "files" in one.subject)


def test_a_low_limit_of_files_is_a_warning(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MIN - 1, files))
    assert state_of_files() is State.WARNING


def test_a_sufficient_limit_of_files_is_good(files: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MIN, files))
    assert state_of_files() is State.GOOD
