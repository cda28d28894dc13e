import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.format.ripemd160 import Ripemd160


def rmd160(data: bytes) -> str:
    hasher = Ripemd160()
    hasher.update(data)
    return hasher.digest().hex()


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
        (b"a", "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe"),
        (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        (b"message digest", "5d0689ef49d2fae572b881b123a85ffa21595f36"),
        (
            b"abcdefghijklmnopqrstuvwxyz",
            "f71c27109c692c1b56bbdceb5b9d2865b3708dbc",
        ),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "12a053384a9c0c88e405a06c27dcf49ada62eb2b",
        ),
        (
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            "b0e20b6e3116640286ed3a87a5713079b21f5189",
        ),
        (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
    ],
)
def test_digests_are_those_of_the_paper(data: bytes, digest: str) -> None:
    assert rmd160(data) == digest


@given(st.binary(max_size=300))
def test_digests_are_those_of_openssl(data: bytes) -> None:
    try:
        expected = hashlib.new("ripemd160", data, usedforsecurity=False)
    except ValueError:
        pytest.skip("this OpenSSL does not offer ripemd160")
    assert rmd160(data) == expected.hexdigest()


@pytest.mark.parametrize("length", [54, 55, 56, 57, 63, 64, 65, 119, 120, 128])
def test_lengths_around_the_padding_may_come_in_pieces(length: int) -> None:
    data = bytes(range(length))
    hasher = Ripemd160()
    for at in range(0, length, 7):
        hasher.update(memoryview(data)[at : at + 7])
    assert hasher.digest().hex() == rmd160(data)


def test_asking_does_not_end_the_hash() -> None:
    hasher = Ripemd160()
    hasher.update(bytearray(b"ab"))
    hasher.digest()
    hasher.update(b"c")
    assert hasher.digest().hex() == rmd160(b"abc")
