"""The script at the beginning of a self-extracting file, in several shells.

What it unpacks is a stand-in that is small: the interpreter of the tests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cvmfsexec.distribution.bundle import Bundle
from cvmfsexec.distribution.member import Member
from cvmfsexec.distribution.self_extracting import write

SHELLS = [name for name in ("sh", "dash", "bash", "busybox") if shutil.which(name)]
PYTHON = f'#!/bin/sh\nshift 2; exec "{sys.executable}" -I "$@"\n'
LAUNCH = 'printf "%s|" "$_cvmfsexec_self" "$_cvmfsexec_module" "$@"; exit 7\n'
TOOLS = ("gzip", "id", "ls", "mkdir", "mktemp", "rm", "rmdir", "sleep", "tail", "tar")
STRANGER = 54321


def make(
    file: Path, note: str = "1", launch: str = LAUNCH, command: str = "cvmfsexec"
) -> Path:
    members = [
        Member("bin/python", is_executable=True),
        Member("bin/python3", content=PYTHON.encode(), is_executable=True),
        Member("launch", content=launch.encode()),
        Member("packages/x"),
        Member("commands/mountrepo", is_executable=True),
        Member("dist/etc/note", content=note.encode()),
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    write(Bundle(members, "x86_64"), str(file), command=command)
    return file


def start(
    file: Path, *words: str, shell: str = "sh", **environment: str
) -> subprocess.CompletedProcess[str]:
    path = shutil.which(shell) or shell
    interpreter = [path, "sh"] if shell == "busybox" else [path]
    return subprocess.run(
        [*interpreter, str(file), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=file.parent,
        env={"PATH": "/usr/bin:/bin", **environment},
        timeout=60,
    )


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


@pytest.mark.parametrize("shell", SHELLS)
def test_words_and_status_are_those_of_the_command(shell: str, tmp_path: Path) -> None:
    file = make(tmp_path / "a b/cvmfsexec")
    place = tmp_path / "a b/.cvmfsexec"
    words = ("", "a  b", "*", "new\nline", "--", "$x")
    for _ in range(2):
        done = start(file, *words, shell=shell)
        assert (done.returncode, done.stderr) == (7, "")
        assert done.stdout == "|".join([f"{place}/cvmfsexec", "exec_cmd", *words, ""])
    assert [name for name in names(place) if not name.startswith("runtime-")] == [
        ".lock",
        "current",
        "dist",
        "mountrepo",
    ]


def test_a_link_to_the_file_unpacks_beside_the_file(tmp_path: Path) -> None:
    file = make(tmp_path / "there/cvmfsexec")
    (tmp_path / "here").mkdir()
    link = tmp_path / "here/link"
    link.symlink_to(file)
    assert start(link).stdout.startswith(f"{tmp_path}/there/.cvmfsexec/")
    assert names(tmp_path / "here") == ["link"]


def test_a_variable_says_where_to_unpack(tmp_path: Path) -> None:
    file = make(tmp_path / "one/cvmfsexec")
    done = start(file, CVMFSEXEC_UNPACK=str(tmp_path / "else/where"))
    assert done.stdout.startswith(f"{tmp_path}/else/where/.cvmfsexec/cvmfsexec|")
    relative = start(file, CVMFSEXEC_UNPACK="../else/here")
    assert relative.stdout.startswith(f"{tmp_path}/one/../else/here/.cvmfsexec/")
    assert names(tmp_path / "one") == ["cvmfsexec"]


@pytest.mark.parametrize("more", [("sha256sum",), ()])
def test_a_damaged_file_is_refused(more: tuple[str, ...], tmp_path: Path) -> None:
    file = make(tmp_path / "one/cvmfsexec")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1  # a checksum of gzip's, which tar does not see
    file.write_bytes(data)
    (tmp_path / "tools").mkdir()
    for tool in (*TOOLS, *more):
        (tmp_path / "tools" / tool).symlink_to(shutil.which(tool) or tool)
    done = start(file, PATH=str(tmp_path / "tools"))
    assert done.returncode == 1
    assert done.stderr.endswith("is damaged: its payload has another digest\n")
    assert names(tmp_path / "one") == ["cvmfsexec"]


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    file = make(tmp_path / "one/cvmfsexec")
    file.write_bytes(file.read_bytes()[:-100])
    assert "damaged" in start(file).stderr
    assert names(tmp_path / "one") == ["cvmfsexec"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_a_stranger_is_not_used(tmp_path: Path) -> None:
    file = make(tmp_path / "one/cvmfsexec")
    start(file)
    place = tmp_path / "one/.cvmfsexec"
    os.chown(place, STRANGER, STRANGER)
    (tmp_path / "tmp").mkdir()
    done = start(file, TMPDIR=str(tmp_path / "tmp"))
    mine = f"{tmp_path}/tmp/cvmfsexec-0/.cvmfsexec/cvmfsexec"
    assert done.stdout.startswith(mine)


def test_the_place_may_be_a_link_of_the_user(tmp_path: Path) -> None:
    file = make(tmp_path / "one/cvmfsexec")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "one/.cvmfsexec").symlink_to(tmp_path / "scratch")
    for _ in range(2):
        assert start(file).stdout.startswith(f"{tmp_path}/one/.cvmfsexec/cvmfsexec|")
    assert list((tmp_path / "scratch").glob("runtime-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["link", "target"])
def test_a_link_that_a_stranger_has_to_do_with_is_not_used(
    what: str, tmp_path: Path
) -> None:
    file = make(tmp_path / "one/cvmfsexec")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "tmp").mkdir()
    link = tmp_path / "one/.cvmfsexec"
    link.symlink_to(tmp_path / "scratch")
    os.lchown(link if what == "link" else tmp_path / "scratch", STRANGER, STRANGER)
    done = start(file, TMPDIR=str(tmp_path / "tmp"))
    assert done.stdout.startswith(f"{tmp_path}/tmp/cvmfsexec-0/.cvmfsexec/")
    assert names(tmp_path / "scratch") == []


def test_a_claim_whose_holder_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    file = make(tmp_path / "one/cvmfsexec")
    start(file)
    place = tmp_path / "one/.cvmfsexec"
    runtime = next(place.glob("runtime-*"))
    shutil.rmtree(runtime)
    claim = place / f".claim-{runtime.name}"
    claim.mkdir()
    (claim / "holder").write_text(f"{os.uname().nodename} 99999999\n")
    assert start(file).returncode == 7
    assert runtime.is_dir()
    assert not claim.exists()


def test_versions_live_side_by_side(tmp_path: Path) -> None:
    older = make(tmp_path / "one/older", "1", "echo older; exit\n")
    newer = make(tmp_path / "one/newer", "2", "echo newer; exit\n")
    note = tmp_path / "one/.cvmfsexec/dist/etc/note"
    for file, content in ((older, "1"), (newer, "2"), (older, "1")):
        done = start(file)
        assert (done.stdout, done.stderr) == (f"{file.name}\n", "")
        assert note.read_text() == content
    assert len(list((tmp_path / "one/.cvmfsexec").glob("runtime-*"))) == 2


def test_a_file_for_singcvmfs_has_a_directory_of_its_own(tmp_path: Path) -> None:
    file = make(tmp_path / "one/file", command="singcvmfs")
    said = start(file).stdout
    assert said == f"{tmp_path}/one/.singcvmfs/singcvmfs|singcvmfs_cmd|"
