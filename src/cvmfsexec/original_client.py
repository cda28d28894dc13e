"""The original client in the place of ours, for sites that insist on it.

``makedist --client original`` puts it below ``DIST/usr``. Namespaces, mounts, lifetimes
and commands stay ours: our process for a repository mounts it and starts
``cvmfs2 -f -o config=FILE REPOSITORY /dev/fd/N`` as its child, with the opened FUSE
device. A client that has only the module for libfuse 2 cannot be given a device, and
mounts itself.

Facts about the client that this relies on:

* In the foreground it stays the process that was started, and serves it. It answers the
  kernel only after the repository was opened and verified; before, it ends with a
  number that tells what went wrong.
* It reads the configuration that it is given by a shell, and nothing else.
* libfuse leaves signals that are ignored at its start ignored. So polite signals for
  the payload do not take the software away from it.
* One client after the other can use a cache directory, and clients that a cache manager
  serves together; so not those of two sessions at once. It ends with 24 then.

Source: docs/reference/makedist.md, "The original client"; its failure codes are those
of CernVM-FS, ``loader.h``.
"""

import contextlib
import glob
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from signal import Signals
from typing import NamedTuple, NoReturn

from cvmfsexec import log
from cvmfsexec.configuration.evaluate import Configuration
from cvmfsexec.configuration.requirements import check_requirements
from cvmfsexec.configuration.storage import prepare_stand_in
from cvmfsexec.errors import CacheError, ConfigurationError, ServiceFailedError
from cvmfsexec.file_server import READ_BYTES_MAX, FileServer, Host
from cvmfsexec.format.parameters import quoted
from cvmfsexec.namespaces import descriptors, signals, syscalls
from cvmfsexec.namespaces.plan import ServiceChannel

_DIRECTORY = "original"
"""Below CVMFS_CACHE_BASE: what our client keeps there is not for another one."""

_LIBRARY_DIRECTORIES = ("usr/lib64", "usr/lib", "usr/lib/*-linux-gnu")
_AUTHZ_HELPERS = "usr/libexec/cvmfs/authz"
_IGNORED = signals.ENDING | {Signals.SIGUSR2}
_LINES_KEPT = 20
_LINE_BYTES_MAX = 500
_POLL_S = 0.01
_LIBRARY_FAILED = 7
_LOADER_FAILED = (126, 127)
_ENDED_AT_ONCE = 21
_KILLED = 6

_REASONS = {
    1: "for a reason that it does not name",
    2: "it does not understand its options",
    3: "permission was denied",
    4: "it cannot mount",
    5: "it cannot make the socket on which it listens",
    6: "it cannot serve the mount",
    _LIBRARY_FAILED: "a library cannot be loaded",
    8: "its libraries are of another version",
    9: "its cache directory cannot be used",
    10: "the cache manager does not answer",
    11: "its map of inodes for NFS cannot be used",
    12: "its quota cannot be managed",
    13: "its watchdog cannot be started",
    14: "it cannot make the socket for cvmfs_talk",
    15: "a signature cannot be verified",
    16: "the repository cannot be read",
    17: "it cannot pause for maintenance",
    18: "it cannot save its state",
    19: "it cannot restore its state",
    20: "something is mounted there already",
    _ENDED_AT_ONCE: "it is mounted by this client already",
    22: "the history cannot be read",
    23: "no proxy could be found",
    24: "another client uses its cache directory",
    25: "the blacklist asks for a newer revision",
}
"""By its exit status; ours are the same numbers."""

_HINTS = {
    _LIBRARY_FAILED: "make the dist again with all packages: makedist --client "
    "original",
    24: "the original client serves one session at a time from a cache: set "
    "CVMFS_CACHE_BASE to a directory of its own for each",
}


class InstalledClient(NamedTuple):
    """The client in a dist.

    Attributes:
        program: Path of ``cvmfs2``.
        library_directories: Where its libraries are.
        takes_device: Whether it can be given a mount that is there already.
    """

    program: str
    library_directories: tuple[str, ...]
    takes_device: bool


class Errand(NamedTuple):
    """What the client is started with.

    Attributes:
        line: Program and arguments but for the last one, the mount point.
        environment: What it finds in its environment.
    """

    line: tuple[str, ...]
    environment: Mapping[str, str]


class OriginalServer(FileServer):
    """One repository of a session, served by the original client."""

    def _serve(self, channel: ServiceChannel) -> None:
        fqrn, mountpoint = self._repository[:2]
        client = find_client(self._host.root.dist)
        configuration = self._configuration(channel)
        check_requirements(configuration)
        file = _write_configuration(configuration)
        errand = Errand(
            (client.program, "-f", "-o", self._options(file, client), fqrn),
            _environment(client, self._host),
        )
        channel.wait_for_root()
        channel.wait_for_dependencies()
        if client.takes_device:
            process = self._start_with_device(errand, mountpoint, configuration)
        else:
            process = _Process(errand, mountpoint, -1)
        try:
            process.wait_until_mounted(mountpoint)
        except ServiceFailedError:
            if self._host.is_in_namespace:  # elsewhere others clear away
                with contextlib.suppress(Exception):
                    syscalls.umount2(mountpoint, syscalls.MNT_DETACH)
            raise
        log.detail("%s: the original client serves %s", fqrn, mountpoint)
        self._can_be_absent = False
        channel.ready()
        process.wait_for_end()

    def _options(self, file: str, client: InstalledClient) -> str:
        is_alone = client.takes_device or not self._host.is_in_namespace
        return f"config={file}" if is_alone else f"config={file},allow_other"

    def _start_with_device(
        self, errand: Errand, mountpoint: str, configuration: Configuration
    ) -> "_Process":
        checks = configuration.boolean("CVMFS_CHECK_PERMISSIONS", default=True)
        device = self._mount(
            mountpoint, max_read_bytes=READ_BYTES_MAX, default_permissions=checks
        )
        if self._host.is_in_namespace:
            syscalls.keep_capabilities()
        process = _Process(errand, f"/dev/fd/{device}", device)
        os.close(device)  # or the mount would outlive the client
        return process


def find_client(dist: str) -> InstalledClient:
    """Return the client that was put into a dist.

    Raises:
        ConfigurationError: It is not there, or not whole.
    """
    program = os.path.join(dist, "usr/bin/cvmfs2")
    hint = "make the dist again: makedist --client original …"
    if not os.access(program, os.X_OK):
        raise ConfigurationError(
            f"the original client is not there: {program} is no program", hint=hint
        )
    patterns = (os.path.join(glob.escape(dist), one) for one in _LIBRARY_DIRECTORIES)
    directories = tuple(path for one in patterns for path in sorted(glob.glob(one)))
    modules = {
        version
        for directory in directories
        for version in ("3", "")
        if glob.glob(f"{glob.escape(directory)}/libcvmfs_fuse{version}.so*")
    }
    if not modules:
        raise ConfigurationError(
            f"the original client is not whole: there is no libcvmfs_fuse3.so in "
            f"{dist}/usr/lib*",
            hint=hint,
        )
    return InstalledClient(program, directories, "3" in modules)


def relocated(configuration: Configuration) -> dict[str, str]:
    """Return the parameters as the client is to see them: with paths of this machine.

    A value of which all parts between colons are absolute paths is one, or a list.
    """
    base = configuration.path("CVMFS_CACHE_BASE", "/var/lib/cvmfs")
    directory = os.path.join(base, _DIRECTORY)
    values = {
        "CVMFS_CHECK_PERMISSIONS": "yes",
        "CVMFS_CLAIM_OWNERSHIP": "yes",
        "CVMFS_MOUNT_DIR": "/cvmfs",
    }
    helpers = os.path.join(configuration.root.dist, _AUTHZ_HELPERS)
    if os.path.isdir(helpers):
        values["CVMFS_AUTHZ_SEARCH_PATH"] = helpers
    for name, parameter in configuration.items():
        if parameter.value:
            values[name] = _relocated_value(parameter.value, configuration)
    values["CVMFS_CACHE_BASE"] = directory
    values["CVMFS_RELOAD_SOCKETS"] = os.path.join(directory, "run")
    return values


def _relocated_value(value: str, configuration: Configuration) -> str:
    parts = value.split(":")
    if not all(part.startswith("/") for part in parts):
        return value
    return ":".join(map(configuration.resolve_path, parts))


def _write_configuration(configuration: Configuration) -> str:
    """Write the file that the client reads; return its path.

    It stays: the client reads it again when it is told to reload. Sessions of one dist
    write the same.
    """
    values = relocated(configuration)
    directory = values["CVMFS_RELOAD_SOCKETS"]
    path = os.path.join(directory, f"{configuration.fqrn}.conf")
    if set(path) & set(",:\n"):
        raise ConfigurationError(
            f"the original client cannot be told of {path}",
            hint="set CVMFS_CACHE_BASE to a path without commas and colons",
        )
    text = "".join(f"{name}={quoted(value)}\n" for name, value in values.items())
    temporary = f"{path}.{os.getpid()}"
    try:
        prepare_stand_in(configuration.root, directory)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if log_file := values.get("CVMFS_USYSLOG"):
            os.makedirs(os.path.dirname(log_file), exist_ok=True)
        with open(temporary, "wb") as stream:
            stream.write(os.fsencode(text))
        os.replace(temporary, path)
    except OSError as error:
        raise CacheError(f"cannot write {path}: {error.strerror}") from error
    return path


def _environment(client: InstalledClient, host: Host) -> dict[str, str]:
    environment = dict(host.environment)
    for name in ("LD_PRELOAD", "LD_AUDIT"):  # made for the user's programs
        environment.pop(name, None)
    libraries = ":".join(client.library_directories)
    environment["CVMFS_LIBRARY_PATH"] = libraries
    before = environment.get("LD_LIBRARY_PATH")
    environment["LD_LIBRARY_PATH"] = f"{libraries}:{before}" if before else libraries
    # In the session it would look for the token of uid 0.
    runtime = environment.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108
    environment.setdefault("BEARER_TOKEN_FILE", f"{runtime}/bt_u{host.uid}")
    environment.setdefault("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
    return environment


class _Process:
    """The client's process; its messages are read by a thread of ours."""

    def __init__(self, errand: Errand, target: str, device: int) -> None:
        self._said: deque[str] = deque(maxlen=_LINES_KEPT)
        heard, saying = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _become_client(errand, target, (device, saying), parent)
        os.close(saying)
        import threading

        self._listener = threading.Thread(
            target=self._listen, args=(heard,), name="client's words", daemon=True
        )
        self._listener.start()

    def wait_until_mounted(self, mountpoint: str) -> None:
        """Return when the client answers.

        Raises:
            ServiceFailedError: It has ended, and why.
        """
        for is_answered in _answers(mountpoint):
            if is_answered:
                return
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                raise self._failure(os.waitstatus_to_exitcode(status))
            time.sleep(_POLL_S)

    def wait_for_end(self) -> None:
        """Return when the client has ended after an unmount.

        Raises:
            ServiceFailedError: It ended in another way.
        """
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if code:
            raise self._failure(code)

    def _listen(self, heard: int) -> None:
        with open(heard, "rb") as stream:
            while line := stream.readline(_LINE_BYTES_MAX):
                text = line.decode("utf-8", "backslashreplace").rstrip()
                log.debug("original client: %s", text)
                if text:
                    self._said.append(text)

    def _failure(self, code: int) -> ServiceFailedError:
        self._listener.join(1)  # children of it may hold on to the pipe
        return reason_of(code, self._said[-1] if self._said else "")


def reason_of(code: int, said: str) -> ServiceFailedError:
    """Return the error for a client that has ended.

    Args:
        code: Its exit status, or a negative number of a signal.
        said: Its last line on standard error.
    """
    last = f"; it said: {said}" if said else ""
    if code < 0:
        how = f"was killed by {signals.signal_name(-code)}"
        return ServiceFailedError(f"the original client {how}{last}", status=_KILLED)
    status = _LIBRARY_FAILED if code in _LOADER_FAILED else code or _ENDED_AT_ONCE
    reason = _REASONS.get(status, "for a reason that has no number")
    return ServiceFailedError(
        f"the original client ended with status {code}: {reason}{last}",
        status=status if status in _REASONS else 1,
        hint=_HINTS.get(status, ""),
    )


def _answers(mountpoint: str) -> Iterator[bool]:
    """Yield, again and again, whether the file system at a place answers.

    While a client has a mount and does not answer yet, the question waits; without a
    client it fails at once.
    """
    before = os.stat(os.path.dirname(mountpoint)).st_dev
    while True:
        try:
            yield os.stat(mountpoint).st_dev != before
        except OSError:
            yield False


def _become_client(
    errand: Errand, target: str, given: tuple[int, int], parent: int
) -> NoReturn:
    device, saying = given
    try:
        syscalls.set_parent_death_signal(Signals.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, descriptors.STANDARD_INPUT)
        os.dup2(nowhere, descriptors.STANDARD_OUTPUT)  # tells of its progress
        os.dup2(saying, descriptors.STANDARD_ERROR)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        for number in (*signals.JOB_CONTROL, Signals.SIGPIPE, Signals.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if device >= 0:
            os.set_inheritable(device, True)  # noqa: FBT003 -- positional only
        os.execve(errand.line[0], (*errand.line, target), dict(errand.environment))  # noqa: S606
    except OSError as error:
        os.write(descriptors.STANDARD_ERROR, f"{error.strerror}\n".encode())
    finally:
        os._exit(_LOADER_FAILED[0])
