"""Proxies found by themselves: what the group ``auto`` of a proxy list stands for.

The environment variable ``http_proxy`` has the first word. Automatic configuration
files (PAC) will have the second; until they are read, ``auto`` finds nothing there.
``DIRECT`` is never made up: it is used where a list names it.

Source: docs/reference/client-behaviour.md, "Proxy auto-discovery".
"""

from cvmfsexec import log
from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.proxy_groups import ProxyGroup, parse_proxy_list


def resolve_auto(
    groups: tuple[ProxyGroup, ...], http_proxy: str | None
) -> tuple[ProxyGroup, ...]:
    """Put what can be discovered in the place of each ``auto`` group.

    Args:
        groups: As configured.
        http_proxy: Value of the environment variable; None if there is none. An
            empty value means that nothing is found.

    Returns:
        The groups without ``auto``; perhaps none at all.

    Raises:
        ConfigurationError: The variable does not hold a proxy list.
    """
    if not any(group.is_auto for group in groups):
        return groups
    found = _from_environment(http_proxy)
    if not found:
        log.info("no proxy found for %r: http_proxy is not set", "auto")
    resolved: list[ProxyGroup] = []
    for group in groups:
        resolved.extend(found if group.is_auto else (group,))
    return tuple(resolved)


def _from_environment(http_proxy: str | None) -> tuple[ProxyGroup, ...]:
    if http_proxy is None:
        return ()
    try:
        found = parse_proxy_list(http_proxy)
    except FormatError as error:
        raise ConfigurationError(f"environment variable http_proxy: {error}") from error
    return tuple(group for group in found if not group.is_auto)
