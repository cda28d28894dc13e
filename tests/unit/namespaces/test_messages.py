import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError, NamespaceError
from cvmfsexec.namespaces.messages import (
    PIPE_BUF,
    Mailbox,
    Message,
    Topic,
    about_refusal,
    decode,
    encode,
    refusal_in,
    send,
)

texts = st.text(st.characters(exclude_characters="\0"), max_size=300)
any_message = st.builds(
    Message,
    topic=st.sampled_from(Topic),
    sender=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=60),
    number=st.integers(-(2**31), 2**31),
    syscall=st.sampled_from(["", "mount", "unshare"]),
    text=texts,
    hint=texts,
)


@given(any_message)
def test_encoded_message_decodes_to_itself(message: Message) -> None:
    assert decode(encode(message)[2:]) == message


@given(st.text(min_size=1000), st.text(min_size=1000), st.text(min_size=100))
def test_longest_message_crosses_a_pipe_in_one_piece(
    text: str, hint: str, name: str
) -> None:
    message = Message(Topic.FAILED, name * 99, 2**40, "call" * 99, text * 9, hint * 9)
    assert len(encode(message)) <= PIPE_BUF


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_format_error(body: bytes) -> None:
    with contextlib.suppress(FormatError):
        decode(body)


def test_surrogates_of_a_strange_path_survive() -> None:
    message = Message(Topic.REFUSED, text="cannot enter /tmp/\udcff")
    assert decode(encode(message)[2:]) == message


def test_refusal_keeps_its_facts() -> None:
    error = NamespaceError("cannot mount x", syscall="mount", errno=1)
    copy = refusal_in(decode(encode(about_refusal(error))[2:]))
    assert (str(copy), copy.syscall, copy.errno) == ("cannot mount x", "mount", 1)


def test_mailbox_returns_messages_in_order_and_then_none() -> None:
    reading, writing = os.pipe()
    sent = [Message(Topic.READY, "a"), Message(Topic.ENDED, number=3)]
    for message in sent:
        send(writing, message)
    os.close(writing)
    mailbox = Mailbox(reading)
    received = [mailbox.receive(), mailbox.receive(), mailbox.receive()]
    os.close(reading)
    assert received == [*sent, None]


def test_mailbox_puts_split_messages_together() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    mailbox = Mailbox(reading)
    message = Message(Topic.LOST, text="gone")
    seen = []
    for byte in encode(message) * 2:
        os.write(writing, bytes([byte]))
        seen += mailbox.drain()
    os.close(reading)
    os.close(writing)
    assert seen == [message, message]


def test_sending_to_nobody_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    send(writing, Message(Topic.READY))
    os.close(writing)


@pytest.mark.parametrize(
    "body", [b"", b"ready", b"ready\0\0x\0\0\0", b"no\0\0" + b"1\0\0\0"]
)
def test_garbled_message_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError):
        decode(body)
