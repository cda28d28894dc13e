"""The configuration files of a configuration repository, without a mount.

Sessions read them through the kernel. Tools without a mount read a copy: the verified
tree below ``etc/cvmfs``, written once per revision into the repository's workspace. It
is made aside and renamed, so that any number of tools may do it at once.
"""

import os

from cvmfsexec.client.assembly import Client
from cvmfsexec.errors import CacheError, FormatError
from cvmfsexec.repository.lookup import Location

_ETC = b"/etc/cvmfs"
_FILES_MAX = 10_000
_FILE_BYTES_MAX = 1 << 20
_DIRECTORY_MODE = 0o700


def extract_configuration(client: Client) -> str:
    """Return a local directory that holds the repository's ``etc/cvmfs``.

    Raises:
        CacheError: The copy cannot be written.
        FormatError: The tree is far too large for a configuration.
        CvmfsError: It cannot be read.
    """
    workspace = client.settings.cache.workspace
    name = f"configuration.{client.fqrn}.{client.revision.root_catalog}"
    copy = os.path.join(workspace, name)
    if os.path.isdir(copy):
        return copy
    top = client.lookup.find(_ETC)
    try:
        _make_copy(client, top, copy)
    except OSError as error:
        raise CacheError(
            f"cannot write {copy}: {error.strerror}",
            hint="check the space and permissions of the cache directory",
        ) from error
    return copy


def _make_copy(client: Client, top: Location | None, copy: str) -> None:
    import shutil
    import tempfile

    aside = tempfile.mkdtemp(prefix=".configuration.", dir=os.path.dirname(copy))
    try:
        if top is not None and top.entry.is_directory:
            _copy_tree(client, top, os.path.join(aside, "etc/cvmfs"))
        try:
            os.rename(aside, copy)
        except OSError:
            if not os.path.isdir(copy):  # another tool was faster
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_tree(client: Client, top: Location, target: str) -> None:
    """Copy directories, files, and links that stay inside of the tree.

    Names were checked by the catalog reader: none leaves its directory.
    """
    count = 0
    pending = [(top, target)]
    while pending:
        location, place = pending.pop()
        count += 1
        if count > _FILES_MAX:
            raise FormatError(f"{client.fqrn} holds too much below etc/cvmfs")
        entry = location.entry
        if entry.is_directory:
            os.makedirs(place, _DIRECTORY_MODE)
            for child in client.lookup.list_(location):
                name = os.fsdecode(child.entry.name)
                pending.append((child, os.path.join(place, name)))
        elif entry.is_symlink:
            link = os.fsdecode(client.presentation.link_target(entry))
            leads_to = os.path.normpath(os.path.join(os.path.dirname(place), link))
            if leads_to.startswith(target + "/"):
                os.symlink(link, place)
        elif entry.is_regular and entry.size <= _FILE_BYTES_MAX:
            _copy_file(client, location, place)


def _copy_file(client: Client, location: Location, place: str) -> None:
    requests = client.lookup.content_requests(location)
    with open(place, "xb") as target:
        target.writelines(
            client.fetcher.read(request, _FILE_BYTES_MAX) for request in requests
        )
