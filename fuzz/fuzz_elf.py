"""Any bytes are an ELF file whose names are short texts, or a FormatError."""

from cvmfsexec.errors import FormatError
from cvmfsexec.format.elf import loaded_part, parse_elf


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        part = loaded_part(data)
        assert len(part) <= len(data)
        assert loaded_part(part) == part
    except FormatError:
        pass
    try:
        found = parse_elf(data)
    except FormatError:
        return
    assert found.bits in {32, 64}
    names = (*found.needed, *found.search_path, found.soname, found.interpreter)
    assert all("\0" not in name and len(name) < 4096 for name in names)
    assert all(found.search_path)
