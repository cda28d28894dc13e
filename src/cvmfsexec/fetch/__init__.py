"""From a content hash to an open, verified, decompressed object.

``Fetcher`` is the door. Behind it: ``request`` (what is wanted, and from whom),
``sinks`` (where the bytes of an answer are checked), ``inflate`` (decompression with
limits), ``flights`` (one download per hash, however many wait). Before it, for callers
without patience: ``throttle``.
"""

from cvmfsexec.fetch.fetcher import Fetcher
from cvmfsexec.fetch.request import ObjectRequest, ObjectSource

__all__ = ["Fetcher", "ObjectRequest", "ObjectSource"]
