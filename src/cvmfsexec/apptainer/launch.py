"""From repositories that are ready to the words that are executed."""

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

from cvmfsexec.apptainer.command_line import CommandLine
from cvmfsexec.apptainer.composition import (
    IMAGE_PLACE,
    RUNTIME_PLACE,
    Bind,
    ServerKind,
    bind_words,
    container_server,
    fusemount_words,
    without_covered,
)
from cvmfsexec.apptainer.program import ContainerProgram, has_host_kind
from cvmfsexec.apptainer.runtime import runtime_directory
from cvmfsexec.configuration.cache_instances import StoreSettings
from cvmfsexec.configuration.evaluate import Configuration
from cvmfsexec.configuration.keys import key_paths
from cvmfsexec.configuration.settings import ClientSettings, log_places
from cvmfsexec.configuration.storage import is_private, prepare_private
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.parameters import Parameter
from cvmfsexec.fusemount import handover as handovers
from cvmfsexec.fusemount.handover import Handover

MOUNT_DIRECTORY = "/cvmfs"

_SHARED_CACHE = "CVMFS_SHARED_CACHE"
_CONTAINER = ServerKind.CONTAINER


class CacheImage(NamedTuple):
    """A file system image with the cache in it.

    Attributes:
        path: Absolute path of the image.
        directory: Which of its directories.
    """

    path: str
    directory: str


class Order(NamedTuple):
    """How a container is to be started.

    Attributes:
        program: What starts it.
        line: What the user typed.
        options: More options for the container program.
        environment: Of the user.
        server: Path of this command, by which file servers are started.
        kind: Where file servers are to run; ``None`` for where they can.
        image: What holds the cache; ``None`` for a directory of the host.
    """

    program: ContainerProgram
    line: CommandLine
    options: tuple[str, ...]
    environment: Mapping[str, str]
    server: str
    kind: ServerKind | None = None
    image: CacheImage | None = None


def decide_kind(order: Order) -> Order:
    """Return the order with the place where its file servers run.

    On the host if they can: there nothing has to be bound, whatever the image is.

    Raises:
        ConfigurationError: They cannot run where they have to.
    """
    if order.image is not None:
        if order.kind is ServerKind.HOST:
            raise ConfigurationError(
                "a cache image is seen in the container only",
                hint="leave SINGCVMFS_SERVER out, or SINGCVMFS_CACHEIMAGE",
            )
        kind = _CONTAINER
    elif order.kind is _CONTAINER:
        kind = _CONTAINER
    elif has_host_kind(order.program):
        kind = ServerKind.HOST
    elif order.kind is ServerKind.HOST:
        raise ConfigurationError(
            f"{order.program.path} is too old to start programs of the host",
            hint="leave SINGCVMFS_SERVER out",
        )
    else:
        kind = _CONTAINER
    if kind is _CONTAINER:
        runtime_directory()
    return order._replace(kind=kind)


def make_place(environment: Mapping[str, str], line: CommandLine) -> str:
    """Return a directory for what file servers are told; it does not stay.

    Raises:
        ConfigurationError: It cannot be made.
    """
    place = handovers.make_place(_private_directory(environment))
    handovers.watch_over(place, is_instance=line.is_instance)
    return place


def compose(
    order: Order, configurations: tuple[Configuration, ...], place: str
) -> tuple[str, ...]:
    """Return what is to be executed; what the file servers are told is written.

    Args:
        order: How; where file servers run has been decided.
        configurations: Of what is mounted.
        place: See ``make_place``.

    Raises:
        CvmfsError: The file servers could not run.
    """
    runtime = runtime_directory() if order.kind is _CONTAINER else ""
    additions = [
        word
        for configuration in configurations
        for word in _mount(order, runtime, place, configuration)
    ]
    if runtime:
        for bind in _binds(order, runtime, place, configurations):
            additions += bind_words(bind)
    words = order.line.words((*additions, *order.options))
    return (order.program.path, *words)


def _mount(
    order: Order,
    runtime: str,
    place: str,
    configuration: Configuration,
) -> tuple[str, ...]:
    """Leave a file server its file, and return the option that starts it."""
    fqrn = configuration.fqrn
    path = handovers.leave(place, _handover(order, configuration))
    words = (quote(os.fsencode(path)), fqrn)
    if runtime:
        kind, server = _CONTAINER, (*container_server(runtime), *words)
    else:
        kind, server = ServerKind.HOST, (order.server, "--serve", *words)
    return fusemount_words(kind, server, f"{MOUNT_DIRECTORY}/{fqrn}")


def _handover(order: Order, configuration: Configuration) -> Handover:
    umask = os.umask(0o077)
    os.umask(umask)
    root = configuration.root
    values = {
        name: Parameter(configuration.get(name), configuration.source(name))
        for name in configuration.variables()
    }
    if order.image is not None:
        # Of an image, often nothing but a directory of this name can be written.
        values.setdefault(_SHARED_CACHE, Parameter("yes", "SINGCVMFS_CACHEIMAGE"))
        root = root._replace(given_cache=IMAGE_PLACE)
    return Handover(
        configuration.fqrn,
        root,
        values,
        configuration.config_repository,
        configuration.repository,
        dict(order.environment),
        os.getuid(),
        os.getgid(),
        umask,
    )


def _binds(
    order: Order,
    runtime: str,
    place: str,
    configurations: tuple[Configuration, ...],
) -> tuple[Bind, ...]:
    """Return what file servers need of the host, at the same places but for one."""
    binds = [Bind(place, place), *_credentials(order.environment)]
    for configuration in configurations:
        binds += _binds_of(configuration, has_cache=order.image is None)
    needed = [Bind(runtime, RUNTIME_PLACE, is_read_only=True)]
    if order.image is not None:
        source = f"image-src={order.image.directory}"
        needed.append(Bind(order.image.path, IMAGE_PLACE, options=source))
    return (*needed, *without_covered(tuple(binds)))


def _credentials(environment: Mapping[str, str]) -> Iterator[Bind]:
    """Yield files with which the user shows who it is."""
    for variable in ("X509_USER_PROXY", "BEARER_TOKEN_FILE"):
        path = environment.get(variable, "")
        if path.startswith("/") and os.path.isfile(path):
            yield Bind(os.path.realpath(path), path, is_read_only=True)


def _binds_of(configuration: Configuration, *, has_cache: bool) -> Iterator[Bind]:
    settings = ClientSettings.from_configuration(configuration)
    cache, logs = settings.cache, log_places(configuration)
    to_write = [os.path.dirname(path) for path in (logs.file, logs.debug_file) if path]
    if has_cache:
        to_write += [cache.directory, cache.workspace, cache.shared_directory]
        to_write += _store_directories(cache.store)
    to_read = [configuration.root.etc, *key_paths(configuration)]
    to_read += settings.blacklist_paths
    if configuration.repository is not None:
        to_read.append(configuration.repository.directory)
    for path in to_write:
        _make(path)
        yield Bind(os.path.realpath(path), path)
    for path in to_read:
        if os.path.exists(path):
            yield Bind(os.path.realpath(path), path, is_read_only=True)


def _store_directories(store: StoreSettings) -> list[str]:
    found = [store.directory] if store.directory else []
    for tier in (store.upper, store.lower):
        found += _store_directories(tier) if tier else []
    return found


def _make(directory: str) -> None:
    """Make a directory to be bound; the container program insists on it."""
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot create {directory}: {error.strerror}"
        ) from error


def _private_directory(environment: Mapping[str, str]) -> str:
    """Return a directory of the user's that nobody else can enter, and not for long.

    Raises:
        ConfigurationError: There is none.
    """
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if (
        runtime.startswith("/")
        and os.access(runtime, os.W_OK | os.X_OK)
        and is_private(runtime)
    ):
        return runtime
    temporary = environment.get("TMPDIR") or "/tmp"  # noqa: S108 -- is checked
    path = os.path.join(temporary, f"cvmfsexec-{os.getuid()}")
    prepare_private(path)
    return path
