"""Proxies found by themselves: what the group ``auto`` of a proxy list stands for.

The environment variable ``http_proxy`` has the first word, if only to say that there
is none. Otherwise the proxy configuration files (PAC) of ``CVMFS_PAC_URLS`` are asked,
one after the other, until one names a proxy. What was found is remembered, for other
processes and for days when nothing is found. ``DIRECT`` is never made up: it is used
where the list or a file names it.

Without ``auto`` nothing of this is even imported.

Source: docs/reference/client-behaviour.md, "Proxy auto-discovery".
"""

import time
from typing import TYPE_CHECKING, NamedTuple

from cvmfsexec import log
from cvmfsexec.errors import ConfigurationError, FormatError, NoRouteError
from cvmfsexec.format.proxy_groups import (
    ProxyGroup,
    format_proxy_list,
    parse_proxy_list,
    without_credentials,
    without_direct,
)
from cvmfsexec.network.settings import NO_PROXY_HINT, Discovery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cvmfsexec.network.discovery_memory import Finding
    from cvmfsexec.network.settings import NetworkSettings


class DiscoveryPlaces(NamedTuple):
    """Where to remember what was found.

    Attributes:
        node: Directory that all repositories of the user share.
        list_path: File for the complete list of one repository.
    """

    node: str
    list_path: str


def discover(
    settings: "NetworkSettings",
    environment: "Mapping[str, str]",
    places: DiscoveryPlaces | None = None,
) -> "NetworkSettings":
    """Put what can be found in the place of ``auto``.

    Args:
        settings: As configured.
        environment: Read for http_proxy.
        places: Where to remember; nowhere if None.

    Returns:
        Settings with at least one proxy or ``DIRECT``, and without ``auto``; the same
        if there was none.

    Raises:
        NoRouteError: Nothing was found, and nothing else is configured.
        ConfigurationError: The variable does not hold a proxy list.
    """
    if not settings.has_auto:
        return settings
    found = _find(settings, environment, places)
    proxies = _resolved(settings, found)
    if not found.groups:
        log.info("no proxy found for 'auto': %s", "; ".join(found.failures))
        proxies, found = _recall(settings, found, places) or (proxies, found)
    elif places is not None:
        from cvmfsexec.network import discovery_memory

        discovery_memory.remember_list(places.list_path, proxies[0] + proxies[1])
    if found.groups:
        shown = without_credentials(format_proxy_list(found.groups))
        log.detail("auto is %s, by %s", shown, found.origin)
    if not any(proxies):
        raise NoRouteError(
            f"no proxy was found: {'; '.join(found.failures)}", hint=NO_PROXY_HINT
        )
    return settings._replace(
        proxy_groups=proxies[0], fallback_proxy_groups=proxies[1], discovery=found
    )


_TwoLists = tuple[tuple[ProxyGroup, ...], tuple[ProxyGroup, ...]]


def _resolved(settings: "NetworkSettings", found: Discovery) -> _TwoLists:
    """Return proxies and fallback proxies, with what was found in place of ``auto``."""

    def resolved(groups: tuple[ProxyGroup, ...]) -> tuple[ProxyGroup, ...]:
        parts = (found.groups if group.is_auto else (group,) for group in groups)
        flat = tuple(dict.fromkeys(group for part in parts for group in part))
        return flat if settings.allows_direct else without_direct(flat)

    return resolved(settings.proxy_groups), resolved(settings.fallback_proxy_groups)


def _recall(
    settings: "NetworkSettings", found: Discovery, places: DiscoveryPlaces | None
) -> tuple[_TwoLists, Discovery] | None:
    """Return the list of another day, if there is one."""
    if places is None:
        return None
    from cvmfsexec.network import discovery_memory

    groups, found_at_s = discovery_memory.recall_list(places.list_path)
    if not settings.allows_direct:
        groups = without_direct(groups)
    if not groups:
        return None
    origin = f"{places.list_path}, remembered {_age_text(time.time() - found_at_s)} ago"
    log.info("using %s", origin)
    return (groups, ()), found._replace(groups=groups, origin=origin)


def _find(
    settings: "NetworkSettings",
    environment: "Mapping[str, str]",
    places: DiscoveryPlaces | None,
) -> Discovery:
    http_proxy = environment.get("http_proxy")
    if http_proxy is not None:
        return _from_environment(http_proxy)
    failures = ("the environment variable http_proxy is not set",)
    servers = [server for server in settings.servers if server.startswith("http")]
    if not settings.pac_urls or not servers:
        missing = "CVMFS_PAC_URLS is not set" if servers else "no HTTP server"
        return Discovery(failures=(*failures, missing))
    found = _from_memory_or_files(settings, servers, environment, places)
    return found._replace(failures=failures + found.failures)


def _from_environment(http_proxy: str) -> Discovery:
    name = "the environment variable http_proxy"
    try:
        found = parse_proxy_list(http_proxy)
    except FormatError as error:
        raise ConfigurationError(f"environment variable http_proxy: {error}") from error
    groups = tuple(group for group in found if not group.is_auto)
    return Discovery(groups, name, () if groups else (f"{name} names no proxy",))


def _from_memory_or_files(
    settings: "NetworkSettings",
    servers: list[str],
    environment: "Mapping[str, str]",
    places: DiscoveryPlaces | None,
) -> Discovery:
    if places is None:
        return _from_files(settings, servers, environment)
    from cvmfsexec.network import discovery_memory, local_address

    key = discovery_memory.key_of(
        [
            *settings.pac_urls,
            *(_origin_of(server) for server in servers),
            # Who moves to another network has other proxies.
            local_address.address_towards(local_address.OUTSIDE),
        ]
    )
    known = discovery_memory.recall(places.node, key)
    if known is not None:
        return _from_memory(known)
    with discovery_memory.turn(places.node):
        known = discovery_memory.recall(places.node, key)
        if known is not None:
            return _from_memory(known)
        found = _from_files(settings, servers, environment)
        note = found.origin or "; ".join(found.failures)
        finding = discovery_memory.Finding(key, int(time.time()), found.groups, note)
        discovery_memory.remember(places.node, finding)
    return found


def _from_memory(known: "Finding") -> Discovery:
    age = _age_text(time.time() - known.found_at_s)
    if known.groups:
        return Discovery(known.groups, f"{known.note}, found {age} ago")
    return Discovery(failures=(f"{known.note} ({age} ago)",))


def _from_files(
    settings: "NetworkSettings", servers: list[str], environment: "Mapping[str, str]"
) -> Discovery:
    from cvmfsexec.network.default_transport import DefaultTransport
    from cvmfsexec.network.pac import CONNECT_TIME_LIMIT_S, ask_file
    from cvmfsexec.network.pac_evaluation import PacFault

    limit_s = CONNECT_TIME_LIMIT_S
    patience_s = min(settings.timeout_direct_s or limit_s, limit_s)
    transport = DefaultTransport(
        settings._replace(timeout_direct_s=patience_s, follows_redirects=True)
    )
    failures: list[str] = []
    for url in settings.pac_urls:
        shown = without_credentials(url)
        try:
            groups = ask_file(url, servers, transport, environment)
        except PacFault as fault:
            failures.append(f"{shown}: {fault}")
        else:
            return Discovery(groups, shown, tuple(failures))
    return Discovery(failures=tuple(failures))


def _origin_of(server: str) -> str:
    """Return scheme, host and port: what proxies usually depend on."""
    return "/".join(server.split("/")[:3])


def _age_text(age_s: float) -> str:
    if age_s < 120:
        return f"{max(int(age_s), 0)} s"
    if age_s < 2 * 3600:
        return f"{int(age_s / 60)} minutes"
    return (
        f"{int(age_s / 3600)} hours"
        if age_s < 48 * 3600
        else (f"{int(age_s / 86400)} days")
    )
