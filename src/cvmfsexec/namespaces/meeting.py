"""Where a session can be met: its name, and what it tells to who calls.

Each session listens on an abstract UNIX socket, ``@cvmfsexec/UID/NAME``. The name
belongs to the socket: it is taken as long as the session lives, and free again whatever
became of it. It is taken before anything else is done: so a name means one session, and
who calls early waits until that is ready.

Who calls is sent one message, the session's *card* with descriptors of its namespaces,
and may then stay connected as a guest. Nothing that guests say is ever heeded. Both
sides look at the other's uid, as anybody may listen and call. A payload can call too,
and has nothing of it: to enter a namespace takes rights over it that only the user
outside of the session has.

``_socket`` is the C half of ``socket``, which would take a tenth of a warm start.
"""

import _socket
import array
import errno
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.namespaces import syscalls
from cvmfsexec.namespaces.ears import Ears
from cvmfsexec.namespaces.isolation import Isolation

GUEST_COUNT_MAX = 1024
CARD_BYTES_MAX = 8192
GOODBYE = b"end"

_BACKLOG = 4096
_PREFIX = "cvmfsexec"
_NAME_CHARACTERS_MAX = 64
_CHARACTERS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-"
)
_UNNAMED = "+"
"""Begins the names of sessions that were given none; no user's name begins so."""

_AUTOMATIC_TRIES = 100
_COMMAND_CHARACTERS_MAX = 1000
_REPOSITORIES_CHARACTERS_MAX = 4000
_CREDENTIALS = struct.Struct("3i")


class Card(NamedTuple):
    """What a session tells of itself.

    Attributes:
        name: As it can be joined.
        since_s: When it was started.
        isolation: What keeps it together.
        repositories: Names, separated by blanks.
        command: As one would type it; may be cut.
    """

    name: str
    since_s: int
    isolation: Isolation
    repositories: str
    command: str


def check_name(name: str) -> str:
    """Return a name that a user gives to a session, if it can be one.

    Raises:
        ConfigurationError: It cannot.
    """
    if name.startswith(_UNNAMED) or not is_possible_name(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a session",
            hint="use up to 64 letters, digits, '_', '-', '.', and '+' after the first",
        )
    return name


def is_possible_name(name: str) -> bool:
    """Whether a session can have this name, given by its user or not."""
    return 0 < len(name) <= _NAME_CHARACTERS_MAX and _CHARACTERS.issuperset(name)


def address_of(uid: int, name: str) -> str:
    """Return the name of the socket, without the zero byte before it."""
    return f"{_PREFIX}/{uid}/{name}"


class Place:
    """A name that was taken, and the socket that holds it.

    Attributes:
        name: As it can be joined.
        listener: The socket; -1 without one.
    """

    # Not a named tuple: to make one takes longer than all else that a start does here.
    __slots__ = ("listener", "name")

    def __init__(self, name: str, listener: int) -> None:
        self.name = name
        self.listener = listener

    def leave(self) -> None:
        """Let go of it in this process."""
        if self.listener >= 0:
            os.close(self.listener)


def take_place(name: str) -> Place:
    """Take a name for a session of this user; an automatic one if it is empty.

    Raises:
        ConfigurationError: A session has it, or there can be no names here.
    """
    uid = os.getuid()
    if name:
        try:
            return Place(name, _listen(uid, name))
        except OSError as error:
            raise _refusal(name, error) from error
    # Sessions in each other are in pid namespaces of their own, with equal numbers.
    for number in range(_AUTOMATIC_TRIES):
        automatic = f"{_UNNAMED}{os.getpid()}" + (f".{number}" if number else "")
        try:
            return Place(automatic, _listen(uid, automatic))
        except OSError as error:
            log.debug("the session cannot be called %s: %s", automatic, error.strerror)
            if error.errno != errno.EADDRINUSE:
                break
    return Place("", -1)  # nobody has asked for it


def _listen(uid: int, name: str) -> int:
    return syscalls.listen_at_abstract_name(address_of(uid, name), _BACKLOG)


def _refusal(name: str, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"a session named {name} is running already",
            hint=f"enter it with --join {name}, see 'cvmfs sessions', or choose "
            "another name",
        )
    return ConfigurationError(
        f"the session cannot be given the name {name}: {error.strerror}"
    )


def encode_card(card: Card) -> bytes:
    """Return a card as it is sent."""
    fields = (
        card.name,
        str(card.since_s),
        card.isolation.value,
        card.repositories[:_REPOSITORIES_CHARACTERS_MAX],
        card.command[:_COMMAND_CHARACTERS_MAX],
    )
    cleaned = (field.replace("\0", "") for field in fields)
    return "\0".join(cleaned).encode("utf-8", "surrogateescape")


def decode_card(data: bytes) -> Card:
    """Read a card.

    Raises:
        FormatError: It is none.
    """
    fields = data.decode("utf-8", "surrogateescape").split("\0")
    try:
        name, since_s, isolation, repositories, command = fields
        card = Card(name, int(since_s), Isolation(isolation), repositories, command)
    except ValueError as error:
        raise FormatError("what answers is not a session") from error
    if len(data) > CARD_BYTES_MAX or not is_possible_name(name) or card.since_s < 0:
        raise FormatError("what answers is not a session")
    return card


def peer_of(connection: _socket.socket) -> tuple[int, int]:
    """Return pid and uid of who is at the other end, as they are seen from here."""
    credentials = connection.getsockopt(
        _socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size
    )
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return pid, uid


def time_limit(seconds: float) -> bytes:
    """Return a time as socket options have it; never 0, which means for ever."""
    return struct.pack("@ll", int(seconds), 1000)


class Reception:
    """init's side: gives the card to who calls, and knows who is there."""

    def __init__(self, listener: int, ears: Ears) -> None:
        """Let callers wait.

        Args:
            listener: Socket of the session's name; -1 without one.
            ears: Init's.
        """
        self.listener = listener
        self._ears = ears
        self._guests: dict[int, _socket.socket] = {}
        self._card: Callable[[], Card] | None = None
        self._namespaces: tuple[str, ...] = ()
        self._is_over = False

    @property
    def has_guests(self) -> bool:
        """Whether somebody is still connected."""
        return bool(self._guests)

    def open(
        self, card: Callable[[], Card], payload_pid: int, *, outlasts_payload: bool
    ) -> None:
        """Answer from now on; the payload is the user again."""
        if self.listener < 0:
            return
        self._card = card
        user_namespace = f"/proc/{payload_pid}/ns/user"
        if outlasts_payload:
            with suppress(OSError):  # it has ended already
                kept = os.open(user_namespace, os.O_RDONLY)
                user_namespace = f"/proc/self/fd/{kept}"
        self._namespaces = _namespaces_of(card().isolation, user_namespace)
        self._ears.listen(self.listener, self._answer)
        self._answer()

    def say_goodbye(self) -> None:
        """Tell all guests that the session ends; no more are let in."""
        self._is_over = True
        for guest in tuple(self._guests.values()):
            try:
                guest.send(GOODBYE)
            except OSError:
                self._forget(guest)

    def _answer(self) -> None:
        while (guest := self._next_guest()) is not None:
            try:
                self._welcome(guest)
            except OSError as error:
                log.debug("a caller is not answered: %s", error)
                guest.close()

    def _next_guest(self) -> _socket.socket | None:
        listener = _socket.socket(fileno=self.listener)
        try:
            # The public name is that of the slow half of the module.
            return _socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001
        except BlockingIOError:
            return None
        except OSError as error:
            log.debug("a caller is not heard: %s", error)
            return None
        finally:
            listener.detach()

    def _welcome(self, guest: _socket.socket) -> None:
        # In this namespace uid 0 is the user.
        is_welcome = peer_of(guest)[1] == os.getuid()
        is_full = self._is_over or len(self._guests) >= GUEST_COUNT_MAX
        if self._card is None or not is_welcome or is_full:
            guest.close()
            return
        guest.settimeout(0)
        opened: list[int] = []
        try:
            for path in self._namespaces:  # one that fails must not lose the others
                opened.append(os.open(path, os.O_RDONLY))  # noqa: PERF401
            rights = array.array("i", opened).tobytes()
            kind = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            guest.sendmsg([encode_card(self._card())], [(*kind, rights)])
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self._guests[guest.fileno()] = guest
        self._ears.listen(guest.fileno(), lambda: self._listen_to(guest))
        self._listen_to(guest)

    def _listen_to(self, guest: _socket.socket) -> None:
        try:
            guest.recv(1)
        except BlockingIOError:
            return
        except OSError:
            pass
        self._forget(guest)  # it is gone, or says something where nobody may

    def _forget(self, guest: _socket.socket) -> None:
        if self._guests.pop(guest.fileno(), None) is not None:
            self._ears.forget(guest.fileno())
            guest.close()


def _namespaces_of(isolation: Isolation, user_namespace: str) -> tuple[str, ...]:
    """Return what a guest needs, in the order of entering."""
    has_pid_namespace = isolation is Isolation.PID_NAMESPACE
    kinds = ("user", "mnt", "pid") if has_pid_namespace else ("user", "mnt")
    ours = (f"/proc/self/ns/{kind}" for kind in kinds)
    return (*ours, user_namespace)
