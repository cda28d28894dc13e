"""Wheels of another platform, by pip's own means, and what a bundle takes out of them.

What pip is to ask, and by which way, its own variables say: ``PIP_INDEX_URL``,
``PIP_FIND_LINKS``, ``PIP_NO_INDEX``.

Source: packaging.python.org, "Binary distribution format".
"""

import io
import os
import sys
import zipfile
import zlib
from typing import NamedTuple

from cvmfsexec.errors import DistributionError, FormatError
from cvmfsexec.format.archive import ArchiveEntry, EntryKind, check_entries, entry_path

_WHEEL_BYTES_MAX = 256 << 20
_FILE_COUNT_MAX = 20_000
_GLIBC_MINOR_MIN = 17
"""Of the oldest platform for which wheels have a tag that names its glibc."""

_SCHEMES = (b"purelib/", b"platlib/")


class Platform(NamedTuple):
    """Where wheels are to run.

    Attributes:
        architecture: As ``uname -m`` has it.
        version: Of Python, such as ``3.11``.
        glibc_minor: N of glibc 2.N.
    """

    architecture: str
    version: str
    glibc_minor: int

    @property
    def options(self) -> tuple[str, ...]:
        """What ``pip download`` is told of it; what is best comes first."""
        minors = range(self.glibc_minor, _GLIBC_MINOR_MIN - 1, -1)
        tags = (
            *(f"manylinux_2_{minor}" for minor in minors),
            "manylinux2014",
        )
        platforms = (f"--platform={tag}_{self.architecture}" for tag in tags)
        tag = f"cp{self.version.replace('.', '')}"
        return (
            *platforms,
            f"--python-version={self.version}",
            "--implementation=cp",
            *(f"--abi={abi}" for abi in (tag, "abi3", "none")),
            "--only-binary=:all:",
        )


def download_wheels(
    requirements: tuple[str, ...], platform: Platform, directory: str
) -> tuple[str, ...]:
    """Let pip download one wheel for each requirement; return their paths.

    Raises:
        DistributionError: There is no pip, or it cannot get them.
    """
    import subprocess

    done = subprocess.run(
        (
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--disable-pip-version-check", "--no-input", f"--dest={directory}"),
            *platform.options,
            *requirements,
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise _refused(done.stderr, platform)
    return tuple(
        os.path.join(directory, name)
        for name in sorted(os.listdir(directory))
        if name.endswith(".whl")
    )


def parse_wheel(data: bytes) -> tuple[ArchiveEntry, ...]:
    """Return the files that a wheel would install as modules.

    Raises:
        FormatError: It is none, damaged, or too much.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _entries(archive)
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,
        ValueError,
        zlib.error,
    ) as error:
        raise FormatError(f"a wheel is damaged: {error}") from error
    check_entries(entries)
    return entries


def _entries(archive: zipfile.ZipFile) -> tuple[ArchiveEntry, ...]:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if len(members) > _FILE_COUNT_MAX or total > _WHEEL_BYTES_MAX:
        raise FormatError("a wheel has too many files, or too much in them")
    entries = []
    for member in members:
        path = _path(entry_path(member.filename.encode("utf-8", "surrogateescape")))
        if path and not member.is_dir():
            content = archive.read(member)
            entries.append(ArchiveEntry(path, EntryKind.FILE, content))
    return tuple(entries)


def _path(path: bytes) -> bytes:
    """Return where a file is to be; empty if it is no module."""
    top, _, rest = path.partition(b"/")
    if not top.endswith(b".data"):
        return path
    for scheme in _SCHEMES:
        if rest.startswith(scheme):
            return rest.removeprefix(scheme)
    return b""


def _refused(said: str, platform: Platform) -> DistributionError:
    if "No module named pip" in said:
        return DistributionError(
            f"wheels for {platform.architecture} are downloaded by pip, which is "
            "not there",
            hint="install pip for the Python that runs makedist; the file that carries "
            "everything has none: use an installation or a checkout",
        )
    errors = [
        line.partition(":")[2].strip()
        for line in said.splitlines()
        if line.startswith("ERROR:")
    ]
    reason = errors[-1] if errors else (said.strip().splitlines() or ["no reason"])[-1]
    return DistributionError(
        f"pip cannot get the wheels for {platform.architecture}: {reason}",
        hint="pip asks where PIP_INDEX_URL says; PIP_FIND_LINKS names a directory "
        "with wheels",
    )
