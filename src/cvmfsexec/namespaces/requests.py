"""What a session is asked from inside, and how it answers.

A payload inherits one end of a pair of datagram sockets; its number is in
``CVMFSEXEC_CMDFD``. A request is one datagram, a word and the name of a repository, and
carries a socket on which the answer is wanted. So answers find their requesters however
many there are, and one that is gone disturbs nobody. Whoever is not to ask has the
descriptor closed.

What arrives at init is hostile until checked: the bytes, and what comes with them.
The answer is a ``Message``: READY, FAILED, LOST, or REFUSED with an errno.

``_socket`` is the C half of ``socket``, which would take a tenth of a warm start.
"""

import _socket
import fcntl
import os
import struct
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from cvmfsexec.errors import FormatError, SessionError
from cvmfsexec.namespaces import messages
from cvmfsexec.namespaces.messages import PIPE_BUF, Message, Topic

DESCRIPTOR_VARIABLE = "CVMFSEXEC_CMDFD"
DESCRIPTOR_WANTED = 12
"""The number that the original gives in practice."""

REQUEST_BYTES_MAX = 128
_RIGHTS_COUNT_MAX = 8  # more than the one that is right; the kernel drops the rest
_LENGTH_BYTES = 2


class Verb(Enum):
    """What can be asked; the words are the original's."""

    MOUNT = "MOUNTREPO"
    UNMOUNT = "UMOUNTREPO"


_NAME_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_NAME_BYTES_MAX = 60  # both as ``check_fqrn`` has them
_DESCRIPTOR = struct.Struct("=i")


class Request(NamedTuple):
    """One wish.

    Attributes:
        name: Of a repository, full or short.
    """

    verb: Verb
    name: str


def encode_request(request: Request) -> bytes:
    """Return a request as it is sent."""
    return f"{request.verb.value} {request.name}".encode("utf-8", "surrogateescape")


def parse_request(data: bytes) -> Request:
    """Read a request.

    Raises:
        FormatError: It is none.
    """
    word, _, name = data.partition(b" ")
    is_name = (
        0 < len(name) <= _NAME_BYTES_MAX
        and not name.startswith((b".", b"-"))
        and b".." not in name
        and not name.translate(None, _NAME_LETTERS)
    )
    if word not in (b"MOUNTREPO", b"UMOUNTREPO") or not is_name:
        raise FormatError("not a request that a session understands")
    return Request(Verb(word.decode()), name.decode())


class Requester:
    """Who waits for an answer, on a socket that came with the request."""

    def __init__(self, socket: _socket.socket) -> None:
        """Take the socket over."""
        self._socket = socket

    @property
    def descriptor(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits any more."""
        try:
            flags = _socket.MSG_DONTWAIT | _socket.MSG_PEEK
            return not self._socket.recv(1, flags)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def answer(self, message: Message) -> None:
        """Answer and let go; who does not listen goes without."""
        flags = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
        with suppress(OSError):
            self._socket.send(messages.encode(message), flags)
        self.let_go()

    def let_go(self) -> None:
        """Do not answer at all."""
        with suppress(OSError):
            self._socket.close()


def make_channel(wanted: int = 0) -> tuple[int, int]:
    """Return the end of the desk, and the end on which requests are made.

    Args:
        wanted: Number for the latter, if it is free; or else the next one.
    """
    heard, asked = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    inner = fcntl.fcntl(asked.fileno(), fcntl.F_DUPFD_CLOEXEC, wanted)
    asked.close()
    return heard.detach(), inner


def receive(channel: int) -> tuple[bytes, Requester | None] | None:
    """Return the next datagram and who waits for the answer; ``None`` if none is there.

    Args:
        channel: The end of init.
    """
    socket = _socket.socket(fileno=channel)
    try:
        data, ancillary, _, _ = socket.recvmsg(
            REQUEST_BYTES_MAX + 1,
            _socket.CMSG_SPACE(_RIGHTS_COUNT_MAX * _DESCRIPTOR.size),
            _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC,
        )
    except OSError:  # nothing, or too few descriptors left to receive any
        return None
    finally:
        socket.detach()
    return data, _requester_of(_descriptors_in(ancillary))


def ask(descriptor: int, request: Request) -> Message:
    """Make a request, and wait for the answer.

    Args:
        descriptor: The end on which requests are made.
        request: What is wanted.

    Raises:
        SessionError: Nothing can be requested there.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        channel = _channel_at(descriptor)
        rights = _DESCRIPTOR.pack(theirs.fileno())
        _send_and_close(channel, encode_request(request), rights)
        theirs.close()
        answer = ours.recv(PIPE_BUF)
        return messages.decode(answer[_LENGTH_BYTES:])
    except (OSError, FormatError) as error:
        raise SessionError("the session does not answer") from error
    finally:
        ours.close()
        theirs.close()


def ask_for_no_answer(descriptor: int, request: Request) -> None:
    """Make a request without waiting for anything; it may get lost."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    ours.close()
    with suppress(OSError, SessionError):
        channel = _channel_at(descriptor)
        rights = _DESCRIPTOR.pack(theirs.fileno())
        flags = _socket.MSG_DONTWAIT
        _send_and_close(channel, encode_request(request), rights, flags)
    theirs.close()


def _send_and_close(
    channel: _socket.socket, data: bytes, rights: bytes, flags: int = 0
) -> None:
    try:
        kind = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        channel.sendmsg([data], [(*kind, rights)], flags)
    finally:
        channel.close()


def is_channel(descriptor: int) -> bool:
    """Whether a descriptor may be an end on which requests are made."""
    try:
        _channel_at(descriptor).close()
    except (OSError, OverflowError, SessionError):
        return False
    return True


def _channel_at(descriptor: int) -> _socket.socket:
    try:
        channel = _socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise SessionError(
            f"nothing can be requested from the session: its descriptor {descriptor} "
            "was closed"
        ) from error
    if (channel.family, channel.type) != (_socket.AF_UNIX, _socket.SOCK_DGRAM):
        channel.close()
        raise SessionError(f"descriptor {descriptor} does not lead to a session")
    return channel


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = []
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            whole = data[: len(data) - len(data) % _DESCRIPTOR.size]
            found += [one for (one,) in _DESCRIPTOR.iter_unpack(whole)]
    return found


def _requester_of(received: list[int]) -> Requester | None:
    """Return who waits, if just one socket of the right kind came; close the rest."""
    sockets = []
    for descriptor in received:
        try:
            sockets.append(_socket.socket(fileno=descriptor))
        except OSError:  # not a socket
            with suppress(OSError):
                os.close(descriptor)
    right = (_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    if len(received) == 1 and [(one.family, one.type) for one in sockets] == [right]:
        return Requester(sockets[0])
    for one in sockets:
        with suppress(OSError):
            one.close()
    return None


def refusal(number: int, text: str) -> Message:
    """Return the answer to what the session will not do."""
    return Message(Topic.REFUSED, number=number, text=text)
