"""The repositories of a container: configured, and tried, before there is one.

A container starts without asking whether its repositories can be read, and what then
fails is told to nobody. So each is opened here first. That warms the cache as well: the
file server in the container finds what it needs to start.
"""

import threading
from collections.abc import Mapping
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.client.assembly import Client, User
from cvmfsexec.client.configuration_repository import extract_configuration
from cvmfsexec.configuration.evaluate import (
    Configuration,
    begin,
    complete_name,
    config_repository_of,
)
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError, CvmfsError
from cvmfsexec.format.pinned_name import Pin, parse_pinned_name


class Wanted(NamedTuple):
    """What is asked for.

    Attributes:
        names: Repositories as they were typed.
        root: Where the configuration is.
        environment: Of the user.
    """

    names: tuple[str, ...]
    root: ConfigurationRoot
    environment: Mapping[str, str]


def prepare(wanted: Wanted) -> tuple[Configuration, ...]:
    """Return the configuration of each repository to mount, the one of others first.

    A configuration repository that cannot be read is left out with a warning, unless
    it was asked for or is required.

    Raises:
        CvmfsError: A repository is not configured, or cannot be read.
    """
    root, environment = wanted.root, wanted.environment
    pins = revisions_of(wanted)
    first = config_repository_of(root, environment) or ""
    directory: str | None = None
    before: tuple[Configuration, ...] = ()
    if first:
        try:
            configuration = begin(first, root, environment).finish(
                None, pins.get(first)
            )
            directory = _extract(configuration, environment)
            before = (configuration,)
        except CvmfsError as error:
            if first in pins:
                raise
            log.warning("%s: %s", first, error)
    after = tuple(
        begin(fqrn, root, environment).finish(directory, pin)
        for fqrn, pin in pins.items()
        if fqrn != first
    )
    _try_all(after, environment)
    return before + after


def revisions_of(wanted: Wanted) -> dict[str, Pin | None]:
    """Return the names in full, each once, with the revisions that are wanted.

    Raises:
        ConfigurationError: One is asked for in two of its revisions.
    """
    pins: dict[str, Pin | None] = {}
    for typed in wanted.names:
        name, pin = parse_pinned_name(typed)
        fqrn = complete_name(name, wanted.root, wanted.environment)
        if pins.setdefault(fqrn, pin) != pin:
            raise ConfigurationError(f"{fqrn} is asked for in two revisions")
    return pins


def _extract(configuration: Configuration, environment: Mapping[str, str]) -> str:
    user = User.of_this_process(environment)
    with Client(configuration, user, is_endless=False) as client:
        return extract_configuration(client)


def _try_all(
    configurations: tuple[Configuration, ...], environment: Mapping[str, str]
) -> None:
    """Open repositories, all at once, and close them; raise the first error."""
    errors: dict[str, CvmfsError] = {}
    user = User.of_this_process(environment)

    def attempt(configuration: Configuration) -> None:
        try:
            Client(configuration, user, is_endless=False).close()
        except CvmfsError as error:
            errors[configuration.fqrn] = error

    threads = [
        threading.Thread(target=attempt, args=(one,), daemon=True)
        for one in configurations
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for configuration in configurations:
        error = errors.get(configuration.fqrn)
        if error is not None:
            error.args = (f"{configuration.fqrn}: {error}", *error.args[1:])
            raise error
