"""Wheels: what pip is asked for, and what is taken out of them."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.distribution.wheels import Platform, parse_wheel
from cvmfsexec.errors import FormatError


def wheel(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_pip_is_asked_for_what_the_libc_can_run_newest_first() -> None:
    options = Platform("aarch64", "3.12", 19).options
    assert options == (
        "--platform=manylinux_2_19_aarch64",
        "--platform=manylinux_2_18_aarch64",
        "--platform=manylinux_2_17_aarch64",
        "--platform=manylinux2014_aarch64",
        "--python-version=3.12",
        "--implementation=cp",
        "--abi=cp312",
        "--abi=abi3",
        "--abi=none",
        "--only-binary=:all:",
    )


def test_modules_are_taken_wherever_they_are_kept() -> None:
    entries = parse_wheel(
        wheel(
            {
                "a/__init__.py": b"1",
                "x-1.data/purelib/b.py": b"2",
                "x-1.data/platlib/c.so": b"3",
                "x-1.data/scripts/tool": b"4",
                "x-1.dist-info/METADATA": b"5",
            }
        )
    )
    assert {entry.path: entry.content for entry in entries} == {
        b"a/__init__.py": b"1",
        b"b.py": b"2",
        b"c.so": b"3",
        b"x-1.dist-info/METADATA": b"5",
    }


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//b", "x" * 300])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="forbidden path"):
        parse_wheel(wheel({name: b""}))


def test_what_lies_below_a_file_is_refused() -> None:
    with pytest.raises(FormatError, match="below a file"):
        parse_wheel(wheel({"a": b"", "a/b": b""}))


def test_what_is_no_wheel_is_refused() -> None:
    whole = wheel({"a.py": b"1" * 100})
    for data in (b"", b"no wheel", whole[:-10], whole.replace(b"1111", b"1211", 1)):
        with pytest.raises(FormatError):
            parse_wheel(data)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=6))
def test_a_damaged_wheel_is_read_or_refused(at: int, damage: bytes) -> None:
    data = bytearray(wheel({"a.py": b"1" * 50, "b/c.py": b"2"}))
    data[at : at + len(damage)] = damage
    try:
        entries = parse_wheel(bytes(data))
    except FormatError:
        return
    assert all(b".." not in entry.path.split(b"/") for entry in entries)
