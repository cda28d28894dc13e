"""What a newcomer installs is whole: commands, launchers, package, exit statuses."""

import ast
import importlib
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cvmfsexec
from cvmfsexec import errors
from cvmfsexec.cli import exit_codes, main

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/cvmfsexec"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

COMMANDS = ("cvmfs", "cvmfsexec", "makedist", "mountrepo", "singcvmfs", "umountrepo")


def test_console_scripts_are_the_commands() -> None:
    assert sorted(PROJECT["scripts"]) == list(COMMANDS)


@pytest.mark.parametrize("entry", PROJECT["scripts"].values())
def test_console_script_leads_to_a_function(entry: str) -> None:
    module, function = entry.split(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", COMMANDS)
def test_launcher_runs_the_module_of_its_console_script(name: str) -> None:
    launcher = ROOT / name
    module = PROJECT["scripts"][name].split(":")[0].rpartition(".")[2]
    assert os.access(launcher, os.X_OK)
    assert f"\n_cvmfsexec_module={module}\n" in launcher.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_launcher_works_through_links_from_anywhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "a link").symlink_to(ROOT / name)
    (tmp_path / "another").symlink_to("a link")
    done = subprocess.run(
        ["./another", "--help"],
        cwd=tmp_path,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    if "run 'make setup'" in done.stderr:
        assert not (ROOT / ".venv").exists()
        pytest.skip("no .venv in this checkout")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lower().startswith(f"usage: {name} ")


def test_launcher_says_what_to_do_before_setup(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("cvmfsexec", "scripts/launch"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(
        ["/bin/sh", tmp_path / "cvmfsexec"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"cvmfsexec: not set up yet; run 'make setup' in {tmp_path}\n"
    )


def test_setup_takes_no_other_python_than_the_one_that_is_wanted(
    tmp_path: Path,
) -> None:
    (tmp_path / "scripts").mkdir()
    for name in ("pyproject.toml", "scripts/setup"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(
        ["/bin/sh", tmp_path / "scripts/setup"],
        env={"PATH": os.defpath, "PYTHON": "/bin/false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_every_command_of_the_tool_has_a_module() -> None:
    modules = {path.stem for path in (SOURCE / "cli").glob("*_cmd.py")}
    assert {f"{name}_cmd" for name in main.COMMANDS} < modules


def test_version_has_three_numbers() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", cvmfsexec.__version__)


def test_package_is_typed() -> None:
    assert (SOURCE / "py.typed").exists()


def test_every_directory_of_modules_is_a_package() -> None:
    directories = {path.parent for path in SOURCE.rglob("*.py")}
    assert [d for d in directories if not (d / "__init__.py").exists()] == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        path
        for path in SOURCE.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def tree_below(kind: type[errors.CvmfsError]) -> Iterator[type[errors.CvmfsError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree_below(child)


def error_classes() -> list[type[errors.CvmfsError]]:
    return [
        kind
        for kind in dict.fromkeys(tree_below(errors.CvmfsError))
        if kind.__module__ == errors.__name__
    ]


def statuses() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for name, value in vars(exit_codes).items():
        if name.isupper() and isinstance(value, int):
            found.setdefault(value, set()).add(name)
    return found


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_documented_exit_status(
    kind: type[errors.CvmfsError],
) -> None:
    status = exit_codes.exit_status_of(kind("what happened"))
    assert status in statuses()
    assert status != exit_codes.OK


def test_document_of_errors_shows_the_whole_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(kind.__name__ for kind in error_classes()[1:])
