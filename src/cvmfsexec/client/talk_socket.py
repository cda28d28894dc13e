"""The socket at which a mount is talked to: ``cvmfs_io.<fqrn>`` in the workspace.

**Names.** Sessions of one repository share a workspace. The first has the original's
name; the others have ``+`` and a number after it, which no repository's name can have
(docs/adr/0037). A socket that nobody listens at any more is what a killed session has
left: it is replaced by whoever wants its name.

**Privacy.** Only the user may connect: the socket has mode 0600 from its first moment.
The original's has 0660, for a mount that belongs to a system account.

**Cost.** A mount that nobody talks to pays for making the socket and nothing else. The
kernel announces a caller by SIGIO, which Python handles in the main thread, whatever
that waits for; only then is there a thread, and what answers is imported. It ends when
nobody else is calling.

**Callers are hostile**: a message has a limit, a caller has a few seconds for it and
for taking the answer, each says one command, and a few at a time are heard.
"""

import _socket  # the module socket takes 8 ms more
import errno
import fcntl
import os
import signal
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cvmfsexec import log
from cvmfsexec.errors import CacheError, SessionError

SOCKET_PREFIX = "cvmfs_io."
NUMBER_MARK = "+"
MESSAGE_BYTES_MAX = 65_536
CALLER_PATIENCE_S = 5.0
_KNOCK_AGAIN_S = 0.5
LISTENERS_MAX = 4

_BACKLOG = 16
_NUMBERS = 1000
_TRIES_MAX = 8
_MODE = 0o600
_RECEIVE_BYTES = 65_536
_CREDENTIALS = struct.Struct("3i")
_TIME = struct.Struct("@ll")

Answer = Callable[[bytes], bytes]


class TalkSocket:
    """One mount's socket.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: str, listener: _socket.socket, inode: int) -> None:
        """Take over a socket that listens; nobody is heard yet."""
        self.path = path
        self._listener = listener
        self._inode = inode
        self._prepare: Callable[[], Answer] | None = None
        self._answer: Answer | None = None
        self._preparing = threading.Lock()
        self._threads: set[object] = set()

    def hear(self, prepare: Callable[[], Answer]) -> None:
        """Answer callers from now on. Call it in the main thread.

        Args:
            prepare: Returns what answers a message; called for the first caller, and
                never if there is none.
        """
        self._prepare = prepare
        signal.signal(signal.SIGIO, self._notice)
        descriptor = self._listener.fileno()
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK | fcntl.FASYNC)
        self._notice()  # who has called before was not announced

    def close(self) -> None:
        """Take the socket away, if it is still ours."""
        with suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        self._listener.close()

    def _notice(self, *_: object) -> None:
        """Have somebody listen. A signal handler: it takes no lock and never waits."""
        if len(self._threads) < LISTENERS_MAX:
            mark = object()
            self._threads.add(mark)
            thread = threading.Thread(
                target=self._listen, args=(mark,), name="talk", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no more threads: the next caller tries again
                self._threads.discard(mark)

    def _listen(self, mark: object) -> None:
        while True:
            while (caller := self._accept()) is not None:
                try:
                    self._serve(caller)
                except OSError as error:
                    log.debug("a caller has gone: %s", error)
                finally:
                    caller.close()
            self._threads.discard(mark)
            # Who called while this thread was one too many is heard by it.
            caller = self._accept()
            if caller is None:
                return
            self._threads.add(mark)
            with suppress(OSError):
                self._serve(caller)
            caller.close()

    def _accept(self) -> _socket.socket | None:
        try:
            # The public name is that of the slow half of the module.
            number = self._listener._accept()[0]  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:  # nobody, or no descriptor is left
            return None
        return _socket.socket(fileno=number)

    def _serve(self, caller: _socket.socket) -> None:
        message = _receive(caller)
        if message:
            _send(caller, self._answering()(message))

    def _answering(self) -> Answer:
        with self._preparing:
            if self._answer is None:
                if self._prepare is None:
                    raise SessionError("nobody answers yet")
                self._answer = self._prepare()
            return self._answer


def take_talk_socket(
    workspace: str, fqrn: str, exact_path: str = ""
) -> TalkSocket | None:
    """Make the socket of a mount; ``None`` where there cannot be one.

    Args:
        workspace: Directory for it.
        fqrn: The repository.
        exact_path: ``CVMFS_TALK_SOCKET``, or empty.
    """
    directory, _, name = exact_path.rpartition("/")
    directory = directory if exact_path else workspace
    names = iter((name,)) if exact_path else _names(fqrn)
    try:
        opened = os.open(directory or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        log.detail("%s: no talk socket in %s: %s", fqrn, directory, error.strerror)
        return None
    try:
        with _locked(opened):
            for _, one in zip(range(_TRIES_MAX), names, strict=False):
                made = _make(opened, directory, one)
                if made is not None:
                    return made
        log.detail("%s: too many talk sockets in %s", fqrn, directory)
    except OSError as error:
        log.detail("%s: no talk socket in %s: %s", fqrn, directory, error.strerror)
    finally:
        os.close(opened)
    return None


def sockets_of(workspace: str, fqrn: str) -> list[str]:
    """Return the sockets of a repository's mounts, the original's name first.

    Somebody may listen at them or not.
    """
    first = SOCKET_PREFIX + fqrn
    try:
        names = os.listdir(workspace)
    except OSError:
        return []
    wanted = [
        name
        for name in names
        if name == first
        or (name.startswith(first + NUMBER_MARK) and name[len(first) + 1 :].isdecimal())
    ]
    return [f"{workspace}/{name}" for name in sorted(wanted, key=lambda n: (len(n), n))]


def talk(path: str, message: bytes, patience_s: float) -> tuple[bytes, int]:
    """Say something to a mount; return the answer, and the pid of its file server.

    Args:
        path: The socket.
        message: A command.
        patience_s: Seconds without a word after which it is given up.

    Raises:
        SessionError: Nobody listens there, or the answer does not come.
        CacheError: The socket is somebody else's.
    """
    caller = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _limit(caller, patience_s)
        _connect(caller, path)
        pid, uid, _ = _CREDENTIALS.unpack(
            caller.getsockopt(
                _socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size
            )
        )
        if uid not in (os.getuid(), 0):
            raise CacheError(f"{path} belongs to another user")
        caller.sendall(message)
        caller.shutdown(_socket.SHUT_WR)
        _limit(caller, min(_KNOCK_AGAIN_S, patience_s))
        answer = bytearray()
        while data := _next_words(caller, path, patience_s):
            answer += data
        return bytes(answer), pid
    except BlockingIOError as error:
        raise SessionError(
            f"{path}: no answer for {patience_s:g} s",
            hint="its file server may have been stopped",
        ) from error
    except OSError as error:
        raise SessionError(f"{path}: {error.strerror}") from error
    finally:
        caller.close()


def _next_words(caller: _socket.socket, path: str, patience_s: float) -> bytes:
    """Return what comes next, nothing at the end.

    The signal that announces a caller is not heard if it comes in the very moment in
    which the file server begins to wait for requests; so it is sent again.

    Raises:
        BlockingIOError: Nothing came for too long.
        OSError: As the kernel says.
    """
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return caller.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                raise
        with suppress(OSError):
            _knock(path)


def _knock(path: str) -> None:
    knocking = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _limit(knocking, _KNOCK_AGAIN_S)
        _connect(knocking, path)
    finally:
        knocking.close()


def dead_sockets_in(workspace: str) -> list[str]:
    """Return the talk sockets in a directory at which nobody listens."""
    try:
        names = sorted(os.listdir(workspace))
    except OSError:
        return []
    paths = (f"{workspace}/{n}" for n in names if n.startswith(SOCKET_PREFIX))
    return [path for path in paths if is_dead(path)]


def is_dead(path: str) -> bool:
    """Whether this is a socket that nobody listens at."""
    caller = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            _connect(caller, path)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    finally:
        caller.close()
    return False


def remove_if_dead(path: str) -> None:
    """Take away a socket that nobody listens at."""
    if is_dead(path):
        with suppress(OSError):
            os.unlink(path)


def _names(fqrn: str) -> Iterator[str]:
    yield SOCKET_PREFIX + fqrn
    while True:  # by chance: one after the other would be looked at by each session
        number = int.from_bytes(os.urandom(4)) % _NUMBERS
        yield f"{SOCKET_PREFIX}{fqrn}{NUMBER_MARK}{number}"


def _make(opened: int, directory: str, name: str) -> TalkSocket | None:
    """Return a socket of this name; ``None`` if somebody else has it."""
    path = f"/proc/self/fd/{opened}/{name}"  # a path of any length has room there
    listener = _socket.socket(
        _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
    )
    try:
        os.fchmod(listener.fileno(), _MODE)
        if not _bind(listener, path):
            listener.close()
            return None
        status = os.lstat(path)
        _refuse_openness(path, status.st_mode)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return TalkSocket(f"{directory}/{name}", listener, status.st_ino)


def _refuse_openness(path: str, mode: int) -> None:
    if mode & 0o777 & ~_MODE:
        os.unlink(path)
        raise PermissionError(errno.EPERM, "modes of files do not count there")


def _bind(listener: _socket.socket, path: str) -> bool:
    for is_second in (False, True):
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return True
        if not is_second:
            remove_if_dead(path)
    return False


@contextmanager
def _locked(directory: int) -> Iterator[None]:
    """Let nobody else take a name meanwhile, where there are locks."""
    deadline_s = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.001)
        except OSError:
            break
    yield  # the lock ends with the descriptor


def _receive(caller: _socket.socket) -> bytes:
    """Return what a caller says: one message, as it comes in one piece or ends."""
    _limit(caller, CALLER_PATIENCE_S)
    message = bytearray()
    deadline_s = time.monotonic() + CALLER_PATIENCE_S
    while len(message) <= MESSAGE_BYTES_MAX and time.monotonic() < deadline_s:
        data = caller.recv(_RECEIVE_BYTES)
        message += data
        # The original's clients wait for the answer without an end of their own.
        if not data or len(data) < _RECEIVE_BYTES:
            break
    return bytes(message)


def _send(caller: _socket.socket, answer: bytes) -> None:
    view = memoryview(answer)
    deadline_s = time.monotonic() + CALLER_PATIENCE_S
    while view and time.monotonic() < deadline_s:
        view = view[caller.send(view, _socket.MSG_NOSIGNAL) :]


def _limit(caller: _socket.socket, seconds: float) -> None:
    """Let the kernel end what takes longer, connecting included."""
    caller.setblocking(True)  # noqa: FBT003 -- as it is
    limit = _TIME.pack(int(seconds), int(seconds % 1 * 1e6) or 1)
    for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
        caller.setsockopt(_socket.SOL_SOCKET, option, limit)


def _connect(caller: _socket.socket, path: str) -> None:
    directory, _, name = path.rpartition("/")
    opened = os.open(directory or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        caller.connect(f"/proc/self/fd/{opened}/{name}")
    finally:
        os.close(opened)
