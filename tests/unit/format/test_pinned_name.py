import re
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.pinned_name import (
    DATE,
    PIN_PARAMETERS,
    ROOT_HASH,
    TAG,
    Pin,
    PinnedName,
    parse_date,
    parse_pin,
    parse_pinned_name,
)

SHA1 = "5798f7f4ca7585d850eea64610a1f73d8f8de7a3"
REPOSITORY = "software.example.org"


@pytest.mark.parametrize(
    ("typed", "parameter", "value"),
    [
        ("v1", TAG, "v1"),
        ("trunk-previous", TAG, "trunk-previous"),
        (
            "generic-2024-10-18T09:30:12Z",
            TAG,
            "generic-2024-10-18T09:30:12Z",
        ),
        ("release/1.2_3:x", TAG, "release/1.2_3:x"),
        ("20260131", TAG, "20260131"),
        (SHA1[:-1], TAG, SHA1[:-1]),
        ("2026-01-31", DATE, "2026-01-31T23:59:59Z"),
        ("2026-01-31T12:00Z", DATE, "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:59Z", DATE, "2026-01-31T12:00:59Z"),
        (SHA1, ROOT_HASH, SHA1),
        (f"{SHA1}-shake128", ROOT_HASH, f"{SHA1}-shake128"),
    ],
)
def test_a_revision_is_told_by_its_looks(
    typed: str, parameter: str, value: str
) -> None:
    wanted = PinnedName(REPOSITORY, Pin(parameter, value))
    assert parse_pinned_name(f"{REPOSITORY}@{typed}") == wanted


def test_a_name_alone_is_not_pinned() -> None:
    assert parse_pinned_name(REPOSITORY) == PinnedName(REPOSITORY, None)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "two words",
        "new\nline",
        "a@b",
        "v" * 256,
        "tag*",
        "2026-02-30",
        "2026-13-01",
        "2026-01-31T25:00Z",
        f"{SHA1}-md5",
        "\u0662\u0660\u0662\u0666-\u0660\u0661-\u0663\u0661",
        "v1 ",
    ],
)
def test_what_no_revision_is_called_is_refused(typed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_pinned_name(f"{REPOSITORY}@{typed}")
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-31", "2026-01-31T12:00Z", "2026-02-30T00:00:00Z", "0000-01-01T0"],
)
def test_only_the_whole_form_is_a_date_of_the_original(text: str) -> None:
    assert parse_date(text) is None


def test_a_date_is_in_utc() -> None:
    assert parse_date("1970-01-02T00:00:01Z") == 86401


@given(st.datetimes())
def test_any_moment_can_be_typed(moment: datetime) -> None:
    text = moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%dT%H:%M:%SZ")
    pin = parse_pin(text)
    assert pin == Pin(DATE, text)
    assert parse_date(pin.value) is not None
    day = parse_pin(text[:10])
    assert day.value[:10] == text[:10]
    assert (parse_date(day.value) or 0) >= (parse_date(text) or 0)


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9._/:-]{1,80}", fullmatch=True))
def test_any_text_is_a_revision_or_refused(text: str) -> None:
    try:
        parameter, value = parse_pin(text)
    except ConfigurationError:
        return
    assert parameter in PIN_PARAMETERS
    assert re.fullmatch(r"[A-Za-z0-9._/:-]{1,255}", value)
    if parameter != DATE:
        assert value == text
