"""Where this machine keeps the certificate authorities that https servers need.

The TLS library comes with a wheel that was built elsewhere, so the places that are
compiled into it are those of another distribution.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

GRID_DIRECTORY = "/etc/grid-security/certificates"

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)
_SYSTEM_DIRECTORY = "/etc/ssl/certs"


class Authorities(NamedTuple):
    """Trusted authorities.

    Attributes:
        bundle: File of PEM certificates, or an empty text.
        directory: Directory of certificates by hash, or an empty text.
    """

    bundle: str = ""
    directory: str = ""


def find_authorities(
    environment: "Mapping[str, str]", *, use_system: bool
) -> Authorities:
    """Return the system's authorities, or those of the grid.

    Args:
        environment: Read for X509_CERT_DIR and X509_CERT_BUNDLE.
        use_system: Value of CVMFS_USE_SSL_SYSTEM_CA.
    """
    if not use_system:
        return Authorities(
            environment.get("X509_CERT_BUNDLE", ""),
            environment.get("X509_CERT_DIR") or GRID_DIRECTORY,
        )
    bundle = next((path for path in _SYSTEM_BUNDLES if os.path.exists(path)), "")
    return Authorities(bundle, "" if bundle else _SYSTEM_DIRECTORY)
