"""From configuration files to the effective parameters of one repository.

Each file is evaluated on top of the earlier ones (``plain`` or ``shell``), and of each
the names that its text assigns are taken over (``assignments``). After the
distribution's own files the choice of the configuration repository is final, because
the files of that repository come next: this is why an evaluation can be done in two
parts, ``begin`` and ``Evaluation.finish``, with the mount of it in between.

Source: docs/reference/client-behaviour.md, "Configuration files: search order" and
"Configuration syntax"; docs/reference/cvmfsexec.md, "Configuration".
"""

import os
from typing import TYPE_CHECKING

from cvmfsexec import log
from cvmfsexec.configuration import files, shell, storage
from cvmfsexec.configuration.assignments import assigned_names
from cvmfsexec.configuration.paths import PathMap
from cvmfsexec.configuration.plain import evaluate_plainly
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.names import check_fqrn
from cvmfsexec.format.parameters import (
    Parameter,
    Parameters,
    expand_templates,
    is_on,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfsexec.configuration.files import (
        ConfigurationFile,
        ConfigurationRepository,
    )
    from cvmfsexec.configuration.locate import ConfigurationRoot
    from cvmfsexec.format.pinned_name import Pin

INJECTED = "cvmfsexec"
"""The source of what this program sets itself."""

COMMAND_LINE = "the command line"
"""The source of what was typed."""

_CONFIG_REPOSITORY = "CVMFS_CONFIG_REPOSITORY"
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


class Configuration(Parameters):
    """Parameters that know where they come from and what paths in them mean.

    Attributes:
        root: The dist.
        config_repository: Name of the configuration repository, or ``None`` if there
            is none or it is this repository itself.
        repository: Where that can be read; ``None`` also if it was not reachable.
        files_read: Names of the files that exist and were evaluated, in order.
    """

    def __init__(
        self,
        fqrn: str,
        values: "Mapping[str, Parameter]",
        root: "ConfigurationRoot",
        config_repository: str | None = None,
        repository: "ConfigurationRepository | None" = None,
        files_read: tuple[str, ...] = (),
    ) -> None:
        super().__init__(fqrn, values)
        self.root = root
        self.config_repository = config_repository
        self.repository = repository
        self.files_read = files_read
        self._paths = PathMap(root, repository)

    def resolve_path(self, value: str) -> str:
        """Return the local path that a path in a value means; see ``paths``."""
        return self._paths.resolve(value)

    def path(self, name: str, default: str = "") -> str:
        """Return the local path that a parameter means; empty if unset.

        Raises:
            ConfigurationError: It is relative, and nobody knows to what.
        """
        value = self.get(name, default)
        if value and not value.startswith("/"):
            raise self.error(name, "is not an absolute path")
        return self.resolve_path(value)


def evaluate(
    fqrn: str,
    root: "ConfigurationRoot",
    config_repository_dir: str | None,
    environment: "Mapping[str, str]",
) -> Configuration:
    """Return the effective parameters of a repository.

    Args:
        fqrn: Fully qualified name of the repository.
        root: The dist.
        config_repository_dir: Local directory that holds the content of the
            configuration repository (verified, since its files are run as shell
            scripts): its mountpoint, or where it was extracted to. ``None`` if there
            is no such repository or it is not reachable.
        environment: The user's environment. Only a few names and ``CVMFS_*``
            are seen by the files.

    Raises:
        ConfigurationError: A file cannot be evaluated; or the configuration repository
            is required and not there.
    """
    return begin(fqrn, root, environment).finish(config_repository_dir)


def begin(
    fqrn: str, root: "ConfigurationRoot", environment: "Mapping[str, str]"
) -> "Evaluation":
    """Evaluate the distribution's own files, which name the config repository.

    Raises:
        ConfigurationError: As of ``evaluate``; or ``fqrn`` is not a full name.
    """
    if "." not in check_fqrn(fqrn):
        raise ConfigurationError(
            f"{fqrn} is not the full name of a repository",
            hint="a name looks like atlas.cern.ch",
        )
    evaluation = Evaluation(fqrn, root, environment)
    evaluation.read_distribution_defaults()
    return evaluation


def config_repository_of(
    root: "ConfigurationRoot", environment: "Mapping[str, str]"
) -> str | None:
    """Return the name of the configuration repository, or ``None`` without one.

    Raises:
        ConfigurationError: It is configured to something that is no name.
    """
    evaluation = Evaluation("", root, environment)
    evaluation.read_distribution_defaults()
    return evaluation.config_repository


def complete_name(
    name: str, root: "ConfigurationRoot", environment: "Mapping[str, str]"
) -> str:
    """Return a checked full name: a short one gets the default domain.

    Raises:
        ConfigurationError: Not a name; or short, and no default domain is configured.
    """
    check_fqrn(name)
    if "." in name:
        return name
    evaluation = Evaluation("", root, environment)
    evaluation.read_distribution_defaults()
    evaluation.read_site_defaults()
    domain = evaluation.value("CVMFS_DEFAULT_DOMAIN")
    if not domain:
        raise ConfigurationError(
            f"{name} is not the full name of a repository, and CVMFS_DEFAULT_DOMAIN "
            "is not set",
            hint=f"write the full name, or set it in {root.etc}/default.local",
        )
    return check_fqrn(f"{name}.{domain}")


def site_repositories(
    root: "ConfigurationRoot", environment: "Mapping[str, str]"
) -> tuple[str, ...]:
    """Return the names in ``CVMFS_REPOSITORIES``, as the site wrote them.

    Raises:
        ConfigurationError: A file cannot be evaluated.
    """
    evaluation = Evaluation("", root, environment)
    evaluation.read_distribution_defaults()
    evaluation.read_site_defaults()
    names = evaluation.value("CVMFS_REPOSITORIES").replace(",", " ").split()
    return tuple(dict.fromkeys(names))


class Evaluation:
    """An evaluation under way: the values so far, and what the next file will see."""

    def __init__(
        self,
        fqrn: str,
        root: "ConfigurationRoot",
        environment: "Mapping[str, str]",
    ) -> None:
        self._fqrn = fqrn
        self._root = root
        self._values: dict[str, Parameter] = {}
        self._variables = _visible_environment(environment, fqrn)
        self._files_read: list[str] = []
        self._final_config_repository: str | None = None

    @property
    def config_repository(self) -> str | None:
        """Name of the repository whose content ``finish`` wants, or ``None``.

        Raises:
            ConfigurationError: It is configured to something that is no name.
        """
        name = self._final_config_repository
        return check_fqrn(name) if name and name != self._fqrn else None

    def value(self, name: str) -> str:
        """Return the value that a parameter has so far."""
        parameter = self._values.get(name)
        return parameter.value if parameter else ""

    def read_distribution_defaults(self) -> None:
        """Evaluate ``default.conf`` and ``default.d`` (steps 1 and 2)."""
        for file in files.distribution_defaults(self._root.etc):
            self._read(file)
        self._final_config_repository = self.value(_CONFIG_REPOSITORY)

    def read_site_defaults(self) -> tuple[str, ...]:
        """Evaluate ``default.local`` (step 4); return the names it assigns."""
        return self._read(files.local_file(self._root.site_defaults))

    def finish(
        self, config_repository_dir: str | None, pin: "Pin | None" = None
    ) -> Configuration:
        """Evaluate the remaining files.

        Args:
            config_repository_dir: See ``evaluate``.
            pin: The revision that is wanted, whatever the files say.
        """
        repository = self._config_repository_at(config_repository_dir)
        if repository is not None:
            self._read(repository.file("default.conf"))
        self._inject(except_names=self.read_site_defaults())
        etc = self._root.etc
        for file in files.repository_files(etc, self._fqrn, repository):
            self._read(file)
        if self.config_repository is not None and repository is None:
            self._do_without_config_repository()
        if pin is not None:
            self._pin(pin)
        return Configuration(
            self._fqrn,
            self._values,
            self._root,
            self.config_repository,
            repository,
            tuple(self._files_read),
        )

    def _config_repository_at(
        self, directory: str | None
    ) -> "ConfigurationRepository | None":
        name = self.config_repository
        if name is None or directory is None:
            return None
        mount_dir = self.value("CVMFS_MOUNT_DIR") or "/cvmfs"
        mountpoint = f"{mount_dir.rstrip('/')}/{name}"
        return files.ConfigurationRepository(mountpoint, directory)

    def _do_without_config_repository(self) -> None:
        name = self.config_repository
        if is_on(self.value("CVMFS_CONFIG_REPO_REQUIRED")):
            raise ConfigurationError(
                f"the required configuration repository {name} is not available",
                hint="see why it cannot be read, or set CVMFS_CONFIG_REPO_REQUIRED=no",
            )
        log.warning(
            "%s: going on without the configuration repository %s", self._fqrn, name
        )

    def _inject(self, *, except_names: tuple[str, ...]) -> None:
        """Set what the original sets unless ``default.local`` does.

        Only ``default.local`` counts: values from packages are overridden, and the
        files of domains and repositories, which come later, override this.
        """
        logs = storage.log_directory(self._root)
        injected = {
            "CVMFS_NFILES": _hard_limit_of_files(),
            "CVMFS_USYSLOG": os.path.join(logs, self._fqrn + ".log"),
        }
        if self._root.wants_debug_logs:
            path = os.path.join(logs, f"{self._fqrn}-debug.log")
            injected["CVMFS_DEBUGLOG"] = path
        if self._root.scratch_cache:
            injected["CVMFS_CACHE_BASE"] = self._root.scratch_cache
        for name, value in injected.items():
            if name not in except_names:
                self._record(name, value, INJECTED)

    def _pin(self, pin: "Pin") -> None:
        from cvmfsexec.format.pinned_name import PIN_PARAMETERS

        for name in PIN_PARAMETERS:
            value = pin.value if name == pin.parameter else ""
            self._record(name, value, COMMAND_LINE)

    def _read(self, file: "ConfigurationFile") -> tuple[str, ...]:
        """Evaluate one file, if it exists; return the names it assigns."""
        text = files.read_text(file)
        if text is None:
            return ()
        self._files_read.append(file.name)
        names = assigned_names(text)
        if not names:
            return ()
        directory = os.path.dirname(file.path)
        values = evaluate_plainly(text, directory, self._variables)
        if values is None:
            values = shell.evaluate_in_shell(file, names, self._variables)
        for name, value in values.items():
            self._record(name, value, file.name)
        return names

    def _record(self, name: str, value: str, source: str) -> None:
        value = expand_templates(value, self._fqrn)
        final = self._final_config_repository
        if name == _CONFIG_REPOSITORY and final is not None and value != final:
            log.warning(
                "%s: %s=%s has no effect: only default.conf and default.d can set it",
                source,
                name,
                value,
            )
            return
        self._values[name] = Parameter(value, source)
        self._variables[name] = value


def _visible_environment(environment: "Mapping[str, str]", fqrn: str) -> dict[str, str]:
    """Return what configuration files may see of the user's environment.

    They are programs of other people: tokens, passwords and agents' sockets in the
    environment are none of their business. The user's name is: where a file server
    evaluates them, ``id`` says that the user is root.
    """
    visible = {
        name: value for name, value in environment.items() if name.startswith("CVMFS_")
    }
    visible["PATH"] = environment.get("PATH") or _DEFAULT_PATH
    for name in ("HOME", "LOGNAME", "USER"):
        if name in environment:
            visible[name] = environment[name]
    visible["CVMFS_FQRN"] = fqrn
    visible["CVMFS_ARCH"] = os.uname().machine
    return visible


def _hard_limit_of_files() -> str:
    """Return what ``ulimit -Hn`` prints."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
