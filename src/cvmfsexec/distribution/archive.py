"""A compressed tar archive that is the same for the same members.

Sorted, without times and owners, in the GNU format, which busybox reads as well.
"""

import io
import tarfile
from typing import TYPE_CHECKING

import deflate

from cvmfsexec.distribution.member import Kind, Member

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIME_S = 315_532_800
"""Of every member: 1980, which no tool finds strange."""

_LEVEL = 9


def pack(members: "Iterable[Member]") -> bytes:
    """Return the archive; directories of files need not be given."""
    chosen = {member.path: member for member in members}
    for path in list(chosen):
        parent = path.rpartition("/")[0]
        while parent:
            chosen.setdefault(parent, Member(parent, Kind.DIRECTORY))
            parent = parent.rpartition("/")[0]
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer,
        mode="w",
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for path in sorted(chosen):
            _add(archive, chosen[path])
    return bytes(deflate.gzip_compress(buffer.getbuffer(), _LEVEL))


def _add(archive: tarfile.TarFile, member: Member) -> None:
    header = tarfile.TarInfo(member.path)
    header.mtime = _TIME_S
    header.mode = 0o644
    if member.kind is Kind.DIRECTORY:
        header.type, header.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(header)
    elif member.kind is Kind.LINK:
        header.type, header.mode = tarfile.SYMTYPE, 0o777
        header.linkname = member.content.decode("utf-8", "surrogateescape")
        archive.addfile(header)
    else:
        header.size = len(member.content)
        if member.is_executable:
            header.mode = 0o755
        archive.addfile(header, io.BytesIO(member.content))
