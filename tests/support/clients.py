"""Clients of repositories that tests publish, put together as for users."""

import os
from pathlib import Path

from cvmfsexec.client.assembly import Client, User
from cvmfsexec.configuration.evaluate import evaluate
from tests.support.configuration import make_dist
from tests.support.published import PublishedRepository


def open_client(
    directory: Path, repository: PublishedRepository, base_url: str, **parameters: str
) -> Client:
    """Return a client of a repository; the caller closes it.

    Args:
        directory: Gets the dist, with the cache in it.
        repository: What to open.
        base_url: Of its server, as ``serve`` gives it.
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
    user = User.of_this_process(os.environ)
    return Client(evaluate(repository.fqrn, root, None, os.environ), user)
