"""Which features of the kernel are used, decided from its INIT request. Pure.

The kernel offers flags, the answer names those that are wanted; nothing is concluded
from a version number but the length of the answer. What a missing flag changes:

==================== ===========================================================
NO_OPEN_SUPPORT      OPEN is answered each time, with "keep the page cache"
NO_OPENDIR_SUPPORT   OPENDIR likewise, with "keep the directory cache"
DO_READDIRPLUS       READDIR lists names, and a LOOKUP follows for each that is used
CACHE_SYMLINKS       READLINK is asked each time
MAX_PAGES            READ asks for 128 KiB at most instead of 1 MiB
PARALLEL_DIROPS      the kernel sends one request per directory at a time
ASYNC_READ           the kernel reads ahead with one request at a time
POSIX_ACL            modes are checked by us, not by the kernel (``permissions``)
EXPORT_SUPPORT       file handles (NFS export) end with the inode's kernel memory
INIT_EXT             flags 32-63 do not exist
==================== ===========================================================

READDIRPLUS_AUTO stays off: attributes are free here, and with it the kernel lists
without them first. Caching is the kernel's default once OPEN was answered by ENOSYS.
"""

from typing import NamedTuple

from cvmfsexec.errors import FormatError
from cvmfsexec.fuse.protocol import (
    BODY_OFFSET,
    FOREVER_S,
    HEADER_BYTES,
    INIT_BODY,
    INIT_BODY_BYTES_BEFORE_7_23,
    INIT_FLAGS2_OFFSET,
    INIT_REQUEST,
    MAJOR,
    MINOR,
    MINOR_MIN,
    REPLY_HEADER,
    Feature,
)

ALL_FEATURES = ~0

WANTED = (
    Feature.ASYNC_READ
    | Feature.EXPORT_SUPPORT
    | Feature.DO_READDIRPLUS
    | Feature.NO_OPEN_SUPPORT
    | Feature.PARALLEL_DIROPS
    | Feature.MAX_PAGES
    | Feature.CACHE_SYMLINKS
    | Feature.NO_OPENDIR_SUPPORT
    | Feature.INIT_EXT
    | Feature.HAS_EXPIRE_ONLY
)

CHECKING = Feature.POSIX_ACL
"""Wanted as well where modes are to be checked and the mount has not said so.

A server that knows access control lists lets the kernel check permissions, as if it had
been mounted with ``default_permissions``. We have no lists, and say so when asked.
"""

_LOW_32_BITS = 0xFFFFFFFF

# Requests that nobody waits for (readahead) and that may be under way at once; the
# kernel's 12 would keep a slow network idle. The kernel may lower it further.
_MAX_BACKGROUND = 64
_CONGESTION_THRESHOLD = 48

_MAX_PAGES = 256  # 1 MiB, the kernel's own limit
_MAX_WRITE_BYTES = 4096  # nothing is written; small, so that 8 KiB hold any request
_TIME_GRANULARITY_NS = 1


class InitRequest(NamedTuple):
    """What the kernel can do.

    Attributes:
        major: Of its protocol, 7 for twenty years now.
        minor: Of its protocol.
        max_readahead: Bytes it would read ahead.
        features: ``Feature`` bits it offers.
    """

    major: int
    minor: int
    max_readahead: int
    features: int

    @classmethod
    def parse(cls, request: bytes) -> "InitRequest":
        """Read an INIT request, header included.

        Raises:
            FormatError: It is too short.
        """
        if len(request) < BODY_OFFSET + INIT_REQUEST.size:
            raise FormatError(f"FUSE INIT request of {len(request)} bytes")
        fields = INIT_REQUEST.unpack_from(request, BODY_OFFSET)
        major, minor, max_readahead, features = fields
        if features & Feature.INIT_EXT:
            flags2 = request[INIT_FLAGS2_OFFSET : INIT_FLAGS2_OFFSET + 4]
            features |= int.from_bytes(flags2, "little") << 32
        return cls(major, minor, max_readahead, features)


class Terms(NamedTuple):
    """What was agreed with the kernel.

    Attributes:
        minor: Protocol minor version in use, the smaller of both sides.
        features: ``Feature`` bits in use.
        max_readahead: Bytes the kernel may read ahead.
        validity_s: How long the kernel may keep names and attributes; listings too,
            if it is ``FOREVER_S``.
    """

    minor: int
    features: int
    max_readahead: int
    validity_s: int = FOREVER_S

    @property
    def is_bounded(self) -> bool:
        """Whether what the kernel keeps is only good for some time."""
        return self.validity_s != FOREVER_S

    def bounded(self, validity_s: int) -> "Terms":
        """Return terms for a kernel that cannot be told of changes."""
        features = self.features & ~Feature.NO_OPENDIR_SUPPORT
        return self._replace(features=features, validity_s=validity_s)

    def uses(self, feature: int) -> bool:
        """Whether a feature is in use."""
        return bool(self.features & feature)

    def reply(self, unique: int) -> bytes:
        """Return the reply to INIT."""
        body = INIT_BODY.pack(
            MAJOR,
            self.minor,
            self.max_readahead,
            self.features & _LOW_32_BITS,
            _MAX_BACKGROUND,
            _CONGESTION_THRESHOLD,
            _MAX_WRITE_BYTES,
            _TIME_GRANULARITY_NS,
            _MAX_PAGES if self.uses(Feature.MAX_PAGES) else 0,
            0,
            self.features >> 32,
        )
        if self.minor < 23:
            body = body[:INIT_BODY_BYTES_BEFORE_7_23]
        return REPLY_HEADER.pack(HEADER_BYTES + len(body), 0, unique) + body


def negotiate(
    request: InitRequest,
    *,
    wanted: int = WANTED,
    mask: int = ALL_FEATURES,
    minor_max: int = MINOR,
) -> Terms | None:
    """Return the terms for a kernel; ``None`` if it has to ask again in our version.

    Args:
        request: What the kernel offers.
        wanted: Features that are used if the kernel offers them.
        mask: Features that may be used; the others are treated as not offered.
        minor_max: Treat a newer kernel as one of this minor version.

    Raises:
        FormatError: The kernel's protocol is too old.
    """
    if request.major > MAJOR:
        return None
    minor = min(request.minor, minor_max)
    if request.major < MAJOR or minor < MINOR_MIN:
        raise FormatError(
            f"the kernel speaks FUSE protocol {request.major}.{request.minor},"
            f" at least {MAJOR}.{MINOR_MIN} is needed"
        )
    features = request.features & wanted & mask
    if not features & Feature.INIT_EXT:
        features &= _LOW_32_BITS
    return Terms(minor, features, request.max_readahead)


def version_reply(unique: int) -> bytes:
    """Return the reply to a kernel of a newer major version: ours, and no more."""
    body = INIT_BODY.pack(MAJOR, MINOR, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    return REPLY_HEADER.pack(HEADER_BYTES + len(body), 0, unique) + body
