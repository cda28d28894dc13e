"""Which images lie in repositories, and how they are run."""

import os
import pwd
from pathlib import Path

import pytest

from cvmfsexec.apptainer.command_line import parse
from cvmfsexec.apptainer.stored_image import (
    repository_of,
    words_in_session,
    words_to_join,
)

IMAGE = "/cvmfs/test.example.org/image"
ADDED = ("--userns", "--bind", "/cvmfs")


@pytest.mark.parametrize(
    ("image", "fqrn"),
    [
        (IMAGE, "test.example.org"),
        ("/cvmfs//test.example.org/a/../b.sif", "test.example.org"),
        ("/cvmfs/test.example.org", "test.example.org"),
        ("/cvmfs", ""),
        ("/cvmfs/", ""),
        ("/cvmfs/../etc", ""),
        ("/cvmfs/.hidden/image", ""),
        ("/cvmfsexec/image", ""),
        ("/opt/image", ""),
        ("image", ""),
        ("", ""),
        ("instance://one", ""),
        ("docker://cvmfs/image", ""),
        ("/cvmfs/a\udcff/image", ""),
    ],
)
def test_the_path_tells_the_repository(image: str, fqrn: str) -> None:
    assert repository_of(image) == fqrn


def test_links_lead_to_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "other").symlink_to(IMAGE)
    monkeypatch.chdir(tmp_path)
    assert repository_of("link/bin") == "test.example.org"


def test_a_directory_that_was_removed_has_no_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.rmdir(tmp_path)
    assert repository_of("image") == ""


def test_cvmfs_is_shown_without_privileges() -> None:
    line = parse(("-q", "exec", "-C", IMAGE, "ls", "-l"))
    words = words_in_session(line, ("--nv",), {})
    assert words == ("-q", "exec", *ADDED, "--nv", "-C", IMAGE, "ls", "-l")


@pytest.mark.parametrize("option", ["-u", "--userns"])
def test_what_is_said_already_is_not_said_again(option: str) -> None:
    line = parse(("exec", option, IMAGE, "ls"))
    words = words_in_session(line, (), {})
    assert words == ("exec", "--bind", "/cvmfs", option, IMAGE, "ls")


@pytest.mark.parametrize(
    "words",
    [
        ("-B", "/cvmfs"),
        ("-B/cvmfs",),
        ("--bind=/opt,/cvmfs/",),
        ("--bind", "/other:/cvmfs:ro"),
    ],
)
def test_who_has_bound_cvmfs_decides(words: tuple[str, ...]) -> None:
    typed = words_in_session(parse(("exec", *words, IMAGE, "ls")), (), {})
    assert typed == ("exec", "--userns", *words, IMAGE, "ls")
    given = words_in_session(parse(("exec", IMAGE, "ls")), words, {})
    assert given == ("exec", "--userns", *words, IMAGE, "ls")


def test_a_bind_of_the_environment_counts() -> None:
    line = parse(("exec", IMAGE, "ls"))
    words = words_in_session(line, (), {"SINGULARITY_BIND": "/opt,/cvmfs:/cvmfs"})
    assert words == ("exec", "--userns", IMAGE, "ls")


# -- instances ------------------------------------------------------------------------


def instance_file(home: Path, content: str) -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    place = home / ".apptainer/instances/app" / os.uname().nodename / user / "one"
    place.mkdir(parents=True)
    (place / "one.json").write_text(content)


@pytest.mark.parametrize(
    ("content", "added"),
    [
        ('{"userns": true}', ("--userns",)),
        ('{"userns": false}', ()),
        ('{"userns": "true"}', ()),
        ("{}", ()),
        ("[]", ()),
        ("[" * 100_000, ()),
        ("no json", ()),
    ],
)
def test_an_instance_is_joined_as_it_was_started(
    tmp_path: Path, content: str, added: tuple[str, ...]
) -> None:
    instance_file(tmp_path, content)
    line = parse(("exec", "-C", "instance://one", "ls"))
    words = words_to_join(line, {"HOME": str(tmp_path)})
    assert words == ("exec", *added, "-C", "instance://one", "ls")


@pytest.mark.parametrize(
    "typed",
    [
        "exec -u instance://one ls",
        "exec instance://other ls",
        "exec instance://../one/one ls",
        "exec instance:// ls",
        "exec image ls",
        "instance stop one",
        "version",
    ],
)
def test_other_words_are_passed_on(tmp_path: Path, typed: str) -> None:
    instance_file(tmp_path, '{"userns": true}')
    words = tuple(typed.split())
    assert words_to_join(parse(words), {"HOME": str(tmp_path)}) == words
