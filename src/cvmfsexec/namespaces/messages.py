"""What the processes of a session say to each other, and how it crosses a pipe.

A message is written by one ``write`` of at most PIPE_BUF bytes, which the kernel keeps
in one piece however many processes write to the pipe. Its texts are cut to fit.
"""

import contextlib
import os
import struct
from enum import Enum
from typing import NamedTuple

from cvmfsexec.errors import FormatError, NamespaceError
from cvmfsexec.namespaces.syscalls import refusal_of

PIPE_BUF = 4096
"""Linux' value of what a pipe takes in one piece."""

_TEXT_BYTES_MAX = 1900
_NAME_BYTES_MAX = 80
"""Two texts, two names, a topic and a number of these sizes stay below PIPE_BUF."""

_LENGTH = struct.Struct("<H")


class Topic(Enum):
    """What a message is about; the comment says which other fields it uses."""

    FOUNDED = "founded"  # number: pid of init
    SETTLED = "settled"  # the namespaces can be used
    REFUSED = "refused"  # syscall, number: errno, text
    READY = "ready"  # sender: service
    ABSENT = "absent"  # sender: service
    FAILED = "failed"  # sender: service, number: its exit status, text, hint
    LOST = "lost"  # text: which process ended without being asked to
    NAMED = "named"  # sender: a short name, text: the complete one
    STARTED = "started"  # the payload is the user again, where it is to be
    ENDED = "ended"  # number: exit status of the payload


class Message(NamedTuple):
    """One statement by one process."""

    topic: Topic
    sender: str = ""
    number: int = 0
    syscall: str = ""
    text: str = ""
    hint: str = ""


def encode(message: Message) -> bytes:
    """Return a message as it crosses a pipe."""
    body = b"\0".join(
        (
            message.topic.value.encode(),
            _clean(message.sender, _NAME_BYTES_MAX),
            str(message.number).encode(),
            _clean(message.syscall, _NAME_BYTES_MAX),
            _clean(message.text, _TEXT_BYTES_MAX),
            _clean(message.hint, _TEXT_BYTES_MAX),
        )
    )
    return _LENGTH.pack(len(body)) + body


def decode(body: bytes) -> Message:
    """Read what follows the length of a message.

    Raises:
        FormatError: Not written by ``encode``.
    """
    fields = [part.decode("utf-8", "surrogateescape") for part in body.split(b"\0")]
    try:
        topic, sender, number, syscall, text, hint = fields
        return Message(Topic(topic), sender, int(number), syscall, text, hint)
    except ValueError as error:
        raise FormatError("garbled message between processes") from error


def about_refusal(error: NamespaceError | OSError) -> Message:
    """Return the message that carries an error to the process above."""
    if isinstance(error, OSError):
        error = refusal_of(error)
    return Message(
        Topic.REFUSED, number=error.errno, syscall=error.syscall, text=str(error)
    )


def refusal_in(message: Message) -> NamespaceError:
    """Return the error that a message carries."""
    return NamespaceError(message.text, syscall=message.syscall, errno=message.number)


def send(descriptor: int, message: Message) -> None:
    """Write a message to a pipe; a reader that has gone is no error."""
    send_bytes(descriptor, encode(message))


def send_bytes(descriptor: int, data: bytes) -> None:
    """Write to a pipe in one piece; a reader that has gone is no error."""
    with contextlib.suppress(BrokenPipeError):  # nobody is left to act on it
        os.write(descriptor, data)


class Mailbox:
    """The reading end of a pipe that messages arrive in.

    Attributes:
        descriptor: The reading end; its owner closes it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._received = b""

    def receive(self) -> Message | None:
        """Wait for the next message; None when nobody is left who could write one."""
        while (message := self._take_message()) is None:
            data = os.read(self.descriptor, PIPE_BUF)
            if not data:
                return None
            self._received += data
        return message

    def drain(self) -> list[Message]:
        """Return what has arrived, without waiting; the descriptor is non-blocking."""
        try:
            while data := os.read(self.descriptor, PIPE_BUF):
                self._received += data
        except BlockingIOError:
            pass
        messages = []
        while (message := self._take_message()) is not None:
            messages.append(message)
        return messages

    def _take_message(self) -> Message | None:
        if len(self._received) < _LENGTH.size:
            return None
        end = _LENGTH.size + int(_LENGTH.unpack_from(self._received)[0])
        if len(self._received) < end:
            return None
        body = self._received[_LENGTH.size : end]
        self._received = self._received[end:]
        return decode(body)


def _clean(text: str, bytes_max: int) -> bytes:
    return text.replace("\0", "").encode("utf-8", "surrogateescape")[:bytes_max]
