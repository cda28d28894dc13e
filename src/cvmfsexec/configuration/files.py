"""Configuration files: which there are, in which order, and their text.

Later files override earlier ones. CR is ``etc/cvmfs`` of the configuration
repository:

====  ==================================  =====================================
Step  File                                Read
====  ==================================  =====================================
1     ``default.conf``                    always
2     ``default.d/*.conf``                always, in the order of their bytes
3     ``CR/default.conf``                 for a repository
4     ``default.local``                   always
5     ``CR/domain.d/DOMAIN.conf``         for a repository
6-7   ``domain.d/DOMAIN.{conf,local}``    for a repository
8     ``CR/config.d/FQRN.conf``           for a repository
9-10  ``config.d/FQRN.{conf,local}``      for a repository
====  ==================================  =====================================

Source: docs/reference/client-behaviour.md, "Configuration files: search order".
"""

import os
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.names import domain_of

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_BYTES_MAX = 65536
"""More than ten times the longest file that real repositories distribute; with the
names it assigns, a text of this size still fits into one argument of a program."""


class ConfigurationFile(NamedTuple):
    """A file that may exist.

    Attributes:
        path: Where it is read from.
        name: What it is called in messages and dumps. Differs from ``path`` for a
            file of a configuration repository that is not read through its mount.
    """

    path: str
    name: str


class ConfigurationRepository(NamedTuple):
    """A configuration repository whose content can be read.

    Attributes:
        mountpoint: Where it is mounted, or would be: ``/cvmfs/FQRN``. Values that
            begin with this path mean files in it.
        directory: Where its content lies, e.g. the mountpoint itself.
    """

    mountpoint: str
    directory: str

    def file(self, name: str) -> ConfigurationFile:
        """Return a file below its ``etc/cvmfs``."""
        return ConfigurationFile(
            os.path.join(self.directory, "etc/cvmfs", name),
            os.path.join(self.mountpoint, "etc/cvmfs", name),
        )


def distribution_defaults(etc: str) -> "Iterator[ConfigurationFile]":
    """Yield the files of steps 1 and 2."""
    yield _local(etc, "default.conf")
    directory = os.path.join(etc, "default.d")
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unreadable(directory, error) from error
    for name in sorted(names, key=os.fsencode):
        if name.endswith(".conf") and not name.startswith("."):
            yield _local(directory, name)


def local_file(path: str) -> ConfigurationFile:
    """Return a file that is called by its path; that of step 4, for example."""
    return ConfigurationFile(path, path)


def repository_files(
    etc: str, fqrn: str, repository: ConfigurationRepository | None
) -> "Iterator[ConfigurationFile]":
    """Yield the files of steps 5 to 10.

    Args:
        etc: The local ``etc/cvmfs``.
        fqrn: A checked name: paths are built from it.
        repository: The configuration repository, if there is one to read.
    """
    for stem in (f"domain.d/{domain_of(fqrn)}", f"config.d/{fqrn}"):
        if repository is not None:
            yield repository.file(stem + ".conf")
        yield _local(etc, stem + ".conf")
        yield _local(etc, stem + ".local")


def read_text(file: ConfigurationFile) -> str | None:
    """Return the text of a file; ``None`` if there is no such regular file.

    Bytes that are no UTF-8 are surrogate-escaped, as in all local names.

    Raises:
        ConfigurationError: It exists but cannot be read, is too long, or holds a NUL.
            The original skips such a file silently; going on with half of a site's
            configuration may mean other servers, keys or proxies.
    """
    try:
        with open(file.path, "rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(file.name, error) from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(
            f"configuration file {file.name} is longer than {FILE_BYTES_MAX} bytes"
        )
    if b"\0" in data:
        raise ConfigurationError(f"configuration file {file.name} holds a NUL byte")
    return os.fsdecode(data)


def _local(directory: str, name: str) -> ConfigurationFile:
    return local_file(os.path.join(directory, name))


def _unreadable(path: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"cannot read configuration {path}: {error.strerror}",
        hint="make it readable for you, or remove it",
    )
