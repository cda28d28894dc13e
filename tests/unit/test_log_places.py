"""Places for messages: what the system's log is told, and what cannot be opened."""

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec import log_places
from cvmfsexec.log import LogPlaces

LOCAL_3 = 19
PRIORITIES = {"debug": 7, "info": 6, "notice": 5}


@pytest.fixture
def listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    path = str(tmp_path / "log.socket")
    monkeypatch.setattr(log_places, "SYSLOG_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.settimeout(10)
        yield listening


@pytest.mark.parametrize("priority", PRIORITIES)
def test_system_log_is_told_as_by_the_original(
    listener: socket.socket, priority: str
) -> None:
    places = LogPlaces("a.example.org", "", "", LOCAL_3, priority)
    with_handler(places, logging.INFO, "switched")
    expected = f"<{LOCAL_3 * 8 + PRIORITIES[priority]}>cvmfs2: (a.example.org) switched"
    assert listener.recv(1024).rstrip(b"\0").decode() == expected
    with_handler(places, logging.ERROR, "gave up")
    expected = f"<{LOCAL_3 * 8 + 3}>cvmfs2: (a.example.org) gave up"
    assert listener.recv(1024).rstrip(b"\0").decode() == expected


def with_handler(places: LogPlaces, level: int, message: str) -> None:
    (handler,) = log_places.open_places(*places)
    handler.handle(logging.LogRecord("x", level, "", 0, message, None, None))
    handler.close()


def test_listener_that_went_away_does_no_harm(listener: socket.socket) -> None:
    (handler,) = log_places.open_places("a", syslog_facility=1)
    listener.close()
    handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "told", None, None))
    handler.close()


def test_file_that_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below_a_file = str(tmp_path / "file/log")
    good = str(tmp_path / "debug")
    (handler,) = log_places.open_places("a", below_a_file, good)
    assert handler.level == logging.DEBUG
    handler.close()
