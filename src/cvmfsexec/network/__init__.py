"""Getting bytes over HTTP: servers, proxies, failover, limits."""
