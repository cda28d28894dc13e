"""Gauges as programs that watch are told of them."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.gauges import (
    LATENCY_BUCKETS,
    Failure,
    FileRead,
    Gauges,
    SlowObject,
    parse_gauges,
)

COUNTS = st.integers(0, 2**63 - 1)
SECONDS = st.floats(0, 2**40, allow_nan=False)
TEXTS = st.text(max_size=40)
GAUGES = st.builds(
    Gauges,
    at_s=SECONDS,
    fqrn=TEXTS,
    pid=COUNTS,
    revision=COUNTS,
    requests=st.dictionaries(TEXTS, COUNTS, max_size=5),
    latencies=st.lists(COUNTS, max_size=LATENCY_BUCKETS).map(tuple),
    opened=COUNTS,
    missed=COUNTS,
    downloads=COUNTS,
    received_bytes=COUNTS,
    transfer_s=SECONDS,
    io_errors=COUNTS,
    server=TEXTS,
    proxy=TEXTS,
    cache_used_bytes=COUNTS,
    cache_limit_bytes=COUNTS,
    slowest=st.lists(st.builds(SlowObject, TEXTS, SECONDS, COUNTS), max_size=3).map(
        tuple
    ),
    files=st.lists(st.builds(FileRead, TEXTS, COUNTS, COUNTS, SECONDS), max_size=3).map(
        tuple
    ),
    failures=st.lists(st.builds(Failure, SECONDS, TEXTS), max_size=3).map(tuple),
)
PLAIN = Gauges(at_s=1.5, fqrn="a.example.org")


@given(GAUGES)
def test_what_is_written_is_read_again(gauges: Gauges) -> None:
    line = gauges.serialize()
    assert b"\n" not in line
    assert parse_gauges(line) == gauges


@given(st.binary(max_size=200))
def test_any_bytes_are_gauges_or_refused(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        parse_gauges(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at_s", "now"),
        ("at_s", -1),
        ("at_s", math.nan),
        ("at_s", math.inf),
        ("fqrn", 7),
        ("fqrn", "x" * 5000),
        ("pid", -1),
        ("pid", True),
        ("opened", 1.5),
        ("opened", 2**63),
        ("requests", []),
        ("requests", {"READ": "many"}),
        ("latencies", [0] * (LATENCY_BUCKETS + 1)),
        ("latencies", {}),
        ("slowest", [["name", 1.0]]),
        ("files", [["path", 1, 1, "long"]]),
        ("failures", "all"),
    ],
)
def test_a_field_of_another_kind_is_refused(field: str, value: object) -> None:
    fields = {**PLAIN._asdict(), field: value}
    with pytest.raises(FormatError):
        parse_gauges(json.dumps(fields).encode())


def test_fields_of_newer_versions_are_passed_over() -> None:
    fields = {**PLAIN._asdict(), "colour": "red"}
    assert parse_gauges(json.dumps(fields).encode()) == PLAIN


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"at_s": 1}', b"[" * 100_000])
def test_what_is_of_no_file_server_is_refused(line: bytes) -> None:
    with pytest.raises(FormatError):
        parse_gauges(line)
