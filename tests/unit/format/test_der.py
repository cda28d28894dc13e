import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.der import (
    Certificate,
    Elements,
    RsaNumbers,
    parse_certificate,
    parse_public_key_info,
    parse_rsa_public_key,
)
from tests.support.der_values import (
    EXPONENT,
    INTEGER,
    MODULUS,
    NO_NAME,
    NULL,
    RSA,
    SEQUENCE,
    VERSION_3,
    CertificateParts,
    element,
    integer,
    public_key_info,
    rsa_public_key,
    sequence,
)

NUMBERS = RsaNumbers(MODULUS, EXPONENT)
V3 = CertificateParts()
V1 = V3._replace(version=b"")
REMARKS = sequence(sequence(bytes.fromhex("06082b06010505070301")))
EXTENSIONS = element(0xA3, sequence(sequence(b"\x06\3\x55\x1d\x13", b"\4\2\x30\0")))

naturals = st.integers(0, 1 << 5000)


@st.composite
def bent(draw: st.DrawFn, der: bytes) -> bytes:
    """Return ``der`` with some short pieces of it replaced."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(der)))
        end = start + draw(st.integers(0, 4))
        der = der[:start] + draw(st.binary(max_size=4)) + der[end:]
    return der


class TestElements:
    @pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536, 1 << 24])
    def test_any_length_is_read(self, size: int) -> None:
        elements = Elements(element(SEQUENCE, bytes(size)) + b"\2\1\7")
        assert len(elements.read(SEQUENCE)) == size
        assert elements.read(INTEGER) == b"\7"
        elements.finish()

    @pytest.mark.parametrize(
        "length",
        [
            pytest.param(b"\x80", id="indefinite"),
            pytest.param(b"\x81\x7f", id="long-form-of-a-short-one"),
            pytest.param(b"\x81\0", id="long-form-of-nothing"),
            pytest.param(b"\x82\0\x80", id="leading-zero"),
            pytest.param(b"\x82\1", id="cut-short"),
            pytest.param(b"\x85\0\0\0\0\x80", id="five-bytes-of-length"),
            pytest.param(b"\x85\1\0\0\0\0", id="beyond-memory"),
            pytest.param(b"\xff" + b"\1" * 127, id="reserved"),
        ],
    )
    def test_a_length_that_is_not_der_is_refused(self, length: bytes) -> None:
        rest = b"" if length == b"\x82\1" else bytes(300)
        with pytest.raises(FormatError, match="a length is not written as it must be"):
            Elements(bytes((SEQUENCE,)) + length + rest).read(SEQUENCE)

    @pytest.mark.parametrize(
        "der",
        [b"\x30", b"\x30\1", b"\x30\x81\x80" + bytes(127), b"\x30\x84" + b"\xff" * 9],
    )
    def test_what_is_cut_short_is_refused(self, der: bytes) -> None:
        with pytest.raises(FormatError, match="cut short"):
            Elements(der).read(SEQUENCE)

    @pytest.mark.parametrize("der", [b"", b"\x31\0", b"\x10\0", b"\x3f\x10\0"])
    def test_another_tag_is_refused(self, der: bytes) -> None:
        with pytest.raises(FormatError, match="no tag 0x30 at byte 0"):
            Elements(der).read(SEQUENCE)

    def test_an_optional_element_may_be_absent(self) -> None:
        elements = Elements(b"\2\1\7")
        assert elements.read_optional(SEQUENCE) is None
        assert elements.read_optional(INTEGER) == b"\7"
        assert elements.read_optional(INTEGER) is None
        elements.finish()

    def test_a_whole_element_includes_its_length(self) -> None:
        long = element(SEQUENCE, bytes(200))
        elements = Elements(b"\2\1\7" + long + b"\5\0")
        assert elements.read_whole(INTEGER) == b"\2\1\7"
        assert elements.read_whole(SEQUENCE) == long

    def test_what_is_left_over_is_refused(self) -> None:
        elements = Elements(b"\2\1\7\0")
        elements.read(INTEGER)
        with pytest.raises(FormatError, match="more than expected at byte 3"):
            elements.finish()


class TestRsaPublicKeys:
    @given(naturals, naturals)
    def test_a_written_key_parses_back(self, modulus: int, exponent: int) -> None:
        der = rsa_public_key(modulus, exponent)
        assert parse_rsa_public_key(der) == (modulus, exponent)
        assert parse_public_key_info(public_key_info(der)) == (modulus, exponent)

    @given(st.binary() | bent(rsa_public_key(0x8001, 3)))
    def test_there_is_one_way_to_write_a_key(self, der: bytes) -> None:
        with contextlib.suppress(FormatError):
            assert rsa_public_key(*parse_rsa_public_key(der)) == der

    @given(st.binary() | bent(public_key_info()))
    def test_any_bytes_are_a_key_or_a_format_error(self, der: bytes) -> None:
        with contextlib.suppress(FormatError):
            modulus, exponent = parse_public_key_info(der)
            assert min(modulus, exponent) >= 0

    @pytest.mark.parametrize(
        "contents",
        [
            pytest.param(b"", id="no-bytes"),
            pytest.param(b"\xff", id="negative"),
            pytest.param(b"\x80" + bytes(255), id="negative-modulus"),
            pytest.param(b"\0\1", id="zero-in-front"),
            pytest.param(b"\0\0\x80", id="two-zeros-in-front"),
        ],
    )
    def test_a_number_is_natural_and_short(self, contents: bytes) -> None:
        number = element(INTEGER, contents)
        for parts in ((number, integer(3)), (integer(MODULUS), number)):
            with pytest.raises(FormatError, match="a number is negative or longer"):
                parse_rsa_public_key(sequence(*parts))

    @pytest.mark.parametrize(
        "der",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(sequence(), id="no-number"),
            pytest.param(sequence(integer(MODULUS)), id="one-number"),
            pytest.param(sequence(*[integer(3)] * 3), id="three-numbers"),
            pytest.param(rsa_public_key() + b"\0", id="more-after-it"),
            pytest.param(public_key_info(), id="with-algorithm"),
        ],
    )
    def test_a_key_is_two_numbers(self, der: bytes) -> None:
        with pytest.raises(FormatError, match="not DER"):
            parse_rsa_public_key(der)


class TestPublicKeyInfo:
    def test_the_parameters_of_rsa_may_be_absent(self) -> None:
        assert parse_public_key_info(public_key_info(algorithm=RSA)) == NUMBERS

    @pytest.mark.parametrize(
        "algorithm",
        [
            pytest.param(b"", id="none"),
            pytest.param(
                bytes.fromhex("06072a8648ce3d020106082a8648ce3d030107"), id="ec"
            ),
            pytest.param(bytes.fromhex("06032b6570"), id="ed25519"),
            pytest.param(bytes.fromhex("06072a8648ce380401"), id="dsa"),
            pytest.param(bytes.fromhex("06092a864886f70d01010a"), id="rsa-pss-only"),
            pytest.param(bytes.fromhex("06092a864886f70d01010b0500"), id="signature"),
            pytest.param(RSA + NULL + NULL, id="parameters-twice"),
            pytest.param(RSA + b"\x05\1\0", id="null-that-is-something"),
            pytest.param(RSA + b"\x30\0", id="parameters"),
        ],
    )
    def test_another_algorithm_is_refused(self, algorithm: bytes) -> None:
        with pytest.raises(FormatError, match="not an RSA key"):
            parse_public_key_info(public_key_info(algorithm=algorithm))

    @pytest.mark.parametrize(
        "der",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(sequence(sequence(RSA, NULL)), id="no-key"),
            pytest.param(sequence(sequence(RSA, NULL), b"\3\0"), id="no-bits"),
            pytest.param(public_key_info(unused_bits=1), id="half-a-byte"),
            pytest.param(public_key_info(rsa_public_key() + b"\0"), id="more-in-it"),
            pytest.param(public_key_info() + b"\0", id="more-after-it"),
            pytest.param(
                sequence(sequence(RSA, NULL), b"\3\1\0", b"\5\0"), id="three-parts"
            ),
            pytest.param(rsa_public_key(), id="without-algorithm"),
        ],
    )
    def test_another_structure_is_refused(self, der: bytes) -> None:
        with pytest.raises(FormatError, match="not DER"):
            parse_public_key_info(der)


class TestCertificates:
    @pytest.mark.parametrize(
        "parts",
        [
            pytest.param(V3, id="v3"),
            pytest.param(V1, id="v1"),
            pytest.param(V3._replace(after_key=EXTENSIONS), id="extensions"),
            pytest.param(
                V3._replace(after_key=b"\x81\2\0\1\x82\2\0\2" + EXTENSIONS),
                id="unique-ids",
            ),
            pytest.param(V3._replace(serial=b"\2\1\xff"), id="negative-serial"),
            pytest.param(V3._replace(validity=sequence(b"\x17\0")), id="no-dates"),
        ],
    )
    def test_a_certificate_is_its_bytes_and_its_key(
        self, parts: CertificateParts
    ) -> None:
        assert parse_certificate(parts.der()) == Certificate(parts.der(), parts.key)

    def test_remarks_are_no_part_of_it(self) -> None:
        content = V1.der() + REMARKS
        parsed = parse_certificate(content, may_have_remarks=True)
        assert parsed == parse_certificate(V1.der(), may_have_remarks=True)
        assert parsed == parse_certificate(V1.der())
        with pytest.raises(FormatError, match="more than expected"):
            parse_certificate(content)
        with pytest.raises(FormatError, match="more than expected"):
            parse_certificate(content + REMARKS, may_have_remarks=True)

    @pytest.mark.parametrize(
        "version",
        [
            pytest.param(b"\xa0\3\2\1\0", id="the-default-spelt-out"),
            pytest.param(b"\xa0\3\2\1\1", id="2"),
            pytest.param(b"\xa0\3\2\1\3", id="4"),
            pytest.param(b"\xa0\4\2\2\0\2", id="long"),
            pytest.param(b"\xa0\0", id="none"),
            pytest.param(b"\xa0\6" + VERSION_3[2:] * 2, id="two"),
        ],
    )
    def test_another_version_is_refused(self, version: bytes) -> None:
        with pytest.raises(FormatError, match="neither version 1 nor 3"):
            parse_certificate(V3._replace(version=version).der())

    @pytest.mark.parametrize(
        "der",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(sequence(), id="no-body"),
            pytest.param(public_key_info(), id="a-public-key"),
            pytest.param(sequence(V3.body(), V3.algorithm), id="no-signature"),
            pytest.param(V3._replace(after_body=b"\0").der(), id="fourth-part"),
            pytest.param(V3._replace(version=VERSION_3 * 2).der(), id="two-versions"),
            pytest.param(V3._replace(serial=b"").der(), id="no-serial"),
            pytest.param(V3._replace(subject=b"").der(), id="no-subject"),
            pytest.param(V3._replace(subject=NO_NAME * 2).der(), id="two-subjects"),
            pytest.param(V3._replace(key=b"").der(), id="no-key"),
            pytest.param(V3._replace(after_key=b"\5\0").der(), id="unknown-part"),
            pytest.param(V3._replace(after_key=EXTENSIONS * 2).der(), id="twice"),
            pytest.param(
                V3._replace(after_key=EXTENSIONS + b"\x81\2\0\1").der(), id="order"
            ),
            pytest.param(b"\x30\x80" + V3.der()[4:] + bytes(2), id="indefinite"),
            pytest.param(V3.der() + b"\n", id="more-after-it"),
        ],
    )
    def test_another_structure_is_refused(self, der: bytes) -> None:
        with pytest.raises(FormatError, match="not DER"):
            parse_certificate(der)

    @pytest.mark.parametrize("end", range(0, len(V3.der()), 7))
    def test_a_certificate_cut_short_is_refused(self, end: int) -> None:
        with pytest.raises(FormatError, match="not DER"):
            parse_certificate(V3.der()[:end])

    @given(st.binary() | bent(V3._replace(after_key=EXTENSIONS).der() + REMARKS))
    def test_any_bytes_are_a_certificate_or_a_format_error(
        self, content: bytes
    ) -> None:
        with contextlib.suppress(FormatError):
            assert parse_certificate(content).der == content
        with contextlib.suppress(FormatError):
            parsed = parse_certificate(content, may_have_remarks=True)
            assert content.startswith(parsed.der)
            assert parsed.public_key_info in parsed.der


@pytest.mark.parametrize(
    "parse", [parse_certificate, parse_public_key_info, parse_rsa_public_key]
)
def test_depth_costs_nothing(parse: Callable[[bytes], object]) -> None:
    nest = b""
    for _ in range(5000):
        nest = sequence(nest)
    with pytest.raises(FormatError):
        parse(nest)
