"""What a container program starts to serve a repository: not for users.

``HANDOVER FQRN /dev/fd/N [-f]``. The last two words are added by the container program;
without ``-f`` it waits until the server has gone to the background. It starts us with
``singcvmfs --serve``; or in the container, where there need be no shell, this file
itself with the interpreter of the bundle.

Source: docs/reference/singcvmfs.md, "The file server".
"""

import gc
import os
import sys
from typing import NamedTuple, NoReturn

if __name__ == "__main__":
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path.insert(0, top)

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.report import replace_missing_streams, report_error, write_message
from cvmfsexec.errors import CvmfsError
from cvmfsexec.format.names import check_fqrn

_NAME = "singcvmfs --serve"
_USAGE = "Usage: singcvmfs --serve HANDOVER REPOSITORY /dev/fd/N [-f]\n"
_FOREGROUND = "-f"


class Words(NamedTuple):
    """What the command line says.

    Attributes:
        handover: Path of the file with everything else.
        fqrn: The repository.
        device: The mounted device, as ``/dev/fd/N``.
        stays: Nobody waits until this goes to the background.
    """

    handover: str
    fqrn: str
    device: str
    stays: bool


def parse(words: list[str]) -> Words | None:
    """Read the words after the command's name; ``None`` if they are not understood.

    Raises:
        ConfigurationError: A repository cannot have such a name.
    """
    from urllib.parse import unquote

    stays = words[-1:] == [_FOREGROUND]
    rest = words[:-1] if stays else words
    if len(rest) != 3 or any(word.startswith("-") for word in rest):
        return None
    handover, fqrn, device = rest
    path = unquote(handover, errors="surrogateescape")
    return Words(path, check_fqrn(fqrn), device, stays)


def run(words: list[str]) -> NoReturn:
    """Serve until the end, and exit at once: there is nothing to be put in order."""
    gc.disable()  # what is imported stays
    status = exit_codes.UNKNOWN_ERROR
    try:
        status = _run(words)
    except CvmfsError as error:
        report_error(_NAME, error)
        status = exit_codes.exit_status_of(error)
    except OSError as error:
        write_message(_NAME, f"cannot go on: {error.strerror}")
    finally:
        os._exit(status)


def main() -> NoReturn:
    """Run the command line and exit."""
    replace_missing_streams()
    run(sys.argv[1:])


def _run(words: list[str]) -> int:
    understood = parse(words)
    if understood is None:
        sys.stderr.write(_USAGE)
        sys.stderr.flush()
        return exit_codes.USAGE
    from cvmfsexec.fusemount.device import descriptor_in
    from cvmfsexec.fusemount.program import serve

    device = descriptor_in(understood.device)
    gc.enable()
    return serve(
        understood.handover,
        device,
        exit_codes.exit_status_of,
        stays=understood.stays,
    )


if __name__ == "__main__":
    main()
