"""Shared libraries: those of the running interpreter, and what cannot be found."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from cvmfsexec.distribution.libraries import find_libraries
from cvmfsexec.errors import DistributionError

PYTHON = os.path.realpath(sys.executable)
SEED = Path(__file__).resolve().parents[3] / "fuzz/corpus/elf/library64"


def extension_modules() -> list[str]:
    directory = Path(str(sysconfig.get_config_var("DESTSHARED")))
    return [str(path) for path in directory.glob("_s*.so")]


def test_what_the_loader_would_take_is_found() -> None:
    found = find_libraries(PYTHON, [])
    loader = [found.loader, "--list", PYTHON]
    said = subprocess.run(loader, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in said.splitlines() if "=>" in line]
    expected = {words[0]: words[2] for words in lines if not words[0].startswith("/")}
    later = {"libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2"}
    assert set(found.by_name) - later == set(expected) - later
    for name, path in expected.items():
        assert os.path.samefile(found.by_name[name], path)


def test_what_extension_modules_need_is_found() -> None:
    found = find_libraries(PYTHON, extension_modules())
    assert any(name.startswith("libssl.so") for name in found.by_name)
    assert any(name.startswith("libcrypto.so") for name in found.by_name)


def test_carried_libraries_are_not_looked_for(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(SEED.read_bytes().replace(b"libc.so.6\0", b"libx.so.1\0"))
    carried = tmp_path / "libx.so.1"
    carried.write_bytes(SEED.read_bytes())
    found = find_libraries(PYTHON, [str(module), str(carried)])
    assert "libx.so.1" not in found.by_name


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    module.write_bytes(SEED.read_bytes().replace(b"libc.so.6\0", b"libx.so.1\0"))
    with pytest.raises(DistributionError, match=r"module\.so needs libx\.so\.1"):
        find_libraries(PYTHON, [str(module)])


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DistributionError, match="not linked to shared libraries"):
        find_libraries(_without_loader(tmp_path), [])
    with pytest.raises(DistributionError, match="not an ELF file"):
        find_libraries(__file__, [])
    with pytest.raises(DistributionError, match="cannot read"):
        find_libraries(str(tmp_path / "absent"), [])


def _without_loader(directory: Path) -> str:
    program = directory / "program"
    data = bytearray(SEED.read_bytes())
    data[64 + 56 : 64 + 60] = bytes(4)  # the second program header: the loader's
    program.write_bytes(data)
    return str(program)
