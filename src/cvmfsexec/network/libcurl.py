"""The HTTP library, loaded late and without its ballast.

Importing the package ``pycurl`` takes 19 ms, of which 11 go into ``asyncio``'s
relatives for an interface that is not used here. The extension module inside it is
all we need, so it is loaded alone. Should the package one day look different, it is
imported as a whole.
"""

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

_EXTENSION = "pycurl._pycurl"
_loading = threading.Lock()


def load() -> Any:  # noqa: ANN401 -- pycurl has no type hints
    """Return pycurl's module, imported by the first call; any thread may call."""
    with _loading:
        return sys.modules.get(_EXTENSION) or _load_extension() or _load_package()


def _load_extension() -> "ModuleType | None":
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    package = PathFinder.find_spec("pycurl")
    if package is None or not package.submodule_search_locations:
        return None
    spec = PathFinder.find_spec(_EXTENSION, package.submodule_search_locations)
    if spec is None or spec.loader is None:
        return None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    # The package's own import statement, should it come, finds the same module.
    sys.modules[_EXTENSION] = module
    return module


def _load_package() -> Any:  # noqa: ANN401
    import pycurl

    return pycurl
