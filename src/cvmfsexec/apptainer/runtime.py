"""The bundle that this program was unpacked from, if it was."""

import os

from cvmfsexec.errors import ConfigurationError

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def runtime_directory() -> str:
    """Return where our interpreter lies with all that it needs.

    Raises:
        ConfigurationError: It does not: this is a checkout, or was installed.
    """
    top = os.path.dirname(_PACKAGES)
    if not os.path.isfile(os.path.join(top, "launch")):
        raise ConfigurationError(
            "only the one file that 'makedist -s -o FILE' makes can serve from inside "
            "of a container",
            hint="make it and use it instead, or set SINGCVMFS_SERVER=host",
        )
    return top
