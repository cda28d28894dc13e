"""Published repositories on the real kernel, whose revisions are followed when told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from cvmfsexec.client.assembly import Client
from cvmfsexec.fuse.server import BOUNDED_VALIDITY_S, FuseServer
from tests.support.clients import open_client
from tests.support.fuse_mount import Mount, mounted
from tests.support.published import PublishedRepository


class UpdatingServer(FuseServer):
    """Serves a client, made in the server's own process."""

    def __init__(
        self,
        device_fd: int,
        make_client: Callable[[], Client],
        bounded_validity_s: int = BOUNDED_VALIDITY_S,
        **options: Any,  # noqa: ANN401
    ) -> None:
        self._client = make_client()
        file_system = self._client.file_system()
        super().__init__(device_fd, file_system, **options)
        self.bounded_validity_s = bounded_validity_s
        self._client.watch(self)
        self._client.follow(file_system, self)

    def check(self) -> str:
        """Look for a newer revision; return what came of it."""
        return self._client.updates.check_now().value

    def revision(self) -> int:
        """Return the number of the revision shown."""
        return self._client.revision.number


def check(mount: Mount) -> str:
    """Let the server of a mount look for a newer revision."""
    return cast("str", mount.ask("check"))


@contextmanager
def following(
    directory: Path,
    repository: PublishedRepository,
    base_url: str = "",
    parameters: dict[str, Any] | None = None,
    **server_options: Any,  # noqa: ANN401
) -> Iterator[Mount]:
    """Mount a repository for the time of a ``with`` block.

    Args:
        directory: Gets configuration and cache.
        repository: What to mount.
        base_url: Of its server; without one it is read from its directory.
        parameters: Of its configuration.
        server_options: Of ``FuseServer``.
    """
    url = base_url or f"file://{repository.output}"

    def make_client() -> Client:
        return open_client(directory, repository, url, **(parameters or {}))

    with mounted(make_client, server=UpdatingServer, **server_options) as mount:
        yield mount
