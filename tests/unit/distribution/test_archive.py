"""Archives: the same for the same members, readable by what nodes have."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.distribution.archive import pack
from cvmfsexec.distribution.member import Kind, Member

MEMBERS = [
    Member("b/run", content=b"#!/bin/sh\n", is_executable=True),
    Member("a/" + "long-name/" * 20 + "file", content=b"x" * 10_000),
    Member("b/link", Kind.LINK, b"../" + b"t" * 150),
    Member("empty", Kind.DIRECTORY),
    Member("ä\udcff", content=b""),
]

names = st.text("abc-.", min_size=1, max_size=5).filter(lambda s: s.strip("."))


@given(st.dictionaries(names, st.binary(max_size=50)))
def test_the_order_of_members_is_nothing(files: dict[str, bytes]) -> None:
    members = [Member(f"d/{name}", content=data) for name, data in files.items()]
    packed = pack(members)
    assert pack(reversed(members)) == packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        found = {m.name: archive.extractfile(m) for m in archive if m.isfile()}
        assert {n: s.read() for n, s in found.items() if s} == {
            f"d/{name}": data for name, data in files.items()
        }


def test_nothing_of_this_machine_is_in_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(MEMBERS))) as archive:
        for member in archive:
            assert (member.uid, member.gid, member.uname, member.gname) == (
                0,
                0,
                "",
                "",
            )
            assert member.mtime == 315_532_800
            assert member.mode in {0o644, 0o755, 0o777}


@pytest.mark.parametrize("tool", [["tar"], ["busybox", "tar"]], ids=" ".join)
def test_tools_of_nodes_unpack_it(tool: list[str], tmp_path: Path) -> None:
    if not shutil.which(tool[0]):
        pytest.skip(f"no {tool[0]}")
    (tmp_path / "packed").write_bytes(pack(MEMBERS))
    (tmp_path / "out").mkdir()
    command = [*tool, "-xzf", str(tmp_path / "packed"), "-C", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    out = tmp_path / "out"
    assert (out / MEMBERS[1].path).read_bytes() == b"x" * 10_000
    assert (out / "b/run").stat().st_mode & 0o111
    assert (out / "b/link").readlink() == Path("../" + "t" * 150)
    assert (out / "empty").is_dir()
    assert (out / "ä\udcff").exists()
