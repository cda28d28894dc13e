"""Repositories mounted for the whole host (mode 1): in the background, until unmounted.

Each has a file server of its own that nobody waits for, and a keeper that takes the
mount away when the file server has ended in whatever way. Who mounts a repository
holds a lock that dies with its holder, so that of two at once one mounts and the other
waits for it. What a crash has left all the same is taken away by the next mount.
"""

import fcntl
import os
import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.configuration.mount_places import MountPlace
from cvmfsexec.errors import ConfigurationError, CvmfsError, FusermountError
from cvmfsexec.namespaces.daemon import Daemon, start_daemon
from cvmfsexec.namespaces.fusermount import Fusermount
from cvmfsexec.namespaces.inquiry import ask
from cvmfsexec.namespaces.mount_table import Mount, read_mount_table
from cvmfsexec.namespaces.plan import Service

if TYPE_CHECKING:
    from cvmfsexec.format.pinned_name import Pin

SOURCE = "/dev/fuse"
"""What the mount table shows first, and ``findmnt -S /dev/fuse`` looks for."""

UNMOUNT_WAIT_S = 10.0
"""How long the end of a file server is waited for; it has nothing left to do."""

ANSWER_WAIT_S = 5.0
"""How long a file server has to answer; it does so out of its memory."""

HANGING_HINT = "let it go on if it was stopped, or take it away: umountrepo -z"

ExitStatusOf = Callable[[CvmfsError], int]


class MountRequest(NamedTuple):
    """How repositories are to be mounted.

    Attributes:
        root: Where the configuration is.
        place: Where they are mounted.
        environment: The user's environment.
        uid: The user's number.
        gid: The user's group.
        helper: Mounts and unmounts.
        allow_other: Other users may read.
        pin: The revision that is wanted; ``None`` for what is configured.
    """

    root: ConfigurationRoot
    place: MountPlace
    environment: Mapping[str, str]
    uid: int
    gid: int
    helper: Fusermount
    allow_other: bool = False
    pin: "Pin | None" = None


class Condition(Enum):
    """What becomes of those who look at a mount."""

    ANSWERS = b"answers"
    IS_DEAD = b"dead"
    IS_NOT_OURS = b"not ours"
    HANGS = b""


def mount(
    request: MountRequest,
    fqrn: str,
    configuration_repository: str,
    exit_status_of: ExitStatusOf,
) -> None:
    """Mount a repository, unless it is; the one that configures it before.

    Args:
        request: How.
        fqrn: The repository.
        configuration_repository: What configures it, or empty. If that cannot be
            mounted, it is left to ``fqrn`` whether to go on without.
        exit_status_of: Status for an error in the file server.

    Raises:
        CvmfsError: It is not mounted.
    """
    request.helper.require()
    first = configuration_repository
    directory = None
    if first and first != fqrn:
        try:
            _mount_one(request._replace(pin=None), first, None, exit_status_of)
            directory = request.place.mountpoint(first)
        except CvmfsError as error:
            log.warning("%s: %s", first, error)
    _mount_one(request, fqrn, directory, exit_status_of)


def mounted(places: tuple[MountPlace, ...], uid: int) -> list[str]:
    """Return the mount points of a dist's repositories, the latest mount first.

    Args:
        places: Where they may be.
        uid: The user whose mounts they are; those of others are left out, unless the
            user is root.
    """
    directories = {place.directory for place in places}
    return [
        one.mountpoint
        for one in reversed(read_mount_table())
        if one.is_fuse
        and os.path.dirname(one.mountpoint) in directories
        and (uid == 0 or f"user_id={uid}" in one.super_options)
    ]


def conditions(mountpoints: Iterable[str]) -> dict[str, Condition]:
    """Tell how mounts are, without hanging where a file server does."""
    questions = {one: partial(_try, one) for one in mountpoints}
    answers = ask(questions, ANSWER_WAIT_S)
    return {one: Condition(answer) for one, answer in answers.items()}


def unmount(helper: Fusermount, mountpoint: str, *, is_lazy: bool) -> None:
    """Take a mount away, wait for the end of its file server, remove the directory.

    With ``is_lazy`` nobody is waited for; nor is a file server that does not answer.

    Raises:
        CvmfsError: It is still mounted.
    """
    server = None if is_lazy else _open_server(mountpoint)
    try:
        helper.unmount(mountpoint, is_lazy=is_lazy)
        if server is not None:
            waiting = select.poll()
            waiting.register(server, select.POLLIN)
            waiting.poll(UNMOUNT_WAIT_S * 1000)
    finally:
        if server is not None:
            os.close(server)
    with suppress(OSError):
        os.rmdir(mountpoint)


def heal(helper: Fusermount, mountpoint: str) -> bool:
    """Take away a mount whose file server is dead; return whether one is alive.

    Raises:
        FusermountError: It is dead, and cannot be taken away; or nobody can tell.
    """
    while _find(mountpoint) is not None:
        condition = conditions((mountpoint,))[mountpoint]
        if condition is Condition.ANSWERS:
            return True
        if condition is Condition.IS_NOT_OURS:
            raise FusermountError(
                f"{mountpoint} is a mount of another user",
                hint="use a dist of your own, or ask that user for --allow-other",
            )
        if condition is Condition.HANGS:
            raise FusermountError(
                f"{mountpoint} is mounted, but its file server does not answer",
                hint=HANGING_HINT,
            )
        log.detail("unmounting %s, left behind", mountpoint)
        helper.unmount(mountpoint, is_lazy=True)
    return False


def _try(mountpoint: str) -> bytes:
    try:
        os.stat(mountpoint)
        os.statvfs(mountpoint)  # is never answered out of the kernel's memory
    except PermissionError:
        return Condition.IS_NOT_OURS.value
    except OSError:
        return Condition.IS_DEAD.value
    return Condition.ANSWERS.value


def _mount_one(
    request: MountRequest,
    fqrn: str,
    configuration_directory: str | None,
    exit_status_of: ExitStatusOf,
) -> None:
    mountpoint = request.place.mountpoint(fqrn)
    with _locked(request.place.lock_path(fqrn)) as lock:
        if heal(request.helper, mountpoint):
            if request.pin is not None:
                _check_shown(fqrn, mountpoint, request.pin)
            log.detail("%s is mounted at %s", fqrn, mountpoint)
            return
        _make_directory(mountpoint)
        service = _service(request, fqrn, configuration_directory, exit_status_of)
        clear_away = partial(
            _clear_away, request.helper, mountpoint, request.place.lock_path(fqrn)
        )
        start_daemon(Daemon(service, clear_away, held=(lock,)))
        if not heal(request.helper, mountpoint):  # waits until the mount answers
            raise FusermountError(f"the file server of {fqrn} was killed at once")
        log.detail("%s: mounted at %s", fqrn, mountpoint)


def _check_shown(fqrn: str, mountpoint: str, pin: "Pin") -> None:
    """Refuse to be content with a mount that shows something else than is wanted."""
    told = {"CVMFS_ROOT_HASH": "user.root_hash", "CVMFS_REPOSITORY_TAG": "user.tag"}
    shown = b""
    with suppress(KeyError, OSError):
        shown = os.getxattr(mountpoint, told[pin.parameter])
    if shown.decode(errors="replace") != pin.value:
        raise ConfigurationError(
            f"{fqrn} is mounted already, perhaps not as {pin.value}",
            hint=f"unmount it first: umountrepo {fqrn}",
        )


def _service(
    request: MountRequest,
    fqrn: str,
    configuration_directory: str | None,
    exit_status_of: ExitStatusOf,
) -> Service:
    from cvmfsexec.file_server import FileServer, Host, ServedRepository

    host = Host(
        request.root,
        request.environment,
        request.uid,
        request.gid,
        is_in_namespace=False,
    )
    repository = ServedRepository(
        fqrn,
        request.place.mountpoint(fqrn),
        configuration_directory,
        can_be_absent=False,
        pin=request.pin,
    )
    mount_call = partial(
        request.helper.mount, source=SOURCE, allow_other=request.allow_other
    )
    server = FileServer
    if request.root.wants_original_client:
        from cvmfsexec.original_client import OriginalServer as server  # noqa: N813
    return Service(fqrn, server(repository, host, exit_status_of, mount_call).run)


def _clear_away(helper: Fusermount, mountpoint: str, lock_path: str) -> None:
    """Take away what a file server has left behind; the keeper's work."""
    with _locked(lock_path), suppress(OSError):  # nobody mounts anew meanwhile
        if not heal(helper, mountpoint):
            os.rmdir(mountpoint)


@contextmanager
def _locked(path: str) -> Iterator[int]:
    """Hold a lock that also dies with its holder, and with all who share it."""
    _make_directory(os.path.dirname(path))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot open {path}: {error.strerror}") from error
    try:
        # A file system without locks: as before there were any.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot create {path}: {error.strerror}") from error


def _find(mountpoint: str) -> Mount | None:
    """Return the file system of a program that is seen at a place."""
    found = [one for one in read_mount_table() if one.mountpoint == mountpoint]
    return found[-1] if found and found[-1].is_fuse else None


def _open_server(mountpoint: str) -> int | None:
    """Return a descriptor of the process that serves a mount, if it is known."""
    question = partial(os.getxattr, mountpoint, "user.pid")
    answer = ask({mountpoint: question}, ANSWER_WAIT_S)[mountpoint]
    try:
        pid = int(answer)
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
            is_server = name.read().startswith(("cvmfs:", "cvmfs2"))
        return os.pidfd_open(pid) if is_server else None
    except (OSError, ValueError):
        return None  # dead, hung, or from a pid namespace that is not ours
