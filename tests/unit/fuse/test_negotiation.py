import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.fuse.negotiation import (
    WANTED,
    InitRequest,
    Terms,
    negotiate,
    version_reply,
)
from cvmfsexec.fuse.protocol import Feature
from tests.support.fuse_messages import INIT, answer, init_request, request

ALL = 2**64 - 1
LINUX_6_18 = 0x73FFFFFB


def _offer(features: int, *, minor: int = 45) -> InitRequest:
    return InitRequest(7, minor, 131072, features)


def _reply(terms: Terms) -> tuple[int, ...]:
    fields = struct.unpack("=IIIIHHIIHHI28x", answer(terms.reply(3)).body)
    return tuple(int(field) for field in fields)


def test_everything_wanted_is_used_where_everything_is_offered() -> None:
    terms = negotiate(_offer(ALL))

    assert terms is not None
    assert terms.features == WANTED
    assert not terms.uses(Feature.READDIRPLUS_AUTO)


@pytest.mark.parametrize("bit", range(64))
def test_a_feature_that_is_not_offered_is_not_used(bit: int) -> None:
    terms = negotiate(_offer(ALL & ~(1 << bit)))

    assert terms is not None
    assert not terms.uses(1 << bit)


@pytest.mark.parametrize("bit", range(64))
def test_a_masked_feature_is_not_used(bit: int) -> None:
    terms = negotiate(_offer(ALL), mask=~(1 << bit))

    assert terms is not None
    assert not terms.uses(1 << bit)


def test_without_init_ext_there_are_no_flags_above_31() -> None:
    terms = negotiate(_offer(ALL & ~Feature.INIT_EXT))

    assert terms is not None
    assert terms.features >> 32 == 0


def test_flags2_are_read_only_under_init_ext() -> None:
    high = Feature.HAS_EXPIRE_ONLY
    assert InitRequest.parse(init_request(Feature.INIT_EXT | high)).features & high
    assert not InitRequest.parse(init_request(high)).features & high


def test_init_of_an_old_kernel_is_shorter() -> None:
    body = struct.pack("=IIII", 7, 22, 131072, Feature.ASYNC_READ)

    parsed = InitRequest.parse(request(INIT, 0, body))

    assert parsed == InitRequest(7, 22, 131072, Feature.ASYNC_READ)


def test_reply_of_a_new_kernel() -> None:
    terms = negotiate(_offer(LINUX_6_18))

    assert terms is not None
    assert _reply(terms) == (
        7,
        45,
        131072,
        WANTED & LINUX_6_18,
        64,
        48,
        4096,
        1,
        256,
        0,
        0,
    )


def test_max_pages_is_only_set_with_its_flag() -> None:
    terms = negotiate(_offer(ALL & ~Feature.MAX_PAGES))

    assert terms is not None
    assert _reply(terms)[8] == 0


@pytest.mark.parametrize(
    ("minor", "body_bytes"), [(12, 24), (22, 24), (23, 64), (31, 64), (45, 64)]
)
def test_length_of_the_reply_fits_the_kernel(minor: int, body_bytes: int) -> None:
    terms = negotiate(_offer(ALL, minor=minor))

    assert terms is not None
    assert len(answer(terms.reply(3)).body) == body_bytes


@pytest.mark.parametrize(
    ("kernel", "minor_max", "used"), [(45, 31, 31), (23, 45, 23), (99, 45, 45)]
)
def test_the_smaller_minor_version_is_used(
    kernel: int, minor_max: int, used: int
) -> None:
    terms = negotiate(_offer(ALL, minor=kernel), minor_max=minor_max)

    assert terms is not None
    assert terms.minor == used


def test_a_newer_major_version_is_told_ours() -> None:
    assert negotiate(InitRequest(8, 0, 0, ALL)) is None
    assert struct.unpack_from("=II", answer(version_reply(5)).body) == (7, 45)


@pytest.mark.parametrize(("major", "minor"), [(6, 99), (7, 11)])
def test_a_protocol_that_is_too_old_is_refused(major: int, minor: int) -> None:
    with pytest.raises(FormatError, match=rf"{major}\.{minor}"):
        negotiate(InitRequest(major, minor, 0, ALL))


@given(st.binary(max_size=120))
def test_any_init_request_is_read_or_refused(blob: bytes) -> None:
    try:
        parsed = InitRequest.parse(blob)
        negotiate(parsed)
    except FormatError:
        return
    assert 0 <= parsed.features < 2**64
