"""Words for the container program, as it splits them."""

import csv
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.apptainer.composition import (
    Bind,
    ServerKind,
    bind_words,
    container_server,
    fusemount_words,
    without_covered,
)
from cvmfsexec.errors import ConfigurationError


def split(words: tuple[str, ...]) -> list[str]:
    """Return what the container program makes of a value: CSV, then white space."""
    option, value = words
    assert option == "--fusemount"
    (specification,) = next(csv.reader([value], strict=True))
    return specification.split()


def test_plain_words_stay_what_they_are() -> None:
    words = fusemount_words(ServerKind.HOST, ("/opt/x", "--serve", "a.b"), "/cvmfs/a.b")
    assert words == ("--fusemount", "host:/opt/x --serve a.b /cvmfs/a.b")


@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
            max_size=8,
        ),
        max_size=4,
    )
)
def test_the_program_gets_any_words_as_they_are(words: list[str]) -> None:
    program = ("/usr/bin/env", "printf", "%s\\0", *words)
    first, *rest = split(fusemount_words(ServerKind.HOST, program, "/cvmfs/a.b"))
    assert rest.pop() == "/cvmfs/a.b"
    command = [first.removeprefix("host:"), *rest, "/dev/fd/3", "-f"]
    done = subprocess.run(command, capture_output=True, check=True)
    expected = [os.fsencode(word) for word in (*words, "/dev/fd/3", "-f")]
    assert done.stdout.split(b"\0")[:-1] == expected


def test_binds_are_written_with_their_options() -> None:
    assert bind_words(Bind("/a b", "/c")) == ("-B", "/a b:/c")
    assert bind_words(Bind("/a", "/c", is_read_only=True)) == ("-B", "/a:/c:ro")
    words = bind_words(Bind("/a", "/c", options="image-src=/"))
    assert words == ("-B", "/a:/c:image-src=/")


@pytest.mark.parametrize("character", list(',:\\"'))
def test_what_cannot_be_a_bind_is_refused(character: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be shown"):
        bind_words(Bind(f"/a{character}b", "/c"))


def test_what_another_bind_brings_is_left_out() -> None:
    top = Bind("/a", "/a")
    below = Bind("/a/b", "/a/b", is_read_only=True)
    assert without_covered((below, top, top)) == (top,)


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        (Bind("/a", "/a", is_read_only=True), Bind("/a/b", "/a/b")),
        (Bind("/a", "/a"), Bind("/elsewhere", "/a/b")),
        (Bind("/a", "/a"), Bind("/ab", "/ab")),
    ],
)
def test_what_another_bind_does_not_bring_stays(upper: Bind, lower: Bind) -> None:
    assert set(without_covered((lower, upper))) == {upper, lower}


def test_the_loader_of_the_bundle_starts_the_server(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/ld-linux-x86-64.so.2").touch()
    words = container_server(str(tmp_path))
    assert words[0] == "/.singcvmfs/lib/ld-linux-x86-64.so.2"
    assert all(" " not in word for word in words)


def test_a_bundle_without_a_loader_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        container_server(str(tmp_path))
    (tmp_path / "lib").mkdir()
    with pytest.raises(ConfigurationError, match="loader"):
        container_server(str(tmp_path))
