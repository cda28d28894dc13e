"""What the self-extracting file calls once it has unpacked: not for users.

``settle_cmd UNPACKED PLACE DIGEST FILE OFFSET``; FILE is empty if the payload's digest
has been compared already. The file's own fault has a status of its own: then no other
place is tried.
"""

import sys
from typing import NoReturn

from cvmfsexec.cli import exit_codes
from cvmfsexec.distribution.settlement import settle, verify
from cvmfsexec.errors import CvmfsError


def main() -> NoReturn:
    """Run the command line and exit; a message goes to stderr, without our name."""
    unpacked, place, digest, file, offset = sys.argv[1:]
    try:
        if file:
            verify(file, int(offset.lstrip("0") or "0"), digest)
        settle(unpacked, place, digest)
    except (CvmfsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        is_file_bad = isinstance(error, CvmfsError)
        sys.exit(exit_codes.SIGNATURE if is_file_bad else exit_codes.UNKNOWN_ERROR)
    sys.exit(exit_codes.OK)
