"""A directory whose entries are doors: repositories are mounted as they are touched.

Served on ``/cvmfs`` itself. A name that can be a repository's is a directory, without
anybody being asked. What is done *to* such a directory lets the repository be mounted
over it, and is then answered by ESTALE: the kernel walks the path once more, and now
enters the mount.

Facts about the kernel that all of this rests on:

* A mount locks the inode that it covers. While a name is looked up in a directory, that
  is locked too, and while an unknown name is looked up, its parent. So a LOOKUP *in* a
  door cannot wait for the mount. It is answered at once, by ESTALE as well.
* On the second walk (LOOKUP_REVAL) the kernel asks for the door's name again, even
  though it knows the entry, and holds no lock meanwhile: there it can wait. The entry
  must still be known then, or it would be an unknown name; so it is pinned by an open
  descriptor (O_PATH, which sends no request) until the mount is there.
* GETATTR, OPENDIR, ACCESS and the like hold no lock. They wait.
* An entry that a later LOOKUP denies loses what is mounted on it. So a name that was
  given a directory keeps it; only what is done to it fails.

No thread waits: a request that has to is answered by whoever ends its waiting, or at
once if whoever made it is to end.
"""

import errno
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from cvmfsexec.callers import LOOK_S
from cvmfsexec.fuse.faults import FaultAccount
from cvmfsexec.fuse.negotiation import Terms
from cvmfsexec.fuse.operations import Operations
from cvmfsexec.fuse.protocol import (
    ATTR_REPLY,
    ATTR_REPLY_BYTES,
    BLOCK_SIZE,
    BODY_OFFSET,
    ENTRY_REPLY,
    ENTRY_REPLY_BYTES,
    FOREVER_S,
    OPEN_REPLY,
    REQUEST_HEADER,
    Feature,
    Opcode,
    Reply,
    error_reply,
)
from cvmfsexec.fuse.requesters import Requesters
from cvmfsexec.fuse.server import FuseServer
from cvmfsexec.vfs.attributes import (
    FIRST_COOKIE,
    ROOT_INODE,
    Attributes,
    FilesystemStatistics,
)

FEATURES = ~(Feature.NO_OPENDIR_SUPPORT | Feature.DO_READDIRPLUS)
"""Each opening of a directory is to be asked, and none looked up by listing."""

REFUSAL_S = 10.0
"""How long a repository that could not be mounted is not tried again."""

NAME_COUNT_MAX = 100_000

_ENTRY_VALIDITY = struct.pack("<QQQII", 0, FOREVER_S, 0, 0, 0)
_ATTR_VALIDITY = struct.pack("<QII", 0, 0, 0)


class Waiting(NamedTuple):
    """A request that is answered later.

    Attributes:
        unique: Of the request.
        pid: Who made it.
        is_lookup: It wants the entry; the others want to be told to walk again.
    """

    unique: int
    pid: int
    is_lookup: bool

    @classmethod
    def of(cls, request: bytes) -> "Waiting":
        """Return what is to be known of a request."""
        _, opcode, unique, _, _, _, pid, _, _ = REQUEST_HEADER.unpack_from(request)
        return cls(unique, pid, opcode == Opcode.LOOKUP)


class _Door:
    """One name.

    Attributes:
        waiting: Requests; ``None`` while nobody opens it.
        pin: Keeps the kernel's entry while it is being opened.
        refused_until_s: Nobody tries before.
    """

    __slots__ = ("attributes", "name", "pin", "refused_until_s", "waiting")

    def __init__(self, name: bytes, inode: int) -> None:
        self.name = name
        self.attributes = _directory(inode)
        self.waiting: list[Waiting] | None = None
        self.pin = -1
        self.refused_until_s = 0.0


class Doors:
    """The directory, as a ``FileSystem``.

    Threads: any may call; ``_lock`` guards all that changes.
    """

    def __init__(
        self,
        place: str,
        may_exist: Callable[[bytes], bool],
        mount: Callable[[str], bool],
        mounted: Callable[[], Iterable[bytes]],
    ) -> None:
        """Begin with no door.

        Args:
            place: Where the directory is mounted.
            may_exist: Whether a name can be a repository's; asks nobody.
            mount: Mounts a repository, and returns whether it did. Called by a thread
                of its own.
            mounted: Names of what is mounted.
        """
        self._place = place
        self._may_exist = may_exist
        self._mount = mount
        self._mounted = mounted
        self._by_name: dict[bytes, _Door] = {}
        self._by_inode: dict[int, _Door] = {}
        self._lock = threading.Lock()
        self._requesters = Requesters()
        self.reply: Callable[[bytes], object] = lambda _reply: None

    # -- as a file system -----------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """Return the door of a name, if it may have one."""
        door = self._door(name) if parent == ROOT_INODE else None
        return door.attributes if door else None

    def attributes(self, inode: int) -> Attributes | None:
        """Return what a directory looks like that nothing is mounted on."""
        return _directory(inode)

    def list_(self, inode: int, after: int) -> Iterable[tuple[int, bytes, Attributes]]:
        """Return what is mounted."""
        names = sorted(self._mounted()) if inode == ROOT_INODE else []
        for cookie, name in enumerate(names, FIRST_COOKIE):
            door = self._door(name)
            if cookie > after and door is not None:
                yield cookie, name, door.attributes

    def is_listed_now(self, inode: int, cookie: int) -> bool:  # noqa: ARG002
        """Nothing is ever kept of a listing."""
        return True

    def parent(self, inode: int) -> int:  # noqa: ARG002
        """Return the only one there is."""
        return ROOT_INODE

    def readlink(self, inode: int) -> bytes | None:  # noqa: ARG002
        """There is none."""
        return None

    def read(self, inode: int, offset: int, size: int) -> bytes:  # noqa: ARG002
        """There is none."""
        return b""

    def getxattr(self, inode: int, name: bytes, gid: int = 0) -> bytes | None:  # noqa: ARG002
        """There is none."""
        return None

    def listxattr(self, inode: int) -> list[bytes]:  # noqa: ARG002
        """There is none."""
        return []

    def statfs(self) -> FilesystemStatistics:
        """Tell of nothing."""
        return FilesystemStatistics(0, 0, 0, 0)

    def describe(self, inode: int) -> str:
        """Return what messages call an inode."""
        door = self._by_inode.get(inode)
        return f"{self._place}/{os.fsdecode(door.name) if door else ''}"

    # -- as doors -------------------------------------------------------------------

    def is_opening(self, name: bytes, waiting: Waiting) -> bool:
        """Whether a door is being opened; the request then waits for that."""
        with self._lock:
            door = self._by_name.get(name)
            if door is None or door.waiting is None:
                return False
            door.waiting.append(waiting)
            return True

    def knock(self, inode: int, waiting: Waiting | None) -> int:
        """Have a repository mounted; return the errno for now, 0 for "later".

        Args:
            inode: Of the door.
            waiting: The request, if it can wait.
        """
        with self._lock:
            door = self._by_inode.get(inode)
            if door is None:
                return errno.ESTALE
            if time.monotonic() < door.refused_until_s:
                return errno.ENOENT
            if door.waiting is None:
                # Who asks holds the entry, so this walk sends no request.
                with suppress(OSError):
                    path = os.path.join(os.fsencode(self._place), door.name)
                    door.pin = os.open(path, os.O_PATH | os.O_CLOEXEC)
                door.waiting = []
                thread = threading.Thread(target=self._open, args=(door,), daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    self._close_pin(door)
                    door.waiting = None
                    return errno.EAGAIN
            if waiting is None:
                return errno.ESTALE
            door.waiting.append(waiting)
            return 0

    def interrupt(self, unique: int) -> bool:
        """Let a request wait no longer if whoever made it is to end.

        Returns:
            Whether it waits here, or has.
        """
        with self._lock:
            queues = [door.waiting for door in self._by_name.values() if door.waiting]
            found = [one for queue in queues for one in queue if one.unique == unique]
        for one in found:
            if self._requesters.wants_out(one.pid):
                self._let_go(one)
            else:
                self._watch(one)
        return bool(found)

    def _let_go(self, one: Waiting) -> None:
        with self._lock:
            queues = [door.waiting for door in self._by_name.values() if door.waiting]
            found = [queue for queue in queues if one in queue]
            for queue in found:
                queue.remove(one)
        if found:
            self.reply(error_reply(one.unique, errno.EINTR))

    def _watch(self, one: Waiting) -> None:
        """See to one who was sent a signal that ends nobody: the next is not told."""

        def watch() -> None:
            while self._is_waiting(one):
                if self._requesters.is_gone(one.pid, may_be_gone=False):
                    self._let_go(one)
                time.sleep(LOOK_S)

        with suppress(RuntimeError):  # no thread: he waits for the mount
            threading.Thread(target=watch, daemon=True).start()

    def _is_waiting(self, one: Waiting) -> bool:
        with self._lock:
            return any(one in (door.waiting or ()) for door in self._by_name.values())

    def _open(self, door: _Door) -> None:
        is_mounted = False
        try:
            is_mounted = self._mount(os.fsdecode(door.name))
        finally:
            with self._lock:
                waiting, door.waiting = door.waiting or [], None
                if not is_mounted:
                    door.refused_until_s = time.monotonic() + REFUSAL_S
            for one in waiting:
                self.reply(_outcome(door, one, is_mounted=is_mounted))
            with self._lock:
                self._close_pin(door)

    def _close_pin(self, door: _Door) -> None:
        if door.waiting is None and door.pin >= 0:
            os.close(door.pin)
            door.pin = -1

    def _door(self, name: bytes) -> _Door | None:
        with self._lock:
            door = self._by_name.get(name)
            if door is not None:
                return door
            if not self._may_exist(name) or len(self._by_name) >= NAME_COUNT_MAX:
                return None
            door = _Door(name, ROOT_INODE + 1 + len(self._by_name))
            self._by_name[name] = door
            self._by_inode[door.attributes.inode] = door
            return door


class DoorOperations(Operations):
    """The requests of a directory of doors."""

    def __init__(self, doors: Doors, terms: Terms, faults: FaultAccount) -> None:
        """As its base class."""
        self._doors = doors
        super().__init__(doors, terms, faults)

    def _table(self) -> list[Callable[[int, int, bytes], Reply]]:
        table = super()._table()
        table[Opcode.LOOKUP] = self._lookup
        for opcode in (
            Opcode.GETATTR,
            Opcode.OPENDIR,
            Opcode.ACCESS,
            Opcode.STATFS,
            Opcode.GETXATTR,
            Opcode.LISTXATTR,
        ):
            table[opcode] = self._knocking(table[opcode])
        table[Opcode.GETATTR] = self._knocking(self._getattr_root)
        table[Opcode.OPENDIR] = self._knocking(_open_root)
        table[Opcode.ACCESS] = self._knocking(_allow)
        return table

    def _knocking(
        self, at_root: Callable[[int, int, bytes], Reply]
    ) -> Callable[[int, int, bytes], Reply]:
        """Return a handler for what is done to the root, or else to a door."""

        def handler(nodeid: int, unique: int, request: bytes) -> Reply:
            if nodeid == ROOT_INODE:
                return at_root(nodeid, unique, request)
            number = self._doors.knock(nodeid, Waiting.of(request))
            return error_reply(unique, number) if number else None

        return handler

    def _lookup(self, nodeid: int, unique: int, request: bytes) -> Reply:
        name = request[BODY_OFFSET:-1]
        if nodeid != ROOT_INODE:
            return error_reply(unique, self._doors.knock(nodeid, None))
        if self._doors.is_opening(name, Waiting.of(request)):
            return None
        found = self._doors.lookup(nodeid, name)
        if found is None:
            return error_reply(unique, errno.ENOENT)  # and ask again the next time
        return _entry(unique, found)

    def _getattr_root(self, nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG002
        fields = _fields(_directory(nodeid))
        return ATTR_REPLY.pack(ATTR_REPLY_BYTES, 0, unique, _ATTR_VALIDITY, *fields)


class DoorServer(FuseServer):
    """Serves a directory of doors."""

    def __init__(self, device_fd: int, doors: Doors) -> None:
        """Prepare; the doors get the device to answer on."""
        super().__init__(device_fd, doors, mask=FEATURES)
        self._doors = doors
        doors.reply = lambda reply: _write(device_fd, reply)

    def operations(self, terms: Terms) -> Operations:
        """Return what answers the requests."""
        return DoorOperations(self._doors, terms, self.faults)

    def interrupt(self, unique: int) -> bool:
        """See ``FuseServer``; most requests wait at a door, not in a thread."""
        return self._doors.interrupt(unique) or super().interrupt(unique)


def _write(device: int, reply: bytes) -> None:
    with suppress(OSError):  # nobody waits for it any more
        os.write(device, reply)


def _outcome(door: _Door, one: Waiting, *, is_mounted: bool) -> bytes:
    """Return the reply to a request that has waited."""
    if one.is_lookup:
        # Denied, the entry would lose its mount if another one mounts meanwhile.
        return _entry(one.unique, door.attributes)
    return error_reply(one.unique, errno.ESTALE if is_mounted else errno.ENOENT)


def _open_root(nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG001
    return OPEN_REPLY.pack(OPEN_REPLY.size, 0, unique, 0, 0, 0)


def _allow(nodeid: int, unique: int, request: bytes) -> Reply:  # noqa: ARG001
    return error_reply(unique, 0)


def _entry(unique: int, found: Attributes) -> bytes:
    return ENTRY_REPLY.pack(
        ENTRY_REPLY_BYTES, 0, unique, found.inode, _ENTRY_VALIDITY, *_fields(found)
    )


def _fields(found: Attributes) -> tuple[int | bytes, ...]:
    inode, size, blocks, mtime, nanos, mode, nlink, uid, gid, rdev = found
    times = (mtime, mtime, mtime, nanos, nanos, nanos)
    return (inode, size, blocks, *times, mode, nlink, uid, gid, rdev, BLOCK_SIZE)


def _directory(inode: int) -> Attributes:
    return Attributes(inode, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0)
