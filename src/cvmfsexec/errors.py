"""Every exception that is raised on purpose, as one tree by who is to blame.

::

    CvmfsError
    ├── FormatError                  outside bytes are malformed
    │   ├── IncompleteManifestError
    │   ├── MalformedWhitelistError
    │   └── MalformedCertificateError    no usable RSA key in it
    ├── TrustError                   well formed, but not believed
    │   ├── NoMasterKeyError             nothing to verify with
    │   ├── LetterHashMismatchError      the text is not its hash line
    │   ├── SignatureMismatchError       manifest or whitelist signature
    │   ├── FqrnMismatchError            another repository's document
    │   ├── RootPathMismatchError        manifest field R
    │   ├── WhitelistExpiredError
    │   ├── FingerprintNotListedError
    │   ├── CertificateBlacklistedError
    │   ├── RevisionBlacklistedError
    │   ├── RollbackError                older than what was already seen
    │   ├── UntrustedPackageError        not pinned, or not signed by the key given
    │   ├── MissingCredentialError       for members only, and the user shows nothing
    │   └── UnsupportedTrustError        PKCS#7, CA chain, authorisation: refused
    ├── IntegrityError               an object is not its hash
    │   └── ObjectTooLargeError          more bytes than announced or allowed
    ├── TransferError                host or proxy; says which routes were tried
    │   └── NoRouteError                 no server or no proxy configured
    ├── CacheError                   local storage
    │   └── UnreadableObjectError        the disk does not give back what it was given
    │       └── GoneObjectError              another node took it away
    ├── ConfigurationError           parameters, keys, names given by the user
    │   ├── CacheSettingError            of the cache, and make no sense together
    │   └── TagNotFoundError
    ├── StaleInodeError              the kernel asks for what is no longer shown
    ├── NamespaceError               a system call was refused; carries a hint
    ├── FusermountError              the mount helper of the host refused
    │   └── MountBusyError               somebody uses what was to be unmounted
    ├── SessionError                 a process of a session ended before its time
    │   └── ServiceFailedError           a file server said that it cannot start
    ├── PublishError                 the publisher cannot go on
    └── DistributionError            a dist or a file with everything cannot be made

"No such entry" is an answer (``None``), never one of these. Three places decide
what an error means to the outside: ``fuse/errno_map.py``, ``cli/exit_codes.py``
and ``network/failover.py``.
"""


class CvmfsError(Exception):
    """Root of the tree; the message is one sentence for the user.

    Attributes:
        hint: What the user can do, or an empty string. Printed after the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class FormatError(CvmfsError):
    """Bytes from outside do not follow their format."""


class IncompleteManifestError(FormatError):
    """One of the manifest fields C, R, D, S (or X, to verify) is missing."""


class MalformedWhitelistError(FormatError):
    """The whitelist is empty or does not follow its format."""


class MalformedCertificateError(FormatError):
    """The publisher's certificate cannot be read, or holds no usable RSA key."""


class TrustError(CvmfsError):
    """A well-formed document that is not believed."""


class NoMasterKeyError(TrustError):
    """No master public key is configured, so nothing can be verified."""


class LetterHashMismatchError(TrustError):
    """The text of a signed document does not hash to its hash line."""


class SignatureMismatchError(TrustError):
    """A signature was not made by the expected key."""


class FqrnMismatchError(TrustError):
    """A signed document speaks for another repository."""


class RootPathMismatchError(TrustError):
    """The manifest's root path hash is not that of the repository root."""


class WhitelistExpiredError(TrustError):
    """The whitelist's expiry hour has begun."""


class FingerprintNotListedError(TrustError):
    """The signing certificate is not on the whitelist."""


class CertificateBlacklistedError(TrustError):
    """The signing certificate is on the local blacklist."""


class RevisionBlacklistedError(TrustError):
    """The local blacklist asks for a newer revision."""


class RollbackError(TrustError):
    """The manifest is older than one that was already accepted here."""


class UntrustedPackageError(TrustError):
    """A package is not what the user said that it must be."""


class MissingCredentialError(TrustError):
    """The servers want to know who asks, and the user has no usable credential."""


class UnsupportedTrustError(TrustError):
    """The repository asks for a check that this client does not make."""


class IntegrityError(CvmfsError):
    """Bytes that were fetched do not match the hash that names them."""


class ObjectTooLargeError(IntegrityError):
    """An answer or its decompressed form exceeds its limit."""


class TransferError(CvmfsError):
    """Nothing could be downloaded; names the routes that were tried.

    Attributes:
        routes: One text per attempt, "host via proxy: reason", in order.
    """

    def __init__(
        self, message: str, *, routes: tuple[str, ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.routes = routes


class NoRouteError(TransferError):
    """No server or no proxy is configured to ask."""


class CacheError(CvmfsError):
    """The local cache cannot be used."""


class UnreadableObjectError(CacheError):
    """The disk does not give back an object that was stored."""


class GoneObjectError(UnreadableObjectError):
    """Another node removed or replaced a file that is open here; one may be there."""


class ConfigurationError(CvmfsError):
    """A parameter, key file, or name given by the user is missing or wrong."""


class CacheSettingError(ConfigurationError):
    """Parameters of the cache make no sense together."""


class TagNotFoundError(ConfigurationError):
    """The wanted tag or date is not in the repository's history."""


class StaleInodeError(CvmfsError):
    """An inode number stands for nothing here, or not any more."""


class NamespaceError(CvmfsError):
    """A system call that the session needs was refused.

    Attributes:
        syscall: The kernel's name of the call, e.g. ``unshare``.
        errno: The kernel's error number.
    """

    def __init__(
        self, message: str, *, syscall: str = "", errno: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.syscall = syscall
        self.errno = errno


class FusermountError(CvmfsError):
    """The host's helper for mounting is not there, or says that it cannot."""


class MountBusyError(FusermountError):
    """Somebody uses what was to be unmounted; it stays."""


class SessionError(CvmfsError):
    """A process that a session needs ended before the payload did."""


class ServiceFailedError(SessionError):
    """A file server could not start; the message is its own.

    Attributes:
        status: The exit status that it asked for; 0 if it did not say.
    """

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class PublishError(CvmfsError):
    """A publication cannot be made; the repository is unchanged."""


class DistributionError(CvmfsError):
    """A dist, or a file with everything, cannot be made or unpacked."""
