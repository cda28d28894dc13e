"""What a container program tells of itself, and what its configuration allows."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.apptainer.installation import (
    Installation,
    check_mounts,
    examine,
    read_settings,
)
from cvmfsexec.apptainer.program import ContainerProgram
from cvmfsexec.errors import ConfigurationError


def program(
    directory: Path, version: str = "1.4.5", settings: str = "", built: str = ""
) -> ContainerProgram:
    """Write a program that tells what Apptainer would."""
    configuration = directory / "apptainer.conf"
    configuration.write_text(settings)
    text = f"APPTAINER_CONF_FILE={configuration}\n{built}"
    (directory / "built").write_text(text)
    path = directory / "apptainer"
    path.write_text(
        f"#!/bin/sh\ncase $1 in version) echo '{version}' ;; buildcfg) cat "
        f"{directory}/built ;; *) exit 1 ;; esac\n"
    )
    path.chmod(0o755)
    return ContainerProgram(str(path), is_apptainer=True)


def test_what_is_not_said_is_allowed(tmp_path: Path) -> None:
    assert examine(program(tmp_path)) == Installation(
        "1.4.5",
        str(tmp_path / "apptainer.conf"),
        has_setuid=False,
        allows_fusemount=True,
        allows_pid_namespace=True,
    )


@pytest.mark.parametrize(
    ("settings", "fusemount", "pid_namespace"),
    [
        ("enable fusemount = no\n", False, True),
        ("allow pid ns = no", True, False),
        ("# enable fusemount = no\n#allow pid ns = no\n", True, True),
        ("enable fusemount = no\nenable fusemount = yes\n", True, True),
        ("  enable fusemount =NO  \n", False, True),
        ("\udcff\0 = \nenable fusemount", True, True),
    ],
)
def test_settings_are_read(
    tmp_path: Path, *, settings: str, fusemount: bool, pid_namespace: bool
) -> None:
    one = program(tmp_path)
    data = settings.encode("utf-8", "surrogateescape")
    (tmp_path / "apptainer.conf").write_bytes(data)
    found = examine(one)
    assert found.allows_fusemount is fusemount
    assert found.allows_pid_namespace is pid_namespace


def test_a_starter_of_roots_gives_privileges(tmp_path: Path) -> None:
    starter = tmp_path / "singularity/bin/starter-suid"
    starter.parent.mkdir(parents=True)
    starter.touch()
    built = f"LIBEXECDIR={tmp_path}\n"
    assert not examine(program(tmp_path, built=built)).has_setuid
    starter.chmod(0o4755)
    is_roots = starter.stat().st_uid == 0
    assert examine(program(tmp_path, built=built)).has_setuid is is_roots
    forbidding = program(tmp_path, built=built, settings="allow setuid = no\n")
    assert not examine(forbidding).has_setuid


def test_a_configuration_that_is_not_there_forbids_nothing(tmp_path: Path) -> None:
    one = program(tmp_path)
    (tmp_path / "apptainer.conf").unlink()
    assert examine(one).allows_fusemount
    (tmp_path / "built").write_bytes(b"APPTAINER_CONF_FILE=a\0b\nLIBEXECDIR=\0\n")
    assert examine(one).allows_fusemount


def test_a_program_that_may_not_mount_is_refused_early(tmp_path: Path) -> None:
    path = tmp_path / "bin/apptainer"
    path.parent.mkdir()
    path.touch()
    one = ContainerProgram(str(path), is_apptainer=True)
    check_mounts(one)
    configuration = tmp_path / "etc/apptainer/apptainer.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("enable fusemount = yes\n")
    check_mounts(one)
    configuration.write_text("enable fusemount = no\n")
    with pytest.raises(ConfigurationError, match=f"{configuration} has 'enable fuse"):
        check_mounts(one)
    check_mounts(one._replace(is_apptainer=False))


@pytest.mark.parametrize("version", ["", "no numbers"])
def test_what_tells_no_version_is_no_container_program(
    tmp_path: Path, version: str
) -> None:
    with pytest.raises(ConfigurationError, match="tells no version"):
        examine(program(tmp_path, version))


def test_a_program_that_does_not_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot run /"):
        examine(ContainerProgram(str(tmp_path / "absent"), is_apptainer=True))


@given(st.binary())
def test_any_bytes_are_settings(data: bytes) -> None:
    for separator in ("=", " ="):
        for name, value in read_settings(data, separator).items():
            assert (name, value) == (name.strip(), value.strip())


@given(st.dictionaries(st.text("abc ", min_size=1), st.text("abc=# ")))
def test_written_settings_are_read_back(settings: dict[str, str]) -> None:
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    expected = {name.strip(): value.strip() for name, value in settings.items()}
    assert read_settings(text.encode(), " =") == expected
