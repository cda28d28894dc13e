import argparse
import json
import time
from pathlib import Path

import pytest

from cvmfsexec.cli import publish_cmd
from cvmfsexec.errors import PublishError
from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.check_repository import check_repository
from tests.support.published import write_tree

FQRN = "x.example.org"


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    publish_cmd.configure(parser)
    return parser.parse_args(words)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    write_tree(tmp_path / "source", {"hello": b"hello\n", "link": "hello", "d": {}})
    places = {"--output": tmp_path / "served", "--keys": tmp_path / "keys"}
    options = [str(word) for option in places.items() for word in option]
    return [str(tmp_path / "source"), "--repository", FQRN, *options]


def test_a_publication_is_described(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish_cmd.run(parse(*words, "--tag", "v1")) == 0
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"{FQRN}: revision 1, tag v1",
        "  1 files, 2 directories, 1 links, 6 bytes",
        out.splitlines()[2],
        f"  repository: {tmp_path}/served/{FQRN}",
        f"  master key: {tmp_path}/keys/{FQRN}.pub",
    ]
    assert "1 of 1 catalogs are new" in out


def test_a_program_may_read_it(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    started = int(time.time())
    options = ["--json", "--hash", "shake128", "--compression", "none", "--ttl", "60"]
    assert publish_cmd.run(parse(*words, *options, "--message", "\udcff")) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["revision"] == 1
    assert report["fqrn"] == FQRN
    assert report["root_catalog"].endswith("-shake128")
    assert started <= report["published_at_s"] <= time.time()
    assert report["counters"]["file_size"] == 6
    assert (report["new_catalogs"], report["kept_catalogs"]) == (1, 0)
    directory = Path(report["repository"])
    assert b"\nD60\n" in (directory / ".cvmfspublished").read_bytes()
    assert check_repository(directory, Path(report["master_key"]).read_bytes()) == []


def test_nothing_is_said_of_a_publication_that_failed(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PublishError):
        publish_cmd.run(parse(*words, "--tag", "no good"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("typed", "average"), [("8388608", 8 << 20), ("512K", 512 << 10), ("1g", 1 << 30)]
)
def test_a_chunk_size_may_have_a_unit(
    words: list[str], typed: str, average: int
) -> None:
    chosen = parse(*words, "--chunk-size", typed).chunk_size
    assert chosen == ChunkSizes(average // 2, average, 2 * average)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--chunk-size", "8MB"],
        ["--chunk-size", "-1"],
        ["--chunk-size", "100"],
        ["--chunk-size", ""],
        ["--hash", "md5"],
        ["--compression", "gzip"],
        ["--ttl", "0"],
        ["--ttl", "x"],
        ["--ttl", "9999999999"],
    ],
)
def test_a_wrong_value_is_a_usage_error(
    words: list[str], wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        parse(*words, *wrong)
    assert ending.value.code == 2
    assert wrong[0] in capsys.readouterr().err
