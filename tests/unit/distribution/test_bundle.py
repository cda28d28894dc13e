"""What is packed: everything that a command imports, and a dist without its caches."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from cvmfsexec.distribution.bundle import COMMANDS, PACKAGES, Bundle, collect
from cvmfsexec.distribution.interpreter import Source, running_interpreter
from cvmfsexec.distribution.member import Kind, Member
from cvmfsexec.distribution.self_extracting import write
from cvmfsexec.errors import DistributionError

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SIZE_BYTES_MAX = 30_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    dist = tmp_path_factory.mktemp("dist")
    for path in ("etc/cvmfs/keys/k.pub", "var/lib/cvmfs/cache", "cvmfs/r/file"):
        (dist / path).parent.mkdir(parents=True)
        (dist / path).write_text(path)
    (dist / "etc/link").symlink_to("cvmfs/keys")
    return collect(str(dist))


def test_every_dependency_is_packed() -> None:
    wanted = {re.split(r"[^a-z0-9_-]", one)[0] for one in PROJECT["dependencies"]}
    assert wanted - {"dukpy", "pacparser"} <= set(PACKAGES)


def test_every_command_is_packed(bundle: Bundle) -> None:
    scripts = PROJECT["scripts"].items()
    modules = {name: entry.partition(":")[0] for name, entry in scripts}
    assert modules == {name: f"cvmfsexec.cli.{one}" for name, one in COMMANDS.items()}
    paths = {member.path for member in bundle.members}
    assert {f"commands/{name}" for name in COMMANDS} <= paths
    for module in COMMANDS.values():
        assert f"packages/cvmfsexec/cli/{module}.pyc" in paths


def test_every_script_is_packed(bundle: Bundle) -> None:
    found = {Path(one.path).name for one in bundle.members if one.path.endswith(".sh")}
    scripts = (ROOT / "src/cvmfsexec/distribution").glob("*.sh")
    assert {path.name for path in scripts} <= found


def test_dist_is_packed_without_caches_and_mount_points(bundle: Bundle) -> None:
    found = {one for one in bundle.members if one.path.startswith("dist/")}
    assert found == {
        Member("dist/etc", Kind.DIRECTORY),
        Member("dist/etc/cvmfs", Kind.DIRECTORY),
        Member("dist/etc/cvmfs/keys", Kind.DIRECTORY),
        Member("dist/etc/cvmfs/keys/k.pub", content=b"etc/cvmfs/keys/k.pub"),
        Member("dist/etc/link", Kind.LINK, b"cvmfs/keys"),
    }


def test_nothing_unneeded_is_packed(bundle: Bundle) -> None:
    paths = [member.path for member in bundle.members]
    assert len(paths) == len(set(paths))
    unneeded = re.compile(r"/(tests?|tkinter|idlelib|ensurepip|pip|pytest)/|\.py$")
    assert not [path for path in paths if unneeded.search(path)]


def test_the_file_is_small_and_made_twice_the_same(
    bundle: Bundle, tmp_path: Path
) -> None:
    sizes = [write(bundle, str(tmp_path / name)) for name in ("one", "two")]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sizes[0] == (tmp_path / "one").stat().st_size <= SIZE_BYTES_MAX
    assert (tmp_path / "one").stat().st_mode & 0o111


def test_without_a_dist_nothing_is_packed(tmp_path: Path) -> None:
    with pytest.raises(DistributionError, match="no dist to pack"):
        collect(str(tmp_path))


def test_a_file_that_cannot_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    small = Bundle([], "x86_64")
    with pytest.raises(DistributionError, match="cannot write"):
        write(small, str(tmp_path / "taken"))
    with pytest.raises(DistributionError, match="cannot write"):
        write(small, str(tmp_path / "absent/file"))
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]


def test_an_interpreter_with_everything_in_it_finds_its_directory(
    tmp_path: Path,
) -> None:
    (tmp_path / "etc/cvmfs").mkdir(parents=True)
    (tmp_path / "extensions").mkdir()
    whole = running_interpreter()
    source = Source(whole._replace(extensions=str(tmp_path / "extensions")), ())
    found = {one.path for one in collect(str(tmp_path), source).members}
    extensions = {path for path in found if "/lib-dynload/" in path}
    assert extensions == {f"{whole.place}/lib-dynload/.directory"}


def test_a_library_of_another_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc/cvmfs").mkdir(parents=True)
    (tmp_path / "extensions").mkdir()
    module = tmp_path / "extensions/x.so"
    seed = bytearray((ROOT / "fuzz/corpus/elf/library64").read_bytes())
    seed[18:20] = (183 if os.uname().machine != "aarch64" else 62).to_bytes(2, "little")
    module.write_bytes(seed)
    whole = running_interpreter()._replace(extensions=str(tmp_path / "extensions"))
    with pytest.raises(DistributionError, match=r"lib-dynload/x\.so is for "):
        collect(str(tmp_path), Source(whole, ()))


def test_the_original_client_of_another_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc/cvmfs").mkdir(parents=True)
    program = tmp_path / "usr/bin/cvmfs2"
    program.parent.mkdir(parents=True)
    seed = bytearray((ROOT / "fuzz/corpus/elf/library64").read_bytes())
    seed[18:20] = (183 if os.uname().machine != "aarch64" else 62).to_bytes(2, "little")
    program.write_bytes(seed)
    with pytest.raises(DistributionError, match="the original client for "):
        collect(str(tmp_path))
    program.write_bytes(seed[:40])
    with pytest.raises(DistributionError, match="cannot pack dist/usr/bin/cvmfs2"):
        collect(str(tmp_path))
