"""A certificate for 127.0.0.1 that vouches for itself, for servers that speak TLS."""

import ssl
import subprocess
from pathlib import Path


class Authority:
    """An authority, a server's certificate and a user's certificate in one.

    Args:
        directory: Where it is made.

    Attributes:
        bundle: File of the certificate.
    """

    def __init__(self, directory: Path) -> None:
        self.bundle = directory / "certificate.pem"
        self._key = directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", str(self._key), "-out", str(self.bundle)],
            check=True,
            capture_output=True,
        )  # fmt: skip

    @property
    def credential(self) -> bytes:
        """Certificate and key as a user's file holds them."""
        return self.bundle.read_bytes() + self._key.read_bytes()

    def context(self, *, asks_for_certificate: bool = False) -> ssl.SSLContext:
        """Return what a server speaks."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.bundle, self._key)
        if asks_for_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.bundle)
        return context
