"""Archives of a relocatable Python: what is taken out of them."""

import io
import tarfile
from pathlib import Path

import pytest

from cvmfsexec.distribution.relocatable import (
    parse_interpreter_archive,
    unpack_interpreter,
)
from cvmfsexec.errors import FormatError


def archive(
    files: dict[str, bytes], links: dict[str, str] | None = None, mode: str = "w:gz"
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as made:  # type: ignore[call-overload]
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            made.addfile(header, io.BytesIO(content))
        for name, target in (links or {}).items():
            header = tarfile.TarInfo(name)
            header.type, header.linkname = tarfile.SYMTYPE, target
            made.addfile(header)
    return buffer.getvalue()


FILES = {
    "python/bin/python3.11": b"program",
    "python/bin/pip": b"not wanted",
    "python/lib/python3.11/os.py": b"os",
    "python/lib/python3.11/lib-dynload/_x.so": b"x",
    "python/lib/python3.11/README": b"not wanted",
    "python/lib/libpython3.11.so.1.0": b"library",
    "python/lib/tcl8.6/init.tcl": b"not wanted",
    "python/share/terminfo/x": b"not wanted",
}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_interpreter_is_unpacked_without_the_rest(tmp_path: Path, mode: str) -> None:
    links = {
        "python/bin/python3": "python3.11",
        "python/lib/libpython3.11.so": "libpython3.11.so.1.0",
        "python/lib/libgone.so": "/etc/passwd",
    }
    found = parse_interpreter_archive(archive(FILES, links, mode))
    made = unpack_interpreter(found, str(tmp_path))
    files = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert files == {
        "bin/python3.11": b"program",
        "lib/python3.11/os.py": b"os",
        "lib/python3.11/lib-dynload/_x.so": b"x",
        "lib/libpython3.11.so": b"library",
        "lib/libpython3.11.so.1.0": b"library",
    }
    assert made.place == "lib/python3.11"
    assert made.program == str(tmp_path / "bin/python3.11")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no python/bin/python3.N"),
        ({"python/install/bin/python3.11": b""}, "no python/bin/python3.N"),
        ({"python/bin/python3.11": b""}, "no python/lib/python3.11/os.py"),
        ({**FILES, "python/bin/python3.12": b""}, "no python/bin/python3.N"),
        ({**FILES, "../x": b""}, "forbidden path"),
        ({**FILES, "python/bin/python3.11/x": b""}, "below a file"),
    ],
)
def test_another_layout_is_refused(files: dict[str, bytes], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        parse_interpreter_archive(archive(files))


def test_a_link_for_a_program_is_none() -> None:
    files = {"python/lib/python3.11/os.py": b""}
    with pytest.raises(FormatError, match=r"no python/bin/python3\.N"):
        parse_interpreter_archive(archive(files, {"python/bin/python3.11": "/bin/sh"}))


def test_an_archive_cut_anywhere_is_refused() -> None:
    data = archive(FILES)
    for length in range(0, len(data) - 1, 7):
        with pytest.raises(FormatError):
            parse_interpreter_archive(data[:length])
