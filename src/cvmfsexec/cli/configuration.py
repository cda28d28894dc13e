"""Where a command looks for its configuration: options, environment, installation."""

import os
import sys

from cvmfsexec.configuration.locate import (
    ConfigurationRoot,
    locate,
    user_directories,
)


def configuration_root(dist: str | None) -> ConfigurationRoot:
    """Return where the configuration is.

    Args:
        dist: What ``--dist`` said, if it was given.

    Raises:
        ConfigurationError: There is none.
    """
    return locate(
        dist_option=dist,
        dist_variable=os.environ.get("CVMFSEXEC_DIST"),
        command_directory=os.path.dirname(os.path.realpath(sys.argv[0])),
        user_directories=user_directories(os.environ, os.getuid()),
    )
