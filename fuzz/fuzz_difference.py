"""Any bytes as the earlier root catalog: what changed is told, or refused."""

import tempfile
from contextlib import closing

from cvmfsexec.errors import CvmfsError
from cvmfsexec.repository.catalog_tree import CatalogTree
from cvmfsexec.repository.difference import differences
from fuzz.fuzz_file_system import ROOT, OneCatalog


def target(data: bytes) -> None:
    """Raise only on a finding."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        objects = OneCatalog(file.name)
        old, new = CatalogTree(objects, ROOT), CatalogTree(objects, ROOT)
        with closing(old), closing(new):
            try:
                told = list(differences(old, new))
            except CvmfsError:
                return
    assert not told, "a catalog differs from itself"
