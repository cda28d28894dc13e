"""ELF files: those of this machine, of other machines, and broken ones."""

import _ctypes
import ctypes
import platform
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.errors import FormatError
from cvmfsexec.format.elf import loaded_part, parse_elf

SEEDS = Path(__file__).resolve().parents[3] / "fuzz/corpus/elf"


def test_needs_of_a_library_are_read() -> None:
    found = parse_elf((SEEDS / "library64").read_bytes())
    assert (found.machine, found.bits) == ("x86_64", 64)
    assert found.interpreter == "/lib64/ld.so"
    assert found.soname == "libme.so.1"
    assert found.needed == ("libc.so.6",)
    assert found.search_path == ("$ORIGIN/../x", "/lib")


def test_other_classes_and_byte_orders_are_read() -> None:
    found = parse_elf((SEEDS / "library32-big-endian").read_bytes())
    assert (found.machine, found.bits, found.needed) == ("20", 32, ("a", "b"))


def test_the_running_interpreter_names_its_loader() -> None:
    found = parse_elf(Path("/proc/self/exe").read_bytes())
    assert found.machine == platform.machine()
    assert found.interpreter.startswith("/")
    assert any(name.startswith("libc.so") for name in found.needed)


def test_what_only_debuggers_read_is_cut_off(tmp_path: Path) -> None:
    """Whatever is cut off, the dynamic loader does not miss it."""
    module = Path(_ctypes.__file__).read_bytes()
    part = loaded_part(module)
    assert len(part) < len(module)
    assert loaded_part(part) == part
    assert parse_elf(part) == parse_elf(module)
    (tmp_path / "_ctypes.so").write_bytes(part)
    ctypes.CDLL(str(tmp_path / "_ctypes.so"))


@pytest.mark.parametrize("name", ["library64", "library32-big-endian"])
def test_a_file_without_more_keeps_its_meaning(name: str) -> None:
    data = (SEEDS / name).read_bytes()
    part = loaded_part(data + b"symbols and more")
    assert parse_elf(part) == parse_elf(data)
    assert b"symbols" not in part


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(20)]
)
def test_nothing_is_cut_off_what_is_no_elf_file(data: bytes) -> None:
    with pytest.raises(FormatError):
        loaded_part(data)


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x03\x01" + bytes(60)]
)
def test_what_is_no_elf_file_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_elf(data)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_file_is_read_or_refused(at: int, damage: bytes) -> None:
    data = bytearray((SEEDS / "library64").read_bytes())
    data[at : at + len(damage)] = damage
    for some in (bytes(data), bytes(data[:at])):
        try:
            found = parse_elf(some)
        except FormatError:
            continue
        assert all("\0" not in name for name in found.needed)
