"""Network settings of a repository's clients, with proxies that were looked for.

What is found for ``auto`` is remembered beside the cache, so this is the place where
the network's part meets the cache's.
"""

from collections.abc import Mapping

from cvmfsexec import log
from cvmfsexec.configuration.evaluate import Configuration
from cvmfsexec.configuration.settings import CacheSettings
from cvmfsexec.network.settings import NetworkSettings


def network_settings(
    configuration: Configuration,
    environment: Mapping[str, str],
    cache: CacheSettings | None = None,
) -> NetworkSettings:
    """Return how to reach the servers of a repository.

    Args:
        configuration: Of the repository.
        environment: Of the user.
        cache: Where to remember proxies that were found; nowhere if None.

    Raises:
        NoRouteError: There is no server or no proxy to ask.
        ConfigurationError: A parameter makes no sense.
    """
    settings = NetworkSettings.from_parameters(configuration, environment)
    if configuration.get("CVMFS_DNS_SERVER"):
        log.warning(
            "%s: CVMFS_DNS_SERVER is not used: names are resolved by the system",
            configuration.fqrn,
        )
    return _with_proxies(settings, "proxies", configuration.fqrn, environment, cache)


def external_network_settings(
    configuration: Configuration,
    environment: Mapping[str, str],
    cache: CacheSettings | None = None,
) -> NetworkSettings | None:
    """Return the same for external files; None if there is no server for them."""
    settings = NetworkSettings.external_from_parameters(configuration, environment)
    if settings is None:
        return None
    name = "proxies-external"
    return _with_proxies(settings, name, configuration.fqrn, environment, cache)


def _with_proxies(
    settings: NetworkSettings,
    name: str,
    fqrn: str,
    environment: Mapping[str, str],
    cache: CacheSettings | None,
) -> NetworkSettings:
    if not settings.has_auto:
        return settings
    from cvmfsexec.network.discovery import DiscoveryPlaces, discover

    places = None
    if cache is not None:
        list_path = f"{cache.workspace}/{name}.{fqrn}-{fqrn}"
        places = DiscoveryPlaces(cache.shared_directory, list_path)
    return discover(settings, environment, places)
