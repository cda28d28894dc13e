"""What a program or library in the ELF format needs of others.

The dynamic section names libraries, and directories in which to look for them; the
program header names the dynamic loader. Nothing else is read.

Source: System V ABI, "Object Files" and "Program Loading and Dynamic Linking".
"""

import struct
from typing import NamedTuple

from cvmfsexec.errors import FormatError

MAGIC = b"\x7fELF"

MACHINES = {3: "i386", 21: "ppc64le", 40: "arm", 62: "x86_64", 183: "aarch64"}
"""By number; names as ``uname -m`` has them."""

_ENTRIES_MAX = 4096
_NAME_BYTES_MAX = 4096
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_END, _NEEDED, _STRING_TABLE, _SONAME, _RPATH, _RUNPATH = 0, 1, 5, 14, 15, 29


class ElfFile(NamedTuple):
    """What one file says about itself.

    Attributes:
        machine: Name of its machine, or its number in decimal.
        bits: 32 or 64.
        interpreter: Path of the dynamic loader; empty for libraries.
        soname: Name under which others need it; may be empty.
        needed: Names of the libraries that it needs, in the file's order.
        search_path: Directories in which it looks for them, ``$ORIGIN`` unresolved.
    """

    machine: str
    bits: int
    interpreter: str
    soname: str
    needed: tuple[str, ...]
    search_path: tuple[str, ...]


class _Segment(NamedTuple):
    kind: int
    offset: int
    address: int
    size: int


class _Layout(NamedTuple):
    """How numbers and tables are laid out in a file of one class and byte order."""

    order: str
    bits: int

    @property
    def header(self) -> struct.Struct:
        """From ``e_type`` to ``e_phnum``."""
        word = "Q" if self.bits == 64 else "I"
        return struct.Struct(f"{self.order}HHI{word}{word}{word}IHHH")

    def segment(self, data: bytes, offset: int) -> _Segment:
        """Read one program header."""
        if self.bits == 64:
            kind, _, start, address, _, size = struct.unpack_from(
                f"{self.order}IIQQQQ", data, offset
            )
        else:
            kind, start, address, _, size = struct.unpack_from(
                f"{self.order}IIIII", data, offset
            )
        return _Segment(kind, start, address, size)

    @property
    def entry_bytes_min(self) -> int:
        """Size of a program header."""
        return 56 if self.bits == 64 else 32

    @property
    def entry(self) -> struct.Struct:
        """One entry of the dynamic section."""
        return struct.Struct(self.order + ("qQ" if self.bits == 64 else "iI"))


def loaded_part(data: bytes) -> bytes:
    """Return what of a program or library is needed to run it.

    What debuggers and linkers read lies behind that, and can be most of a file: it is
    cut off, with the table that describes it.

    Raises:
        FormatError: It is neither, or is cut short.
    """
    layout = _layout(data)
    try:
        fields = list(layout.header.unpack_from(data, 16))
        table, size, count = fields[4], fields[8], fields[9]
        if count > _ENTRIES_MAX or size < layout.entry_bytes_min:
            raise FormatError("malformed ELF file: program header")
        segments = [layout.segment(data, table + i * size) for i in range(count)]
    except (struct.error, OverflowError) as error:
        raise FormatError("malformed ELF file: it is cut short") from error
    sections = 16 + layout.header.size + 2  # after the size of an entry: how many
    ends = (table + count * size, *(one.offset + one.size for one in segments))
    end = max(sections + 4, *ends)
    if end > len(data):
        raise FormatError("malformed ELF file: it is cut short")
    part = bytearray(data[:end])
    fields[5] = 0  # where the table of sections is
    layout.header.pack_into(part, 16, *fields)
    part[sections : sections + 4] = bytes(4)
    return bytes(part)


def parse_elf(data: bytes) -> ElfFile:
    """Read a program or a library.

    Raises:
        FormatError: It is none, or is cut short.
    """
    try:
        return _parse(data)
    except (struct.error, OverflowError) as error:  # an offset beyond the file, or any
        raise FormatError("malformed ELF file: it is cut short") from error


def _parse(data: bytes) -> ElfFile:
    layout = _layout(data)
    _, machine, _, _, table, _, _, _, size, count = layout.header.unpack_from(data, 16)
    if count > _ENTRIES_MAX or size < layout.entry_bytes_min:
        raise FormatError("malformed ELF file: program header")
    segments = [layout.segment(data, table + i * size) for i in range(count)]
    interpreter = ""
    values: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _INTERPRETER:
            interpreter = _text_at(data, segment.offset)
        elif segment.kind == _DYNAMIC:
            values = _dynamic_section(layout, data, segment)
    names = _Names(data, segments, values)
    return ElfFile(
        machine=MACHINES.get(machine, str(machine)),
        bits=layout.bits,
        interpreter=interpreter,
        soname=(names.of(_SONAME) or ("",))[0],
        needed=names.of(_NEEDED),
        search_path=tuple(
            directory
            for path in names.of(_RUNPATH) or names.of(_RPATH)
            for directory in path.split(":")
            if directory
        ),
    )


def _layout(data: bytes) -> _Layout:
    if data[:4] != MAGIC:
        raise FormatError("not an ELF file")
    bits = {1: 32, 2: 64}.get(data[4] if len(data) > 4 else 0)
    order = {1: "<", 2: ">"}.get(data[5] if len(data) > 5 else 0)
    if bits is None or order is None:
        raise FormatError("malformed ELF file: class or byte order")
    return _Layout(order, bits)


def _dynamic_section(
    layout: _Layout, data: bytes, segment: _Segment
) -> list[tuple[int, int]]:
    values: list[tuple[int, int]] = []
    for index in range(min(segment.size // layout.entry.size, _ENTRIES_MAX)):
        tag, value = layout.entry.unpack_from(
            data, segment.offset + index * layout.entry.size
        )
        if tag == _END:
            break
        values.append((tag, value))
    return values


class _Names:
    """The strings that the dynamic section refers to."""

    def __init__(
        self, data: bytes, segments: list[_Segment], values: list[tuple[int, int]]
    ) -> None:
        self._data = data
        self._values = values
        addresses = [value for tag, value in values if tag == _STRING_TABLE]
        self._table = _offset_of(addresses[0], segments) if addresses else None

    def of(self, wanted: int) -> tuple[str, ...]:
        """Return the strings of one tag, in their order."""
        offsets = [value for tag, value in self._values if tag == wanted]
        if offsets and self._table is None:
            raise FormatError("malformed ELF file: no string table")
        return tuple(_text_at(self._data, (self._table or 0) + at) for at in offsets)


def _offset_of(address: int, segments: list[_Segment]) -> int | None:
    for segment in segments:
        if segment.kind == _LOAD and 0 <= address - segment.address < segment.size:
            return segment.offset + address - segment.address
    return None


def _text_at(data: bytes, offset: int) -> str:
    if not 0 <= offset < len(data):
        raise FormatError("malformed ELF file: a name lies outside")
    end = data.find(b"\0", offset, offset + _NAME_BYTES_MAX)
    if end < 0:
        raise FormatError("malformed ELF file: a name has no end")
    return data[offset:end].decode("utf-8", "surrogateescape")
