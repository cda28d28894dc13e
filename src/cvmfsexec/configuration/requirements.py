"""What must be configured before a repository can be used.

The messages begin as those of the original mount helper, which people search for; the
hints say where to write what.

Source: docs/reference/client-behaviour.md, "Parameters" and "Proxy strings".
"""

from typing import TYPE_CHECKING

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.names import domain_of

if TYPE_CHECKING:
    from cvmfsexec.configuration.evaluate import Configuration


def check_requirements(configuration: "Configuration") -> None:
    """Refuse a configuration with which nothing could be fetched or allowed.

    Raises:
        ConfigurationError: Not allowed by ``CVMFS_STRICT_MOUNT``; no server; no proxy.
    """
    _check_strict_mount(configuration)
    _check_servers(configuration)
    _check_proxies(configuration)


def _check_strict_mount(configuration: "Configuration") -> None:
    if not configuration.boolean("CVMFS_STRICT_MOUNT", default=False):
        return
    fqrn = configuration.fqrn
    domain = configuration.get("CVMFS_DEFAULT_DOMAIN")
    allowed = {
        name if "." in name else f"{name}.{domain}"
        for name in configuration.get("CVMFS_REPOSITORIES").split(",")
    }
    allowed.add(configuration.get("CVMFS_CONFIG_REPOSITORY"))
    if fqrn not in allowed:
        raise ConfigurationError(
            f"Not allowed to mount {fqrn}, add it to CVMFS_REPOSITORIES",
            hint="CVMFS_STRICT_MOUNT is on in "
            + configuration.source("CVMFS_STRICT_MOUNT"),
        )


def _check_servers(configuration: "Configuration") -> None:
    if configuration.get("CVMFS_SERVER_URL"):
        return
    fqrn = configuration.fqrn
    etc = configuration.root.etc
    read = ", ".join(configuration.files_read) or f"nothing: {etc} holds no files"
    missing = ""
    if configuration.config_repository and configuration.repository is None:
        missing = (
            f" (the configuration repository {configuration.config_repository} could "
            "not be read)"
        )
    raise ConfigurationError(
        f"unknown repository {fqrn}: CVMFS_SERVER_URL is not set{missing}; "
        f"configuration read: {read}",
        hint="check the name, or write CVMFS_SERVER_URL=http://SERVER/cvmfs/@fqrn@ and "
        f"CVMFS_PUBLIC_KEY=FILE into {etc}/config.d/{fqrn}.conf or "
        f"{etc}/domain.d/{domain_of(fqrn)}.conf",
    )


def _check_proxies(configuration: "Configuration") -> None:
    if configuration.get("CVMFS_HTTP_PROXY"):
        return
    raise ConfigurationError(
        f"CVMFS_HTTP_PROXY required for {configuration.fqrn}",
        hint="write CVMFS_HTTP_PROXY=http://PROXY:3128, or DIRECT to go without, into "
        f"{configuration.root.etc}/default.local",
    )
