"""Repositories with members: their https servers are shown who asks.

The root catalog names the requirement, and only the servers can tell whether the user
meets it. So a repository is opened if the user has a credential of the right kind and
there is a server to show it to. A requirement that this client does not understand is
refused, never ignored.

Source: docs/reference/client-behaviour.md, "Repositories with members".
"""

from collections.abc import Iterable, Mapping

from cvmfsexec.client.ownership import Identity
from cvmfsexec.errors import UnsupportedTrustError
from cvmfsexec.network.client import HttpClient
from cvmfsexec.network.credentials import UserCredentials


def authorise(
    fqrn: str,
    requirement: str,
    clients: Iterable[HttpClient],
    uid: Identity,
    environment: Mapping[str, str],
) -> None:
    """Let https servers see the user's credential from now on.

    Args:
        fqrn: The repository.
        requirement: As its root catalog says it, ``SCHEMA%REQUIREMENT``.
        clients: Those that ask its servers.
        uid: The user's number.
        environment: The user's.

    Raises:
        UnsupportedTrustError: The kind of requirement is unknown, or no server is
            asked by https.
        MissingCredentialError: The user has no credential, or none that may be used.
    """
    try:
        credentials = UserCredentials(requirement, uid.namespace, uid.host, environment)
    except UnsupportedTrustError as error:
        raise UnsupportedTrustError(f"{fqrn} is {error}") from error
    secure = [
        client
        for client in clients
        if any(host.startswith("https:") for host in client.hosts())
    ]
    if not secure:
        raise UnsupportedTrustError(
            f"{fqrn} is open to members only ({requirement}), and none of its servers "
            "is asked by https, by which alone a credential is sent",
            hint="set CVMFS_SERVER_URL or CVMFS_EXTERNAL_URL to https servers",
        )
    credentials.current()
    for client in secure:
        client.show_credential(credentials.current)
