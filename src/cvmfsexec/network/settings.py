"""Network parameters of one repository, read and checked once.

Source: docs/reference/client-behaviour.md, "Parameters: network".
"""

from typing import TYPE_CHECKING, NamedTuple

import cvmfsexec
from cvmfsexec.errors import ConfigurationError, FormatError, NoRouteError
from cvmfsexec.format.proxy_groups import (
    DIRECT,
    ProxyGroup,
    parse_proxy_list,
    parse_server_list,
)
from cvmfsexec.network.authorities import Authorities, find_authorities
from cvmfsexec.network.discovery import resolve_auto
from cvmfsexec.network.failover import FailoverPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfsexec.format.parameters import Parameters

CONNECTIONS_MAX = 16  # the original's number; site operators count on it

USER_AGENT = f"cvmfs Fuse cvmfsexec-{cvmfsexec.__version__}"
"""Some sites let only those through whose name starts with ``cvmfs``."""

_DIRECT_ONLY = (ProxyGroup((DIRECT,)),)
_NO_ENVIRONMENT: "Mapping[str, str]" = {}
_NO_PROXY_HINT = (
    "set CVMFS_HTTP_PROXY to the site's proxy, e.g. http://squid.example.org:3128; "
    "DIRECT must be written explicitly"
)
_NO_SERVER_HINT = "set CVMFS_SERVER_URL, e.g. http://server.example.org/cvmfs/@fqrn@"


class _Names(NamedTuple):
    """Which parameters speak of one kind of server."""

    servers: str
    max_servers: str
    proxies: str
    fallback: str
    timeout: str
    timeout_direct: str


_REPOSITORY = _Names(
    "CVMFS_SERVER_URL",
    "CVMFS_MAX_SERVERS",
    "CVMFS_HTTP_PROXY",
    "CVMFS_FALLBACK_PROXY",
    "CVMFS_TIMEOUT",
    "CVMFS_TIMEOUT_DIRECT",
)
_EXTERNAL = _Names(
    "CVMFS_EXTERNAL_URL",
    "CVMFS_EXTERNAL_MAX_SERVERS",
    "CVMFS_EXTERNAL_HTTP_PROXY",
    "CVMFS_EXTERNAL_FALLBACK_PROXY",
    "CVMFS_EXTERNAL_TIMEOUT",
    "CVMFS_EXTERNAL_TIMEOUT_DIRECT",
)


class NetworkSettings(NamedTuple):
    """Whom to ask, and how patiently.

    Attributes:
        servers: Base URLs in order of preference.
        proxy_groups: Resolved, so without ``auto``.
        fallback_proxy_groups: Tried when all others failed.
        failover: Retries, waits, and returns to the first choice.
        timeout_s: To connect, and for the speed below, with a proxy; 0 for none.
        timeout_direct_s: The same without a proxy.
        low_speed_limit: Bytes per second; slower for the whole timeout is too slow.
        follows_redirects: Whether servers may send us elsewhere.
        is_ipv4_only: Never ask for IPv6 addresses.
        authorities: Who may vouch for https servers.
        user_agent: What we call ourselves.
        interrupt_file: Its existence ends endless failover.
        connections_max: Parallel transfers.
    """

    servers: tuple[str, ...]
    proxy_groups: tuple[ProxyGroup, ...] = _DIRECT_ONLY
    fallback_proxy_groups: tuple[ProxyGroup, ...] = ()
    failover: FailoverPolicy = FailoverPolicy()
    timeout_s: int = 5
    timeout_direct_s: int = 10
    low_speed_limit: int = 1024
    follows_redirects: bool = False
    is_ipv4_only: bool = False
    authorities: Authorities = Authorities()
    user_agent: str = USER_AGENT
    interrupt_file: str = ""
    connections_max: int = CONNECTIONS_MAX

    @classmethod
    def from_parameters(
        cls,
        parameters: "Parameters",
        environment: "Mapping[str, str]" = _NO_ENVIRONMENT,
    ) -> "NetworkSettings":
        """Read the settings for the objects of a repository.

        Args:
            parameters: Of the repository.
            environment: Read for http_proxy, CVMFS_IPV4_ONLY, X509_CERT_DIR and
                X509_CERT_BUNDLE.

        Raises:
            NoRouteError: No server or no proxy is configured; also when ``auto``
                was all there is and found none.
            ConfigurationError: A parameter makes no sense.
        """
        servers = _servers(parameters, _REPOSITORY)
        if not servers:
            raise NoRouteError(
                f"no server is configured for {parameters.fqrn}", hint=_NO_SERVER_HINT
            )
        proxies = _proxies(parameters, _REPOSITORY.proxies)
        if not proxies and all(_is_local(server) for server in servers):
            proxies = _DIRECT_ONLY  # never asked
        if not proxies:
            raise NoRouteError("CVMFS_HTTP_PROXY is not set", hint=_NO_PROXY_HINT)
        return _read(parameters, environment, _REPOSITORY, servers, proxies)

    @classmethod
    def external_from_parameters(
        cls,
        parameters: "Parameters",
        environment: "Mapping[str, str]" = _NO_ENVIRONMENT,
    ) -> "NetworkSettings | None":
        """Read the settings for external files; None if there is no server for them.

        The proxies of the repository are not inherited: external data usually come
        from somewhere near, and without a parameter are asked for directly. The
        rest is as in ``from_parameters``.
        """
        servers = _servers(parameters, _EXTERNAL)
        if not servers:
            return None
        proxies = _proxies(parameters, _EXTERNAL.proxies) or _DIRECT_ONLY
        return _read(parameters, environment, _EXTERNAL, servers, proxies)

    @property
    def all_proxy_groups(self) -> tuple[ProxyGroup, ...]:
        """Groups in the order in which they are tried."""
        return self.proxy_groups + self.fallback_proxy_groups


def _read(
    parameters: "Parameters",
    environment: "Mapping[str, str]",
    names: _Names,
    servers: tuple[str, ...],
    proxies: tuple[ProxyGroup, ...],
) -> NetworkSettings:
    fallback = _proxies(parameters, names.fallback)
    proxies = resolve_auto(proxies, environment.get("http_proxy"))
    if fallback:
        # Whoever names fallback proxies does not want the servers to be flooded.
        proxies, fallback = _without_direct(proxies), _without_direct(fallback)
    if not proxies and not fallback:
        raise NoRouteError("no proxy was found", hint=_NO_PROXY_HINT)
    use_system_authorities = parameters.boolean(
        "CVMFS_USE_SSL_SYSTEM_CA", default=False
    )
    sockets = parameters.get("CVMFS_RELOAD_SOCKETS", "/var/run/cvmfs")
    return NetworkSettings(
        servers=servers[: parameters.integer(names.max_servers, 0, minimum=0) or None],
        proxy_groups=proxies,
        fallback_proxy_groups=fallback,
        failover=_failover(parameters),
        timeout_s=parameters.integer(names.timeout, 5, minimum=0),
        timeout_direct_s=parameters.integer(names.timeout_direct, 10, minimum=0),
        low_speed_limit=parameters.integer("CVMFS_LOW_SPEED_LIMIT", 1024, minimum=0),
        follows_redirects=parameters.boolean("CVMFS_FOLLOW_REDIRECTS", default=False),
        is_ipv4_only=bool(environment.get("CVMFS_IPV4_ONLY")),
        authorities=find_authorities(environment, use_system=use_system_authorities),
        interrupt_file=f"{sockets}/interrupt.{parameters.fqrn}",
    )


def _failover(parameters: "Parameters") -> FailoverPolicy:
    def seconds(name: str, default: float) -> int:
        return parameters.integer(name, int(default), minimum=0)

    default = FailoverPolicy()
    return FailoverPolicy(
        max_retries=seconds("CVMFS_MAX_RETRIES", default.max_retries),
        backoff_init_s=seconds("CVMFS_BACKOFF_INIT", default.backoff_init_s),
        backoff_max_s=seconds("CVMFS_BACKOFF_MAX", default.backoff_max_s),
        proxy_reset_after_s=seconds(
            "CVMFS_PROXY_RESET_AFTER", default.proxy_reset_after_s
        ),
        host_reset_after_s=seconds(
            "CVMFS_HOST_RESET_AFTER", default.host_reset_after_s
        ),
        is_indefinite=parameters.boolean("CVMFS_FAILOVER_INDEFINITELY", default=False),
    )


def _servers(parameters: "Parameters", names: _Names) -> tuple[str, ...]:
    try:
        return parse_server_list(parameters.get(names.servers), parameters.fqrn)
    except FormatError as error:
        raise _misconfigured(parameters, names.servers, error) from error


def _proxies(parameters: "Parameters", name: str) -> tuple[ProxyGroup, ...]:
    try:
        return parse_proxy_list(parameters.get(name))
    except FormatError as error:
        raise _misconfigured(parameters, name, error) from error


def _misconfigured(
    parameters: "Parameters", name: str, error: FormatError
) -> ConfigurationError:
    # Unlike parameters.error, without the value: there may be a password in it.
    return ConfigurationError(f"{name} (from {parameters.source(name)}): {error}")


def _without_direct(groups: tuple[ProxyGroup, ...]) -> tuple[ProxyGroup, ...]:
    kept = (tuple(m for m in group.members if m != DIRECT) for group in groups)
    return tuple(ProxyGroup(members) for members in kept if members)


def _is_local(server: str) -> bool:
    return server.startswith("file:")
