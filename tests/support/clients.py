"""Clients of repositories that tests publish, put together as for users."""

import os
from pathlib import Path

from cvmfsexec.cache.store import ObjectStore
from cvmfsexec.client.assembly import Client, User
from cvmfsexec.configuration.evaluate import evaluate
from tests.support.configuration import make_dist
from tests.support.published import PublishedRepository


def open_client(
    directory: Path,
    repository: PublishedRepository,
    base_url: str,
    user: User | None = None,
    store: ObjectStore | None = None,
    **parameters: str,
) -> Client:
    """Return a client of a repository; the caller closes it.

    Args:
        directory: Gets the dist, with the cache in it.
        repository: What to open.
        base_url: Of its server, as ``serve`` gives it; or of a directory, ``file://…``.
        user: For whom; the one who runs the tests if ``None``.
        store: Where objects are kept; a directory if ``None``.
        parameters: Further ones, such as ``CVMFS_REPOSITORY_TAG="v1"``.
    """
    values = {
        "CVMFS_SERVER_URL": f"{base_url}/@fqrn@",
        "CVMFS_HTTP_PROXY": "DIRECT",
        "CVMFS_PUBLIC_KEY": str(repository.master_key),
        "CVMFS_CACHE_BASE": str(directory / "cache"),
        **parameters,
    }
    lines = [f"{name}='{value}'\n" for name, value in values.items()]
    root = make_dist(directory, {"default.local": "".join(lines)})
    configuration = evaluate(repository.fqrn, root, None, os.environ)
    return Client(configuration, user or User.of_this_process(os.environ), store)
