"""Which words of a command line are whose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.apptainer.command_line import CommandLine, UsageError, parse


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("exec img ls -l", CommandLine((), ("exec",), (), "img", ("ls", "-l"))),
        ("run img", CommandLine((), ("run",), (), "img")),
        ("shell -e img", CommandLine((), ("shell",), ("-e",), "img")),
        ("-q exec img ls", CommandLine(("-q",), ("exec",), (), "img", ("ls",))),
        (
            "-c /a -s exec img",
            CommandLine(("-c", "/a", "-s"), ("exec",), (), "img"),
        ),
        (
            "--config=/a exec img",
            CommandLine(("--config=/a",), ("exec",), (), "img"),
        ),
        (
            "instance start -B /a img name",
            CommandLine((), ("instance", "start"), ("-B", "/a"), "img", ("name",)),
        ),
        (
            "instance run img name sleep",
            CommandLine((), ("instance", "run"), (), "img", ("name", "sleep")),
        ),
        ("version", CommandLine((), ("version",))),
        ("instance stop name", CommandLine((), ("instance", "stop", "name"))),
        ("instance", CommandLine((), ("instance",))),
        ("exec", CommandLine((), ("exec",))),
        ("exec --help", CommandLine((), ("exec",), ("--help",))),
        ("exec -- img ls", CommandLine((), ("exec",), ("--",), "img", ("ls",))),
    ],
)
def test_words_are_told_apart(typed: str, expected: CommandLine) -> None:
    assert parse(tuple(typed.split())) == expected


@pytest.mark.parametrize(
    "options",
    [
        "--bind /a:/b",
        "--bind=/a:/b",
        "-B /a:/b",
        "-B/a:/b",
        "-eB /a",
        "-H /home",
        "--env A=1 --pwd /",
        "--fusemount x --overlay y -S /scratch -W /work -o z",
        "-cip --nv --writable-tmpfs",
        "--unheard-of",
    ],
)
def test_the_image_comes_after_options_and_their_values(options: str) -> None:
    line = parse(("exec", *options.split(), "img", "-B", "x"))
    assert line.options == tuple(options.split())
    assert (line.image, line.arguments) == ("img", ("-B", "x"))


@pytest.mark.parametrize(
    ("typed", "starts"),
    [
        ("exec img ls", True),
        ("run img", True),
        ("shell img", True),
        ("instance start img a", True),
        ("instance run img a", True),
        ("exec instance://a ls", False),
        ("shell instance://a", False),
        ("instance stop a", False),
        ("instance list", False),
        ("version", False),
        ("exec", False),
    ],
)
def test_only_new_containers_get_mounts(typed: str, *, starts: bool) -> None:
    assert parse(tuple(typed.split())).starts_container is starts


def test_other_words_run_in_the_image_that_is_set() -> None:
    line = parse(("-q", "ls", "-l", "exec"), "img")
    assert line == CommandLine(("-q",), ("run",), (), "img", ("ls", "-l", "exec"))
    assert line.starts_container


def test_no_word_at_all_runs_the_image_that_is_set() -> None:
    assert parse(("-q",), "img") == CommandLine(("-q",), ("run",), (), "img")


def test_instances_go_on_by_themselves() -> None:
    assert parse(("instance", "start", "img", "one")).leaves_instance
    assert not parse(("exec", "img", "ls")).leaves_instance
    assert not parse(("instance", "stop", "one")).leaves_instance


@pytest.mark.parametrize("typed", ["", "-q", "-c", "-c /a", "ls", "--"])
def test_what_cannot_be_understood_is_refused(typed: str) -> None:
    with pytest.raises(UsageError):
        parse(tuple(typed.split()))


def test_additions_stand_before_what_the_user_has_typed() -> None:
    line = parse(("-q", "exec", "-e", "img", "ls"))
    words = line.words(("--fusemount", "x"))
    assert words == ("-q", "exec", "--fusemount", "x", "-e", "img", "ls")


_words = st.sampled_from(
    ["exec", "run", "instance", "start", "-B", "-q", "--", "--env", "img", "-c", "a=b"]
) | st.text(max_size=5)


@given(st.lists(_words, max_size=8).map(tuple), st.sampled_from(["", "img"]))
def test_no_word_is_lost_or_moved(words: tuple[str, ...], image: str) -> None:
    try:
        line = parse(words, image)
    except UsageError:
        return
    if line.words() != words:  # the short form
        border = len(line.global_options)
        assert line.words() == (*words[:border], "run", "img", *words[border:])
