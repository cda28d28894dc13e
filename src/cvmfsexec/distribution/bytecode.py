"""Modules compiled so that they need no source and come out the same each time.

The older marshal format is written on purpose: the newer ones record which objects
happen to be shared in this process.
"""

import importlib.util
import marshal
import warnings

from cvmfsexec.errors import DistributionError

_MARSHAL_VERSION = 2
_UNCHECKED_HASH = 1


def compile_module(source: bytes, name: str) -> bytes:
    """Return the content of a ``.pyc`` file.

    Args:
        source: Of the module.
        name: Of its file, as tracebacks show it.

    Raises:
        DistributionError: It is no Python of this version.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what others have written
            code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError) as error:
        raise DistributionError(f"cannot compile {name}: {error}") from error
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH.to_bytes(4, "little")
    return (
        header
        + importlib.util.source_hash(source)
        + marshal.dumps(code, _MARSHAL_VERSION)
    )
