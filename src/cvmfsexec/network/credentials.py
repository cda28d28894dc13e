"""Credentials of the user, for the https servers of a repository with members.

The root catalog of such a repository says ``SCHEMA%REQUIREMENT``. Whether the user
meets the requirement is for its servers to decide, which see the user's credential:

* ``x509``: an X.509 proxy certificate with its key, ``$X509_USER_PROXY`` or
  ``/tmp/x509up_uUID``, shown as client certificate;
* ``scitoken``: a bearer token, found as WLCG's discovery says: ``$BEARER_TOKEN``,
  the file ``$BEARER_TOKEN_FILE``, ``$XDG_RUNTIME_DIR/bt_uUID``, ``/tmp/bt_uUID``.

Credentials are sent by https only, to the configured servers only: not to where they
redirect, not to proxies. They never appear in messages: ``Credential`` shows nothing
of itself. A file is read again when it has changed, so a renewed credential is used
without a restart. A file must belong to the user, and nobody else may read it.

Threads: any may call.

Source: docs/reference/client-behaviour.md, "Repositories with members".
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from cvmfsexec.errors import MissingCredentialError, UnsupportedTrustError

CREDENTIAL_BYTES_MAX = 1 << 20  # certificates with long chains have some 20 KiB

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TOKEN = re.compile(rb"[!-~]+")


class Credential(NamedTuple):
    """What a server may see; has either part.

    Attributes:
        certificate: PEM of an X.509 proxy: certificate, key, chain.
        bearer_token: As it stands in the header.
    """

    certificate: bytes = b""
    bearer_token: str = ""

    def __repr__(self) -> str:
        """Tell what it is, and nothing of what is in it."""
        return "<X.509 proxy>" if self.certificate else "<bearer token>"


class _Place(NamedTuple):
    """Where a credential may be.

    Attributes:
        path: A file.
        is_given: Whether the user named it: then it is this one or none.
    """

    path: str
    is_given: bool = False


class UserCredentials:
    """Finds the credential of one user for one kind of requirement.

    Args:
        requirement: As the root catalog says it.
        uid: Whose files are believed, as the kernel shows their owner here.
        name_uid: The number in names of files, which is the real one.
        environment: Variables that name credentials.

    Raises:
        UnsupportedTrustError: No credential is known for the requirement.
    """

    def __init__(
        self, requirement: str, uid: int, name_uid: int, environment: Mapping[str, str]
    ) -> None:
        schema = requirement.partition("%")[0] if "%" in requirement else ""
        if schema not in _KINDS:
            raise UnsupportedTrustError(
                f"open to members only ({requirement}), which this client cannot check"
            )
        kind = _KINDS[schema]
        self._kind = kind
        self._uid = uid
        self._environment = environment
        self._places = tuple(kind.places(environment, name_uid))
        self._known: tuple[tuple[object, ...], Credential] | None = None

    def current(self) -> Credential:
        """Return the credential as it is now.

        Raises:
            MissingCredentialError: There is none, or it must not be used.
        """
        token = self._environment.get("BEARER_TOKEN", "").strip()
        if token and self._kind is _TOKEN_KIND:
            return _parse_token(os.fsencode(token), "$BEARER_TOKEN")
        for path, is_given in self._places:
            try:
                return self._read(path)
            except FileNotFoundError:
                if is_given:
                    break
            except OSError as error:
                raise MissingCredentialError(
                    f"cannot read {path}: {error.strerror}", hint=self._kind.hint
                ) from error
        looked = ", ".join(place.path for place in self._places)
        raise MissingCredentialError(
            f"{self._kind.name} is needed and there is none (looked for: {looked})",
            hint=self._kind.hint,
        )

    def _read(self, path: str) -> Credential:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        descriptor = os.open(path, flags)
        try:
            status = os.fstat(descriptor)
            identity = (path, status.st_dev, status.st_ino, status.st_mtime_ns,
                        status.st_ctime_ns, status.st_size)  # fmt: skip
            known = self._known
            if known is not None and known[0] == identity:
                return known[1]
            self._check(path, status)
            content = os.read(descriptor, CREDENTIAL_BYTES_MAX)
        finally:
            os.close(descriptor)
        credential = self._kind.parse(content, path)
        self._known = (identity, credential)
        return credential

    def _check(self, path: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            reason = "it is no regular file"
        elif status.st_uid != self._uid:
            reason = f"it belongs to another user (uid {status.st_uid})"
        elif status.st_mode & _OTHERS:
            reason = f"others can use it (mode {stat.S_IMODE(status.st_mode):04o})"
        else:
            return
        raise MissingCredentialError(
            f"the credential {path} is not used: {reason}",
            hint=f"if it is yours, run: chmod 600 {path}",
        )


def _certificate_places(
    environment: Mapping[str, str], name_uid: int
) -> Iterator[_Place]:
    given = environment.get("X509_USER_PROXY", "")
    yield _Place(given, is_given=True) if given else _Place(f"/tmp/x509up_u{name_uid}")  # noqa: S108


def _token_places(environment: Mapping[str, str], name_uid: int) -> Iterator[_Place]:
    given = environment.get("BEARER_TOKEN_FILE", "")
    if given:
        yield _Place(given, is_given=True)
        return
    runtime_directory = environment.get("XDG_RUNTIME_DIR", "")
    if runtime_directory:
        yield _Place(os.path.join(runtime_directory, f"bt_u{name_uid}"))
    yield _Place(f"/tmp/bt_u{name_uid}")  # noqa: S108 -- the place of WLCG's discovery


def _parse_certificate(content: bytes, path: str) -> Credential:
    if b"-----BEGIN CERTIFICATE-----" not in content or b"PRIVATE KEY" not in content:
        raise MissingCredentialError(
            f"{path} does not hold a certificate with its key",
            hint=_CERTIFICATE_KIND.hint,
        )
    return Credential(certificate=content)


def _parse_token(content: bytes, path: str) -> Credential:
    token = content.strip()
    if not _TOKEN.fullmatch(token):
        raise MissingCredentialError(
            f"{path} does not hold a bearer token", hint=_TOKEN_KIND.hint
        )
    return Credential(bearer_token=token.decode("ascii"))


class _Kind(NamedTuple):
    name: str
    hint: str
    places: "Callable[[Mapping[str, str], int], Iterator[_Place]]"
    parse: "Callable[[bytes, str], Credential]"


_CERTIFICATE_KIND = _Kind(
    "an X.509 proxy certificate",
    "get one (voms-proxy-init), or set X509_USER_PROXY to its file",
    _certificate_places,
    _parse_certificate,
)
_TOKEN_KIND = _Kind(
    "a bearer token",
    "get one (htgettoken), or set BEARER_TOKEN_FILE to its file",
    _token_places,
    _parse_token,
)
_KINDS = {"x509": _CERTIFICATE_KIND, "scitoken": _TOKEN_KIND}
