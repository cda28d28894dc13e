"""What is said on a talk socket: one command, as the original's clients send it.

A command is a few words, and for some of them an argument to the end of the message:
``evict /a b`` is about the file ``/a b``. A line end or NUL at the end is ignored.

Source: docs/reference/talk.md.
"""

from typing import NamedTuple

from cvmfsexec.errors import FormatError

MESSAGE_BYTES_MAX = 65_536
"""More than any list of proxies, or any path that Linux can name."""

_PLAIN = (
    *("tracebuffer flush", "cache instance", "cache size", "cache list"),
    *("cache list pinned", "cache list catalogs", "cache limit get", "mountpoint"),
    *("device id", "remount", "remount sync", "revision", "max ttl info"),
    *("nameserver get", "host info", "external host info", "host probe"),
    *("host probe geo", "host switch", "external host switch", "proxy info"),
    *("external proxy info", "proxy rebalance", "proxy group switch"),
    *("timeout info", "open catalogs", "parameters", "pid", "pid cachemgr"),
    *("pid watchdog", "reset error counters", "hotpatch history", "version"),
    *("version patchlevel", "latency", "internal affairs", "gauges"),
    *("detach nested catalogs", "vfs inodes", "vfs entries"),
    "tear down to read-only",
)
_WITH_ARGUMENT = (
    *("cache limit set", "cleanup", "cleanup rate", "evict", "pin", "max ttl set"),
    *("attribute", "nameserver set", "host set", "external host set", "proxy set"),
    *("external proxy set", "proxy fallback", "timeout set", "send mount fd"),
    "chroot",
)

TALK_COMMANDS = {**dict.fromkeys(_PLAIN, False), **dict.fromkeys(_WITH_ARGUMENT, True)}
"""Every command, and whether it needs an argument: the original's, and two more.

``attribute`` tells a magic attribute of the mount by its name without ``user.``,
``gauges`` all that is counted, as one line of JSON.
"""

_LONGEST_FIRST = sorted(_WITH_ARGUMENT, key=len, reverse=True)


OK = "OK\n"
"""The answer to what was done."""

_NUMBER_DIGITS_MAX = 9


class TalkCommand(NamedTuple):
    """One command.

    Attributes:
        name: One of ``TALK_COMMANDS``; empty for an unknown one.
        argument: What follows; empty for nothing.
    """

    name: str
    argument: str = ""

    @property
    def lacks_argument(self) -> bool:
        """Whether it needs one and has none."""
        return TALK_COMMANDS.get(self.name, False) and not self.argument


def parse_talk_message(data: bytes) -> TalkCommand:
    """Read a message; what is no command has no name.

    Bytes that are no UTF-8 are kept as surrogates: they may be of a file's name.

    Raises:
        FormatError: It is too long.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise FormatError("a message of more than 64 KiB")
    text = data.rstrip(b"\r\n\0").decode("utf-8", "surrogateescape")
    if text in TALK_COMMANDS:
        return TalkCommand(text)
    for name in _LONGEST_FIRST:
        if text.startswith(f"{name} "):
            return TalkCommand(name, text[len(name) + 1 :])
    return TalkCommand("")


def whole_number(text: str) -> int | None:
    """Return a number of a size that people write; ``None`` if the text is none."""
    is_number = text.isascii() and text.isdecimal()
    return int(text) if is_number and len(text) <= _NUMBER_DIGITS_MAX else None
