"""What the file server of a container is told: a file, for its eyes only, once.

The container program starts it with an empty environment, perhaps in the container,
where neither the configuration's shell nor the user's home need be. So whoever starts
the container evaluates the configuration before, and leaves the result in a file that
only the user can read: the environment may hold secrets. The file server removes it as
soon as it has read it.

Some files nobody comes for: there was no container, after all, or it ended at once. A
process that lives no longer than the files takes those away, as soon as whoever starts
the container has ended. If that is killed as well, a run of the next day does it.
"""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from cvmfsexec.configuration.evaluate import Configuration
from cvmfsexec.configuration.files import ConfigurationRepository
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.names import check_fqrn
from cvmfsexec.format.parameters import Parameter
from cvmfsexec.namespaces import descriptors, syscalls

HANDOVER_BYTES_MAX = 16 << 20
_ABANDONED_AFTER_S = 24 * 3600.0
_LOOK_AGAIN_S = 0.1
_GRACE_S = 10.0
"""How long the file servers of an instance may take: it goes on without its starter."""

_PREFIX = "singcvmfs."
_NUMBER_MAX = 2**32 - 1

_Value = TypeVar("_Value")


class Handover(NamedTuple):
    """All that a file server has to know.

    Attributes:
        fqrn: The repository.
        root: Where its configuration came from, and where caches and logs go.
        values: Its parameters.
        config_repository: What configures it, if anything does.
        repository: Where that can be read.
        environment: Of the user.
        uid: The user's number on the host.
        gid: The user's group on the host.
        umask: The user's.
    """

    fqrn: str
    root: ConfigurationRoot
    values: dict[str, Parameter]
    config_repository: str | None
    repository: ConfigurationRepository | None
    environment: dict[str, str]
    uid: int
    gid: int
    umask: int

    @property
    def configuration(self) -> Configuration:
        """The configuration, as if it had been evaluated here."""
        return Configuration(
            self.fqrn,
            self.values,
            self.root,
            self.config_repository,
            self.repository,
        )

    def dump(self) -> bytes:
        """Return the file's content."""
        return json.dumps(self._asdict()).encode()


def parse(data: bytes) -> Handover:
    """Read a file's content.

    Raises:
        FormatError: It is not what :meth:`Handover.dump` wrote.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"a handover is not JSON: {error}") from error
    fields = _fields(document)
    root = ConfigurationRoot(*_sequence(fields["root"], len(ConfigurationRoot._fields)))
    return Handover(
        fqrn=_name(fields["fqrn"]),
        root=_root(root),
        values=_table(fields["values"], _parameter),
        config_repository=_optional(fields["config_repository"], _name),
        repository=_optional(fields["repository"], _repository),
        environment=_table(fields["environment"], _text),
        uid=_number(fields["uid"]),
        gid=_number(fields["gid"]),
        umask=_number(fields["umask"]) & 0o777,
    )


def make_place(parent: str) -> str:
    """Return a new directory for the files of one run; old ones are cleared away.

    Args:
        parent: A directory of the user that nobody else can enter.

    Raises:
        ConfigurationError: It cannot be made.
    """
    import tempfile

    try:
        _remove_abandoned(parent)
        return tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    except OSError as error:
        raise _cannot_write(parent, error) from error


def leave(place: str, handover: Handover) -> str:
    """Write a file for a file server, and return its path.

    Raises:
        ConfigurationError: It cannot be written.
    """
    path = os.path.join(place, handover.fqrn)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(handover.dump())
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def take(path: str) -> Handover:
    """Read a file and remove it; the last one takes the directory along.

    Raises:
        ConfigurationError: It is not there.
        FormatError: It is something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(HANDOVER_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > HANDOVER_BYTES_MAX:
        raise FormatError(f"{path} is too long")
    handover = parse(data)
    with suppress(OSError):
        os.unlink(path)
        os.rmdir(os.path.dirname(path))
    return handover


def discard(place: str) -> None:
    """Remove a run's directory with all that is in it."""
    with suppress(OSError):
        for name in os.listdir(place):
            os.unlink(os.path.join(place, name))
        os.rmdir(place)


def watch_over(place: str, *, is_instance: bool) -> None:
    """Start a process that takes a run's directory away if nobody else does.

    Args:
        place: The directory.
        is_instance: The container goes on when this process, which is to start it, has
            ended.
    """
    starter = os.getpid()
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:  # a child that it does not know might confuse the starter
            descriptors.let_go(descriptors.find_inherited())
            os.dup2(descriptors.STANDARD_OUTPUT, descriptors.STANDARD_ERROR)
            syscalls.set_process_name(_PREFIX.rstrip("."))
            _watch(place, starter, _GRACE_S if is_instance else 0.0)
    finally:
        os._exit(0)


def _watch(place: str, starter: int, grace_s: float) -> None:
    """Return when a place is not needed any more, and is gone."""
    is_used = False
    while os.path.isdir(place) and _is_alive(starter):
        if is_used and _is_empty(place):
            break
        is_used = is_used or not _is_empty(place)
        time.sleep(_LOOK_AGAIN_S)
    deadline_s = time.monotonic() + grace_s
    while not _is_empty(place) and time.monotonic() < deadline_s:
        time.sleep(_LOOK_AGAIN_S)
    discard(place)


def _is_empty(place: str) -> bool:
    """Whether there is nothing in it, or it is gone."""
    try:
        return not os.listdir(place)
    except OSError:
        return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is set-uid
    return True


def _remove_abandoned(parent: str) -> None:
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        with suppress(OSError):
            if (
                name.startswith(_PREFIX)
                and time.time() - os.lstat(path).st_mtime > _ABANDONED_AFTER_S
            ):
                discard(path)


def _cannot_write(path: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot write {path}: {error.strerror}",
        hint="name a directory of your own with TMPDIR",
    )


def _fields(document: object) -> dict[str, object]:
    if not isinstance(document, dict) or document.keys() != set(Handover._fields):
        raise FormatError("a handover has other fields")
    return document


def _root(root: ConfigurationRoot) -> ConfigurationRoot:
    """Return a root whose fields are what they should be."""
    kinds = [type(default) for default in ConfigurationRoot("")]
    for value, kind in zip(root, kinds, strict=True):
        if type(value) is not (list if kind is tuple else kind):
            raise FormatError("a handover has a place of another kind")
    directories = map(_text, root.user_directories)
    return root._replace(user_directories=tuple(directories))


def _parameter(value: object) -> Parameter:
    return Parameter(*map(_text, _sequence(value, len(Parameter._fields))))


def _repository(value: object) -> ConfigurationRepository:
    length = len(ConfigurationRepository._fields)
    return ConfigurationRepository(*map(_text, _sequence(value, length)))


def _sequence(value: object, length: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != length:
        raise FormatError(f"a handover has a list that is not of {length} values")
    return value


def _table(value: object, read: Callable[[object], _Value]) -> dict[str, _Value]:
    if not isinstance(value, dict):
        raise FormatError("a handover has a table that is none")
    return {name: read(one) for name, one in value.items()}


def _optional(value: object, read: Callable[[object], _Value]) -> _Value | None:
    return None if value is None else read(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise FormatError("a handover has a text that is none")
    return value


def _name(value: object) -> str:
    try:
        return check_fqrn(_text(value))
    except ConfigurationError as error:
        raise FormatError(f"a handover has a name that is none: {error}") from error


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _NUMBER_MAX:
        raise FormatError("a handover has a number that is none")
    return value
