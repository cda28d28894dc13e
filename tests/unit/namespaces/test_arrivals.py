"""Mounts of the host that come later: what is refused, and what the host is asked."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.errors import NamespaceError
from cvmfsexec.namespaces import requests
from cvmfsexec.namespaces.arrivals import Arrivals

POINT = "/cvmfs/a.example.org"


@pytest.fixture
def channel() -> Iterator[tuple[int, int]]:
    made = requests.make_channel()
    yield made
    for descriptor in made:
        os.close(descriptor)


def test_what_cannot_arrive_is_refused_with_the_reason(
    channel: tuple[int, int], tmp_path: Path
) -> None:
    for arrivals in (
        Arrivals(str(tmp_path), channel[1], is_shared=False),
        Arrivals(str(tmp_path), channel[1], is_shared=True),  # never opened
    ):
        with pytest.raises(NamespaceError, match=r"a\.example\.org: .*mode 2") as found:
            arrivals.make(POINT)
        assert found.value.errno == errno.EOPNOTSUPP


def test_the_host_hears_of_what_is_not_wanted_any_more(
    channel: tuple[int, int], tmp_path: Path
) -> None:
    Arrivals(str(tmp_path), channel[1], is_shared=True).clear(POINT)
    received = requests.receive(channel[0])
    assert received is not None
    data, requester = received
    assert data == b"UMOUNTREPO a.example.org"
    assert requester is not None
    assert requester.is_gone
    requester.let_go()


def test_a_host_that_is_gone_is_not_told(tmp_path: Path) -> None:
    outer, inner = requests.make_channel()
    os.close(outer)
    Arrivals(str(tmp_path), inner, is_shared=True).clear(POINT)
    os.close(inner)
    Arrivals(str(tmp_path), inner, is_shared=True).clear(POINT)


def test_a_host_that_does_not_listen_is_not_waited_for(
    channel: tuple[int, int], tmp_path: Path
) -> None:
    arrivals = Arrivals(str(tmp_path), channel[1], is_shared=True)
    for _ in range(2000):
        arrivals.clear(POINT)
