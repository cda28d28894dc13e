"""Network parameters of one repository, read and checked once.

Source: docs/reference/client-behaviour.md, "Parameters: network".
"""

from typing import TYPE_CHECKING, NamedTuple

import cvmfsexec
from cvmfsexec.errors import ConfigurationError, FormatError, NoRouteError
from cvmfsexec.format.proxy_groups import (
    DIRECT,
    ProxyGroup,
    parse_pac_urls,
    parse_proxy_list,
    parse_server_list,
    without_direct,
)
from cvmfsexec.network.authorities import Authorities, find_authorities
from cvmfsexec.network.failover import FailoverPolicy
from cvmfsexec.network.resolution import ResolutionPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfsexec.format.parameters import Parameters
    from cvmfsexec.network.request_headers import Disclosure

_SECONDS_MAX = 2_000_000  # 23 days; libcurl counts milliseconds in 31 bits
_RETRIES_MAX = 1000
_BYTES_PER_S_MAX = 10**9
CONNECTIONS_MAX = 16  # the original's number; site operators count on it

USER_AGENT = f"cvmfs Fuse cvmfsexec-{cvmfsexec.__version__}"
"""Some sites let only those through whose name starts with ``cvmfs``."""

_IDENTIFIER_CHARACTERS_MAX = 64
_TELLING = ("CVMFS_SEND_INFO_HEADER", "CVMFS_HTTP_TRACING")

_DIRECT_ONLY = (ProxyGroup((DIRECT,)),)
_NO_ENVIRONMENT: "Mapping[str, str]" = {}
NO_PROXY_HINT = (
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


class Discovery(NamedTuple):
    """What became of ``auto``.

    Attributes:
        groups: What it stands for, or nothing.
        origin: Where that was found, for people.
        failures: What was asked in vain, and why it was, for people.
    """

    groups: tuple[ProxyGroup, ...] = ()
    origin: str = ""
    failures: tuple[str, ...] = ()


class NetworkSettings(NamedTuple):
    """Whom to ask, and how patiently.

    Attributes:
        servers: Base URLs in order of preference.
        proxy_groups: Groups in order; ``auto`` is for ``discovery`` to replace.
        fallback_proxy_groups: Tried when all others failed.
        allows_direct: Whether ``DIRECT`` counts, where it is found.
        pac_urls: Where proxy configuration files may be.
        discovery: What was found for ``auto``; None if nobody has looked.
        resolution: How names of proxies become addresses.
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
        servers_max: Use no more servers, the first ones in order; 0 for all.
        uses_geo_api: Whether servers may say in which order they are near.
        proxy_template: Stands for the proxy in that question; empty for its name.
        disclosure: What servers and proxies are told about who asks; None for nothing.
    """

    servers: tuple[str, ...]
    proxy_groups: tuple[ProxyGroup, ...] = _DIRECT_ONLY
    fallback_proxy_groups: tuple[ProxyGroup, ...] = ()
    allows_direct: bool = True
    pac_urls: tuple[str, ...] = ()
    discovery: Discovery | None = None
    resolution: ResolutionPolicy = ResolutionPolicy()
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
    servers_max: int = 0
    uses_geo_api: bool = False
    proxy_template: str = ""
    disclosure: "Disclosure | None" = None

    @classmethod
    def from_parameters(
        cls,
        parameters: "Parameters",
        environment: "Mapping[str, str]" = _NO_ENVIRONMENT,
    ) -> "NetworkSettings":
        """Read the settings for the objects of a repository.

        Args:
            parameters: Of the repository.
            environment: Read for CERNVM_UUID, CVMFS_IPV4_ONLY, X509_CERT_DIR and
                X509_CERT_BUNDLE.

        Raises:
            NoRouteError: No server or no proxy is configured.
            ConfigurationError: A parameter makes no sense.
        """
        servers = _servers(parameters, _REPOSITORY)
        if not servers:
            raise NoRouteError(
                f"no server is configured for {parameters.fqrn}", hint=_NO_SERVER_HINT
            )
        proxies = _proxies(parameters, _REPOSITORY.proxies)
        if not proxies and not all(_is_local(server) for server in servers):
            raise NoRouteError("CVMFS_HTTP_PROXY is not set", hint=NO_PROXY_HINT)
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

    @property
    def has_auto(self) -> bool:
        """Whether a group stands for what has not been looked for yet."""
        return any(group.is_auto for group in self.all_proxy_groups)


def _read(
    parameters: "Parameters",
    environment: "Mapping[str, str]",
    names: _Names,
    servers: tuple[str, ...],
    proxies: tuple[ProxyGroup, ...],
) -> NetworkSettings:
    fallback = _proxies(parameters, names.fallback)
    if all(_is_local(server) for server in servers):
        # Nobody is asked, so nothing need be looked for or resolved.
        proxies, fallback = _DIRECT_ONLY, ()
    allows_direct = not fallback
    if not allows_direct:
        # Whoever names fallback proxies does not want the servers to be flooded.
        proxies, fallback = without_direct(proxies), without_direct(fallback)
    if not proxies and not fallback:
        raise NoRouteError(
            "only DIRECT is configured, which does not count with fallback proxies",
            hint=NO_PROXY_HINT,
        )
    use_system_authorities = parameters.boolean(
        "CVMFS_USE_SSL_SYSTEM_CA", default=False
    )
    sockets = parameters.get("CVMFS_RELOAD_SOCKETS", "/var/run/cvmfs")
    return NetworkSettings(
        servers=servers,
        proxy_groups=proxies,
        fallback_proxy_groups=fallback,
        allows_direct=allows_direct,
        pac_urls=_pac_urls(parameters, proxies + fallback),
        resolution=_resolution(parameters, environment),
        failover=_failover(parameters),
        timeout_s=_seconds(parameters, names.timeout, 5),
        timeout_direct_s=_seconds(parameters, names.timeout_direct, 10),
        low_speed_limit=parameters.integer(
            "CVMFS_LOW_SPEED_LIMIT", 1024, minimum=0, maximum=_BYTES_PER_S_MAX
        ),
        follows_redirects=parameters.boolean("CVMFS_FOLLOW_REDIRECTS", default=False),
        is_ipv4_only=bool(environment.get("CVMFS_IPV4_ONLY")),
        authorities=find_authorities(environment, use_system=use_system_authorities),
        user_agent=_user_agent(parameters, environment),
        interrupt_file=f"{sockets}/interrupt.{parameters.fqrn}",
        servers_max=parameters.integer(names.max_servers, 0, minimum=0),
        uses_geo_api=parameters.boolean("CVMFS_USE_GEOAPI", default=False),
        proxy_template=parameters.get("CVMFS_PROXY_TEMPLATE"),
        disclosure=_disclosure(parameters),
    )


def _failover(parameters: "Parameters") -> FailoverPolicy:
    def seconds(name: str, default: float) -> int:
        return _seconds(parameters, name, int(default))

    default = FailoverPolicy()
    return FailoverPolicy(
        max_retries=parameters.integer(
            "CVMFS_MAX_RETRIES", default.max_retries, minimum=0, maximum=_RETRIES_MAX
        ),
        backoff_init_s=seconds("CVMFS_BACKOFF_INIT", default.backoff_init_s),
        backoff_max_s=seconds("CVMFS_BACKOFF_MAX", default.backoff_max_s),
        proxy_reset_after_s=seconds(
            "CVMFS_PROXY_RESET_AFTER", default.proxy_reset_after_s
        ),
        host_reset_after_s=seconds(
            "CVMFS_HOST_RESET_AFTER", default.host_reset_after_s
        ),
        is_indefinite=parameters.boolean("CVMFS_FAILOVER_INDEFINITELY", default=False),
        is_sharded=parameters.boolean("CVMFS_PROXY_SHARD", default=False),
    )


def _disclosure(parameters: "Parameters") -> "Disclosure | None":
    if not any(parameters.boolean(name, default=False) for name in _TELLING):
        return None
    from cvmfsexec.network.request_headers import disclosure

    return disclosure(parameters)


def _seconds(parameters: "Parameters", name: str, default: int) -> int:
    return parameters.integer(name, default, minimum=0, maximum=_SECONDS_MAX)


def _user_agent(parameters: "Parameters", environment: "Mapping[str, str]") -> str:
    """Return what we call ourselves, with the machine's name for itself, if any."""
    text = parameters.get("CERNVM_UUID") or environment.get("CERNVM_UUID", "")
    plain = "".join(c for c in text if c.isascii() and (c.isalnum() or c == "-"))
    return f"{USER_AGENT} {plain[:_IDENTIFIER_CHARACTERS_MAX]}".rstrip()


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


def _pac_urls(
    parameters: "Parameters", groups: tuple[ProxyGroup, ...]
) -> tuple[str, ...]:
    """Return where to look for proxies, if anybody is to look."""
    name = "CVMFS_PAC_URLS"
    if not any(group.is_auto for group in groups):
        return ()
    try:
        return parse_pac_urls(parameters.get(name))
    except FormatError as error:
        raise _misconfigured(parameters, name, error) from error


def _resolution(
    parameters: "Parameters", environment: "Mapping[str, str]"
) -> ResolutionPolicy:
    def count(name: str, default: int) -> int:
        return parameters.integer(name, default, minimum=0, maximum=_SECONDS_MAX)

    default = ResolutionPolicy()
    family = parameters.get("CVMFS_IPFAMILY_PREFER")
    if family not in {"", "4", "6"}:
        raise parameters.error("CVMFS_IPFAMILY_PREFER", "is neither 4 nor 6")
    return ResolutionPolicy(
        timeout_s=count("CVMFS_DNS_TIMEOUT", default.timeout_s),
        retries=count("CVMFS_DNS_RETRIES", default.retries),
        min_ttl_s=count("CVMFS_DNS_MIN_TTL", default.min_ttl_s),
        max_ttl_s=count("CVMFS_DNS_MAX_TTL", default.max_ttl_s),
        prefers_ipv6=family == "6",
        is_ipv4_only=bool(environment.get("CVMFS_IPV4_ONLY")),
        addresses_max=count("CVMFS_MAX_IPADDR_PER_PROXY", default.addresses_max),
    )


def _misconfigured(
    parameters: "Parameters", name: str, error: FormatError
) -> ConfigurationError:
    # Unlike parameters.error, without the value: there may be a password in it.
    return ConfigurationError(f"{name} (from {parameters.source(name)}): {error}")


def _is_local(server: str) -> bool:
    return server.startswith("file:")
