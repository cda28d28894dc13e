"""Which program runs containers."""

from pathlib import Path

import pytest

from cvmfsexec.apptainer.program import find_program, has_host_kind, version_of
from cvmfsexec.errors import ConfigurationError


def make(directory: Path, name: str, says: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)
    return path


def test_singularity_is_the_first_choice(tmp_path: Path) -> None:
    make(tmp_path, "apptainer")
    assert find_program(str(tmp_path)).path == f"{tmp_path}/apptainer"
    make(tmp_path, "singularity")
    found = find_program(str(tmp_path))
    assert found == (f"{tmp_path}/singularity", False)
    assert find_program(str(tmp_path), "apptainer").is_apptainer


def test_another_name_of_apptainer_is_apptainer(tmp_path: Path) -> None:
    make(tmp_path, "apptainer")
    (tmp_path / "singularity").symlink_to("apptainer")
    found = find_program(str(tmp_path))
    assert found == (f"{tmp_path}/singularity", True)
    assert has_host_kind(found)


@pytest.mark.parametrize("wanted", ["", "mine", "/no/such/program"])
def test_none_is_one_sentence(tmp_path: Path, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no .* in PATH"):
        find_program(str(tmp_path), wanted)


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ("3.5.3", False),
        ("3.6.0-rc.2", True),
        ("singularity-ce 4.1.0", True),
        ("1.4.5", True),
        ("", True),
    ],
)
def test_old_ones_serve_from_inside_only(
    tmp_path: Path, version: str, *, has_it: bool
) -> None:
    make(tmp_path, "singularity", version)
    assert has_host_kind(find_program(str(tmp_path))) is has_it


def test_a_program_that_cannot_run_is_told(tmp_path: Path) -> None:
    make(tmp_path, "singularity").write_text("#!/no/such/shell\n")
    with pytest.raises(ConfigurationError, match="cannot run"):
        has_host_kind(find_program(str(tmp_path)))


def test_numbers_of_a_version_are_found() -> None:
    assert version_of(b"apptainer version 1.4.5-2") == (1, 4)
    assert version_of(b"no number") == ()
