"""Any file is a credential of the wanted kind, or refused; nothing of it is shown."""

import os
import tempfile

from cvmfsexec.errors import MissingCredentialError
from cvmfsexec.network.credentials import UserCredentials


def target(data: bytes) -> None:
    """Raise only on a finding."""
    uid = os.getuid()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for schema, variable in _KINDS:
            credentials = UserCredentials(schema, uid, uid, {variable: file.name})
            try:
                credential = credentials.current()
            except MissingCredentialError:
                continue
            assert bool(credential.certificate) != bool(credential.bearer_token)
            assert repr(credential) in {"<X.509 proxy>", "<bearer token>"}
            assert credential.bearer_token.isascii()
            assert not set(credential.bearer_token) & set(" \r\n\0")


_KINDS = (("x509%/cms", "X509_USER_PROXY"), ("scitoken%x", "BEARER_TOKEN_FILE"))
