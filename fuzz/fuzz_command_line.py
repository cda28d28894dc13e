"""Any words are a command line, or a usage error; NUL divides the words."""

from cvmfsexec.cli.exec_cmd import Arguments, UsageError, parse


def target(data: bytes) -> None:
    """Raise only on a finding."""
    words = [word.decode("utf-8", "surrogateescape") for word in data.split(b"\0")]
    try:
        arguments = parse(words)
    except UsageError:
        return
    assert isinstance(arguments, Arguments)
    if not (arguments.wants_version or arguments.wants_help):
        border = words.index("--")
        assert words[len(words) - len(arguments.command) :] == [*arguments.command]
        assert set(arguments.repositories) <= set(words[:border])
        assert not any(name.startswith("-") for name in arguments.repositories)
