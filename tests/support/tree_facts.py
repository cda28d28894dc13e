"""What a mounted tree looks like from inside: run by a payload, needs no package.

``python tree_facts.py TOP`` reads paths as JSON lists from standard input, the format
of the truth files, and prints what ``lstat``, ``readlink``, reading, listing and
extended attributes say about each.
"""

import hashlib
import json
import os
import stat
import sys
from typing import Any

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "sock",
    stat.S_IFCHR: "chr",
    stat.S_IFBLK: "blk",
}
_MAGIC = (
    "user.hash",
    "user.lhash",
    "user.chunks",
    "user.compression",
    "user.external_file",
    "user.direct_io",
    "xfsroot.rawlink",
)


def facts_of(path: str) -> dict[str, Any]:
    """Return everything about one entry."""
    status = os.lstat(path)
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    facts: dict[str, Any] = {
        "type": kind,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "size": status.st_size,
        "mtime": status.st_mtime_ns // 1_000_000_000,
        "mtime_ns": status.st_mtime_ns % 1_000_000_000,
        "atime_ns": status.st_atime_ns,
        "ctime_ns": status.st_ctime_ns,
        "nlink": status.st_nlink,
        "blocks": status.st_blocks,
        "blksize": status.st_blksize,
        "ino": status.st_ino,
    }
    if kind in ("chr", "blk"):
        facts["rdev"] = [os.major(status.st_rdev), os.minor(status.st_rdev)]
    if kind == "symlink":
        facts["target"] = os.readlink(path)
    if kind == "dir":
        facts["nentries"] = len(os.listdir(path))
    if kind == "file":
        with open(path, "rb") as file:
            facts["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    facts["xattr_names"] = sorted(os.listxattr(path, follow_symlinks=False))
    facts["xattrs_hex"] = _values(path, facts["xattr_names"])
    facts["magic"] = _values(path, _MAGIC)
    return facts


def _values(path: str, names: "list[str] | tuple[str, ...]") -> dict[str, str]:
    values = {}
    for name in names:
        try:
            value = os.getxattr(path, name, follow_symlinks=False)
        except OSError:
            continue
        values[name] = value.hex()
    return values


def main() -> None:
    """Answer for all paths on standard input."""
    top = sys.argv[1]
    paths = json.load(sys.stdin)
    root_magic = {n: os.getxattr(top, n).decode() for n in sys.argv[2:]}
    entries = {path: facts_of(top + path) for path in paths}
    json.dump({"root_magic": root_magic, "entries": entries}, sys.stdout)


if __name__ == "__main__":
    main()
