"""One file that unpacks itself: a shell script, and behind it a compressed archive.

The script (``header.sh``) needs ``sh``, ``tail``, ``gzip``, ``tar``, ``mktemp`` and
other tools that busybox has as well; docs/reference/makedist.md tells what it does.
"""

import os
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from cvmfsexec import __version__
from cvmfsexec.distribution import archive
from cvmfsexec.distribution.bundle import COMMANDS, Bundle, collect, template
from cvmfsexec.distribution.member import SHORT_DIGEST_LENGTH
from cvmfsexec.errors import DistributionError

if TYPE_CHECKING:
    from cvmfsexec.distribution.interpreter import Source

_OFFSET_DIGITS = 6


def make_self_extracting(
    file: str,
    dist: str,
    source: "Source | None" = None,
    *,
    command: str = "cvmfsexec",
) -> int:
    """Pack an interpreter, this package and a dist into one file.

    The file is replaced in one step; an error leaves it as it was.

    Args:
        file: Path of the file to make.
        dist: Directory that holds ``etc/cvmfs``.
        source: The interpreter, and packages; None for what is running.
        command: What it runs: ``cvmfsexec`` or ``singcvmfs``.

    Returns:
        Its size in bytes.

    Raises:
        DistributionError: Something cannot be found, read, compiled or written.
    """
    return write(collect(dist, source), file, command=command)


def write(bundle: Bundle, file: str, *, command: str = "cvmfsexec") -> int:
    """Write what has been collected; see :func:`make_self_extracting`."""
    payload = archive.pack(bundle.members)
    header = _header(payload, bundle.machine, command)
    temporary = f"{file}.{os.getpid()}.new"
    try:
        with open(temporary, "xb") as stream:
            stream.write(header)
            stream.write(payload)
            mask = os.umask(0o022)
            os.umask(mask)
            os.fchmod(stream.fileno(), 0o777 & ~mask)
        os.rename(temporary, file)
    except OSError as error:
        message = f"cannot write {file}: {error.strerror}"
        raise DistributionError(message) from error
    finally:
        with suppress(OSError):  # it is not there if all went well
            os.unlink(temporary)
    return len(header) + len(payload)


def _header(payload: bytes, machine: str, command: str) -> bytes:
    digest = sha256(payload).hexdigest()

    def fill(offset: int) -> bytes:
        return template(
            "header.sh",
            version=__version__,
            machine=machine,
            digest=digest,
            short_digest=digest[:SHORT_DIGEST_LENGTH],
            offset=f"{offset:0{_OFFSET_DIGITS}}",
            command=command,
            module=COMMANDS[command],
        )

    return fill(len(fill(0)) + 1)
