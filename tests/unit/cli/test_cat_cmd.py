import pytest

from tests.support.cvmfs_command import CvmfsCommand, Told
from tests.support.looked_into import LARGE
from tests.support.published import FQRN
from tests.unit.cli.conftest import Bent, Home


def cat(cvmfs: CvmfsCommand, dist: str, *paths: str) -> Told:
    return cvmfs("cat", "--dist", dist, FQRN, *paths)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("hello", b"hello\n"),
        ("/nested/deep/leaf", b"leaf\n"),
        ("empty", b""),
        ("large", LARGE),
        ("to-hello", b"hello\n"),
        ("to-leaf", b"leaf\n"),
    ],
)
def test_content_is_written(
    cvmfs: CvmfsCommand, home: Home, path: str, content: bytes
) -> None:
    assert cat(cvmfs, home.dist, path) == Told(0, content, "")


def test_several_files_follow_each_other(cvmfs: CvmfsCommand, home: Home) -> None:
    told = cat(cvmfs, home.dist, "hello", "nested/deep/leaf", "hello")
    assert told == Told(0, b"hello\nleaf\nhello\n", "")


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("nothing", "cvmfs: /nothing: no such file or directory"),
        ("dangling", "cvmfs: /dangling: no such file or directory"),
        ("nested", "cvmfs: nested: is a directory"),
        ("/", "cvmfs: /: is a directory"),
        ("fifo", "cvmfs: fifo: is no file"),
    ],
)
def test_what_cannot_be_written_is_told_and_the_rest_is_written(
    cvmfs: CvmfsCommand, home: Home, path: str, complaint: str
) -> None:
    told = cat(cvmfs, home.dist, path, "hello")
    assert told == Told(1, b"hello\n", complaint + "\n")


@pytest.mark.parametrize("path", ["outside", "above", "circle"])
def test_links_are_followed_inside_of_the_repository_only(
    cvmfs: CvmfsCommand, home: Home, path: str
) -> None:
    told = cat(cvmfs, home.dist, path)
    assert (told.status, told.out) == (1, b"")
    assert told.err.startswith(f"cvmfs: /{path}: ")


def test_a_spoilt_file_is_an_error_and_not_cached(
    cvmfs: CvmfsCommand, bent: Bent
) -> None:
    bent.repository.write(bent.repository.path_of(b"/hello"), b"spoilt")
    for _ in range(2):
        told = cat(cvmfs, bent.dist, "hello")
        assert told.status == 16
        assert told.out == b""
        assert "is corrupt wherever it was fetched" in told.err


def test_what_comes_before_a_spoilt_chunk_is_written(
    cvmfs: CvmfsCommand, bent: Bent
) -> None:
    paths = bent.repository.chunk_paths(b"/large")
    bent.repository.write(paths[2], b"spoilt")
    told = cat(cvmfs, bent.dist, "large")
    assert told.status == 16
    assert 0 < len(told.out) < len(LARGE)
    assert LARGE.startswith(told.out)


def test_a_hole_in_a_file_is_not_filled(cvmfs: CvmfsCommand, bent: Bent) -> None:
    bent.repository.execute(
        "DELETE FROM chunks WHERE offset = (SELECT min(offset) FROM chunks"
        " WHERE offset > 0)"
    )
    told = cat(cvmfs, bent.dist, "large")
    assert (told.status, told.out) == (16, b"")
