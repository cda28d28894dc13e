"""The command line of ``singcvmfs``: which words are whose.

::

    [global options] exec|run|shell [options] IMAGE [arguments]
    [global options] instance start|run [options] IMAGE NAME [arguments]
    [global options] instance list|stats|stop …, or version
    [global options] COMMAND [arguments]             with an image from elsewhere

The first word that is neither an option nor a global option's value decides. Options of
the container program come before the image, as it wants it itself; where the image is
can be told only by knowing which of them take a value.

Source: docs/reference/singcvmfs.md, "Command line".
"""

from typing import NamedTuple

from cvmfsexec.errors import ConfigurationError

ACTIONS = ("exec", "run", "shell")
_INSTANCE = "instance"
_INSTANCE_ACTIONS = ("start", "run")
_VERSION = "version"
_WITHOUT_IMAGE = "run"
"""What the short form stands for."""

INSTANCE_PREFIX = "instance://"

_GLOBAL_WITH_VALUE = frozenset({"-c", "--config"})
_SHORT_WITH_VALUE = frozenset("BHSWo")
_LONG_WITH_VALUE = frozenset(
    {
        "--add-caps",
        "--app",
        "--apply-cgroups",
        "--authfile",
        "--bind",
        "--blkio-weight",
        "--blkio-weight-device",
        "--cpu-shares",
        "--cpus",
        "--cpuset-cpus",
        "--cpuset-mems",
        "--cwd",
        "--dmtcp-launch",
        "--dmtcp-restart",
        "--dns",
        "--docker-host",
        "--docker-password",
        "--docker-username",
        "--drop-caps",
        "--env",
        "--env-file",
        "--fusemount",
        "--home",
        "--hostname",
        "--memory",
        "--memory-reservation",
        "--memory-swap",
        "--mount",
        "--netns-path",
        "--network",
        "--network-args",
        "--no-mount",
        "--overlay",
        "--pem-path",
        "--pid-file",
        "--pids-limit",
        "--pwd",
        "--runscript-timeout",
        "--scratch",
        "--security",
        "--shell",
        "--workdir",
    }
)


class UsageError(ConfigurationError):
    """The command line cannot be understood."""


class CommandLine(NamedTuple):
    """A command line taken apart; all words together are those of the user.

    Attributes:
        global_options: Before the command.
        command: One word, or two with ``instance``.
        options: Of the command.
        image: What the container is made of; ``None`` if the command has none.
        arguments: What follows it.
    """

    global_options: tuple[str, ...]
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    image: str | None = None
    arguments: tuple[str, ...] = ()

    @property
    def starts_container(self) -> bool:
        """Whether there will be a new container, in which something can be mounted."""
        if not self.image or self.image.startswith(INSTANCE_PREFIX):
            return False
        return self.command[0] in ACTIONS or self.command[-1] in _INSTANCE_ACTIONS

    @property
    def leaves_instance(self) -> bool:
        """Whether the container goes on when the command has ended."""
        return self.starts_container and self.command[0] == _INSTANCE

    @property
    def is_instance(self) -> bool:
        """Whether it is about containers that go on by themselves."""
        return self.command[0] == _INSTANCE

    def words(self, additions: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the words for the container program, with more options."""
        image = () if self.image is None else (self.image,)
        return (
            *self.global_options,
            *self.command,
            *additions,
            *self.options,
            *image,
            *self.arguments,
        )


def parse(words: tuple[str, ...], default_image: str = "") -> CommandLine:
    """Read the words after the command's name.

    Args:
        words: As typed.
        default_image: What the short form runs; empty for none.

    Raises:
        UsageError: There is no command; or one that only the short form can mean, and
            there is no image for it.
    """
    border = _end_of_global_options(words)
    global_options, rest = words[:border], words[border:]
    if not rest:
        if not default_image:
            raise UsageError("there is no command")
        return CommandLine(global_options, (_WITHOUT_IMAGE,), (), default_image)
    first, *others = rest
    if first == _VERSION:
        return CommandLine(global_options, rest)
    if first in ACTIONS:
        return _with_image(global_options, (first,), tuple(others))
    if first == _INSTANCE:
        command = rest[:2]
        if command[-1] in _INSTANCE_ACTIONS:
            return _with_image(global_options, command, rest[2:])
        return CommandLine(global_options, rest)
    if not default_image:
        raise UsageError(
            f"{first} is none of exec, instance, run, shell, version; and there is no "
            "SINGCVMFS_IMAGE to run it in"
        )
    return CommandLine(global_options, (_WITHOUT_IMAGE,), (), default_image, rest)


def _end_of_global_options(words: tuple[str, ...]) -> int:
    position = 0
    while position < len(words) and words[position].startswith("-"):
        word = words[position]
        position += 1
        if word == "--":
            break
        if word in _GLOBAL_WITH_VALUE:
            if position == len(words):
                raise UsageError(f"option {word} needs a value")
            position += 1
    return position


def _with_image(
    global_options: tuple[str, ...], command: tuple[str, ...], rest: tuple[str, ...]
) -> CommandLine:
    position = 0
    while position < len(rest) and rest[position].startswith("-"):
        word = rest[position]
        position += 1
        if word == "--":
            break
        position += _takes_next(word)
    options, rest = rest[:position], rest[position:]
    image, arguments = (rest[0], rest[1:]) if rest else (None, ())
    return CommandLine(global_options, command, options, image, arguments)


def _takes_next(word: str) -> bool:
    """Whether the word after an option is its value."""
    if word.startswith("--"):
        return word in _LONG_WITH_VALUE
    letters = word[1:]
    for position, letter in enumerate(letters):
        if letter in _SHORT_WITH_VALUE:
            return position == len(letters) - 1
    return False
