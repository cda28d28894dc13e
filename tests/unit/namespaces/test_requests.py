"""Requests from inside: what is one, who waits for the answer, what is closed."""

import os
import socket
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError, SessionError
from cvmfsexec.namespaces import requests
from cvmfsexec.namespaces.messages import Message, Topic
from cvmfsexec.namespaces.requests import Request, Verb
from tests.support.descriptors import descriptor_count

NAMES = r"[A-Za-z0-9_]([A-Za-z0-9_-]|[.][A-Za-z0-9_-]){0,29}"
MOUNT = Request(Verb.MOUNT, "atlas.cern.ch")


@pytest.fixture
def channel() -> Iterator[tuple[int, socket.socket]]:
    heard, asked = requests.make_channel()
    with socket.socket(fileno=asked) as client:
        yield heard, client
    os.close(heard)


def send(client: socket.socket, data: bytes, *descriptors: int) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors).tobytes())
    client.sendmsg([data], [rights] if descriptors else [])


@given(st.sampled_from(Verb), st.from_regex(NAMES, fullmatch=True))
def test_what_is_written_is_read(verb: Verb, name: str) -> None:
    request = Request(verb, name)
    assert requests.parse_request(requests.encode_request(request)) == request


@given(st.binary())
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        request = requests.parse_request(data)
    except FormatError:
        return
    assert requests.encode_request(request) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MOUNTREPO",
        b"MOUNTREPO ",
        b"MOUNTREPO a.b ",
        b"MOUNTREPO a.b\n",
        b"MOUNTREPO ../x",
        b"MOUNTREPO .hidden",
        b"MOUNTREPO -z",
        b"MOUNTREPO a..b",
        b"MOUNTREPO " + b"a" * 61,
        b"UMOUNTALL",
        b"PID 1",
        "MOUNTREPO ä.b".encode(),
    ],
)
def test_nothing_else_is_a_request(data: bytes) -> None:
    with pytest.raises(FormatError):
        requests.parse_request(data)


def test_the_answer_takes_the_way_that_came_along(
    channel: tuple[int, socket.socket],
) -> None:
    heard, client = channel
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send(client, requests.encode_request(MOUNT), theirs.fileno())
    theirs.close()
    received = requests.receive(heard)
    assert received is not None
    data, requester = received
    assert requests.parse_request(data) == MOUNT
    assert requester is not None
    assert not requester.is_gone
    requester.answer(Message(Topic.READY, "atlas.cern.ch"))
    assert b"ready" in ours.recv(4096)
    assert ours.recv(1) == b""
    ours.close()


def test_nothing_to_hear_is_no_error(channel: tuple[int, socket.socket]) -> None:
    assert requests.receive(channel[0]) is None


@pytest.mark.parametrize("count", [0, 2, 8, 20])
def test_any_other_number_of_descriptors_is_closed(
    channel: tuple[int, socket.socket], count: int
) -> None:
    heard, client = channel
    before = descriptor_count()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send(client, b"MOUNTREPO a.b", *[theirs.fileno()] * count)
    theirs.close()
    assert requests.receive(heard) == (b"MOUNTREPO a.b", None)
    assert ours.recv(1) == b""
    ours.close()
    assert descriptor_count() == before


@pytest.mark.parametrize("kind", ["pipe", "stream", "network"])
def test_what_cannot_be_answered_safely_is_closed(
    channel: tuple[int, socket.socket], kind: str
) -> None:
    heard, client = channel
    before = descriptor_count()
    if kind == "pipe":
        first, second = os.pipe()
    elif kind == "stream":
        first, second = (one.detach() for one in socket.socketpair())
    else:
        first, second = (socket.socket(socket.AF_INET).detach() for _ in range(2))
    send(client, b"MOUNTREPO a.b", second)
    os.close(second)
    assert requests.receive(heard) == (b"MOUNTREPO a.b", None)
    os.close(first)
    assert descriptor_count() == before


def test_a_long_datagram_is_no_request(channel: tuple[int, socket.socket]) -> None:
    heard, client = channel
    client.send(b"MOUNTREPO a.b" + b" " * 5000)
    received = requests.receive(heard)
    assert received is not None
    with pytest.raises(FormatError):
        requests.parse_request(received[0])


def test_a_requester_that_is_gone_is_seen_and_answered_without_harm(
    channel: tuple[int, socket.socket],
) -> None:
    heard, client = channel
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    send(client, b"MOUNTREPO a.b", theirs.fileno())
    theirs.close()
    received = requests.receive(heard)
    assert received is not None
    requester = received[1]
    assert requester is not None
    ours.close()
    assert requester.is_gone
    requester.answer(Message(Topic.READY))


def test_nobody_hears(channel: tuple[int, socket.socket]) -> None:
    with pytest.raises(SessionError, match="closed"):
        requests.ask(999_999, MOUNT)
    with open("/dev/null", "rb") as file, pytest.raises(SessionError):
        requests.ask(file.fileno(), MOUNT)
    heard, asked = requests.make_channel()
    os.close(heard)
    with pytest.raises(SessionError, match="does not answer"):
        requests.ask(asked, MOUNT)
    os.close(asked)
    assert requests.is_channel(channel[1].fileno())
    assert not requests.is_channel(999_999)


def test_the_end_for_requests_has_the_wanted_number_or_the_next() -> None:
    first, second = requests.make_channel(700), requests.make_channel(700)
    assert (first[1], second[1]) == (700, 701)
    for descriptor in (*first, *second):
        os.close(descriptor)
