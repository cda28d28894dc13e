"""One thing that was looked at, and what was found."""

from enum import Enum
from typing import NamedTuple


class State(Enum):
    """How bad it is; the value is for people and programs."""

    GOOD = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WARNING = "warning"
    """It works, but slower, or not always."""
    FAILURE = "failure"


class Finding(NamedTuple):
    """What was found.

    Attributes:
        subject: What was looked at, in a few words.
        state: How bad it is.
        text: What was found, in a sentence.
        hint: What the user can do about it, or empty.
    """

    subject: str
    state: State
    text: str
    hint: str = ""
