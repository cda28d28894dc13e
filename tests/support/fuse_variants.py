"""The kernels that a FUSE server meets, made from this one by masking its features."""

from typing import Any

import pytest

from cvmfsexec.fuse.protocol import Feature

_LINUX_3_10 = (  # of RHEL 7
    Feature.ASYNC_READ
    | Feature.EXPORT_SUPPORT
    | Feature.DO_READDIRPLUS
    | Feature.READDIRPLUS_AUTO
    | Feature.NOTIFICATIONS
)

VARIANTS: dict[str, dict[str, Any]] = {
    "all": {},
    "no NO_OPEN_SUPPORT": {"mask": ~Feature.NO_OPEN_SUPPORT},
    "no NO_OPENDIR_SUPPORT": {"mask": ~Feature.NO_OPENDIR_SUPPORT},
    "no DO_READDIRPLUS": {"mask": ~Feature.DO_READDIRPLUS},
    "no MAX_PAGES": {"mask": ~Feature.MAX_PAGES},
    "no CACHE_SYMLINKS": {"mask": ~Feature.CACHE_SYMLINKS},
    "no PARALLEL_DIROPS": {"mask": ~Feature.PARALLEL_DIROPS},
    "no ASYNC_READ": {"mask": ~Feature.ASYNC_READ},
    "no EXPORT_SUPPORT": {"mask": ~Feature.EXPORT_SUPPORT},
    "no INIT_EXT": {"mask": ~Feature.INIT_EXT},
    "no NOTIFICATIONS": {"mask": ~Feature.NOTIFICATIONS},
    "nothing": {"mask": Feature.NOTIFICATIONS},
    "minor 31": {"minor_max": 31},
    "minor 23": {"minor_max": 23},
    "Linux 3.10": {"minor_max": 22, "mask": _LINUX_3_10},
    "one thread": {"threads": 1},
}

every_kernel = pytest.mark.parametrize("kernel", VARIANTS.values(), ids=list(VARIANTS))
"""Runs a test, with the argument ``kernel``, for each variant of server options."""
