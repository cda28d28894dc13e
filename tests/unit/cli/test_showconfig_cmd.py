"""``cvmfs showconfig``."""

import argparse
import json
from pathlib import Path

import pytest

from cvmfsexec.cli import showconfig_cmd
from tests.support.configuration import make_dist

FQRN = "software.example.org"


def run(tmp_path: Path, *words: str) -> int:
    root = make_dist(
        tmp_path,
        {
            "default.conf": "CVMFS_TIMEOUT=5\nCVMFS_EMPTY=\n",
            "default.local": "CVMFS_HTTP_PROXY='http://p:3128;DIRECT'\n",
        },
    )
    parser = argparse.ArgumentParser()
    showconfig_cmd.configure(parser)
    return showconfig_cmd.run(parser.parse_args([*words, "--dist", root.dist, FQRN]))


def test_each_value_is_shown_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    etc = tmp_path / "dist/etc/cvmfs"
    assert lines[0] == f"CVMFS_REPOSITORY_NAME={FQRN}"
    assert f"CVMFS_TIMEOUT=5    # from {etc}/default.conf" in lines
    assert f"CVMFS_EMPTY=    # from {etc}/default.conf" in lines
    proxy = f"CVMFS_HTTP_PROXY='http://p:3128;DIRECT'    # from {etc}/default.local"
    assert proxy in lines


def test_empty_values_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "-s") == 0
    assert "CVMFS_EMPTY" not in capsys.readouterr().out


def test_programs_get_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--json", "-s") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["repository"] == FQRN
    assert answer["parameters"]["CVMFS_TIMEOUT"] == {
        "value": "5",
        "source": f"{tmp_path}/dist/etc/cvmfs/default.conf",
    }
    assert "CVMFS_EMPTY" not in answer["parameters"]
