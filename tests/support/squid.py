"""A site's proxy: a real squid that keeps what it has in memory."""

from tests.support.server_process import ServerProcess

_CONFIGURATION = """
http_port 127.0.0.1:{port}
pid_filename none
access_log stdio:{top}/access.log squid
cache_log {top}/cache.log
cache_store_log none
coredump_dir {top}
cache_mem 64 MB
maximum_object_size_in_memory 16 MB
acl local src 127.0.0.0/8
{authentication}
http_access {allowed}
http_access deny all
shutdown_lifetime 1 seconds
visible_hostname localhost
collapsed_forwarding on
negative_ttl 0 seconds
pinger_enable off
netdb_filename none
max_filedescriptors 1024
"""

_AUTHENTICATION = """
auth_param basic program /bin/sh {top}/helper
auth_param basic children 2 startup=1
auth_param basic realm test
acl known proxy_auth REQUIRED
"""

_HELPER = """while read -r user password; do
  if [ "$user:$password" = '{credentials}' ]; then echo OK; else echo ERR; fi
done
"""


class Squid(ServerProcess):
    """A running squid.

    Args:
        credentials: ``user:password`` that it asks for; none if empty.
    """

    program = "squid"

    def __init__(self, credentials: str = "") -> None:
        super().__init__()
        self._credentials = credentials

    @property
    def url(self) -> str:
        """URL of the proxy, without user and password."""
        return f"http://127.0.0.1:{self.port}"

    def configure(self) -> None:
        """See ``ServerProcess``."""
        top = self.directory
        (top / "helper").write_text(_HELPER.format(credentials=self._credentials))
        text = _CONFIGURATION.format(
            top=top,
            port=self.port,
            authentication=self._credentials and _AUTHENTICATION.format(top=top),
            allowed="allow local known" if self._credentials else "allow local",
        )
        (top / "squid.conf").write_text(text)

    def command(self) -> tuple[str, ...]:
        """See ``ServerProcess``."""
        return ("-N", "-f", f"{self.directory}/squid.conf")

    def begin_anew(self) -> None:
        """Forget what is cached, and what was asked for."""
        self.kill()
        (self.directory / "access.log").unlink(missing_ok=True)
        self.start()

    def results(self) -> list[str]:
        """Return what it did with each request: ``TCP_MISS/200``, ``TCP_HIT/200``."""
        return [line.split()[3] for line in self.lines("access.log")]

    def object_results(self) -> list[str]:
        """Return the same for immutable objects."""
        lines = (line for line in self.lines("access.log") if "/data/" in line)
        return [line.split()[3] for line in lines]
