"""Whether a cache directory is what it should be, object by object.

Beside objects lie a few other things, which are looked at, too.

An object's name is the hash of its *stored* bytes, so that of its content says nothing;
it is compressed again as publishers do (:mod:`.verification`). What cannot be confirmed
is corrupt: a genuine object that another program had compressed in its own way is
fetched again, which costs a download and never a wrong byte.

Sessions may run meanwhile. They make objects visible in one piece, and read what they
have open; what is removed here they fetch again. An object is removed only if it still
is the file that was looked at.

A directory is inspected in parts (:data:`PARTS`), in any order, by any number of
processes. Links are never followed, and nothing that is not ours is touched.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable
from functools import partial

from cvmfsexec.cache.breadcrumb import BREADCRUMB_BYTES_MAX, Breadcrumb
from cvmfsexec.cache.contents import PREFIXES
from cvmfsexec.cache.faults import Fault, Problem, Remedy, Tally
from cvmfsexec.cache.lasting_pins import DIRECTORY as PINS
from cvmfsexec.cache.lasting_pins import (
    has_file,
    keep_wish,
    open_pinned,
    pin_for_good,
    restore,
    wished,
)
from cvmfsexec.cache.open_files import close_quietly
from cvmfsexec.cache.pending import DIRECTORY as PENDING
from cvmfsexec.cache.pending import PendingFiles
from cvmfsexec.cache.refusals import OUT_OF_MEANS
from cvmfsexec.cache.verification import is_confirmed
from cvmfsexec.errors import CacheError, FormatError
from cvmfsexec.format.digest import ContentHash

TOP = ""
"""The part that is not one of the directories of objects."""

PARTS = (TOP, *PREFIXES)

QUARANTINE = "quarantaine"  # so spelled by the original

_OBJECT = re.compile(r"[0-9a-f]{38}(?:|-rmd160|-shake128)")
_BREADCRUMB = "cvmfschecksum."
_KNOWN = re.compile(
    r"[0-9a-f]{2}|txn|quarantaine|\.cvmfscache|uuid|cachedb.*|lock.*|running\..*"
    r"|cvmfs_io\..*|nfs_maps\..*|no_nfs_maps\..*|stacktrace\..*|cachemgr.*|pipe[0-9]+"
    r"|proxies.*|geo.*|\.?configuration\..*|cvmfschecksum\..*|cvmfsexec.*"
)
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


_Repair = Callable[[], object]


class Inspector:
    """Inspects one cache directory. Close it, or use it in a ``with``.

    Args:
        path: The directory.
        remedy: What to do about what is wrong.
        in_use: Objects that sessions have open; they are named in the report.

    Raises:
        CacheError: It cannot be opened.
    """

    def __init__(
        self, path: str, remedy: Remedy, in_use: frozenset[ContentHash] = frozenset()
    ) -> None:
        self._remedy = remedy
        self._in_use = in_use
        try:
            self._directory = os.open(path, _DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        except OSError as error:
            raise CacheError(f"cannot open {path}: {error.strerror}") from error
        if not os.access(".", os.X_OK, dir_fd=self._directory):
            close_quietly(self._directory)
            raise CacheError(f"cannot look into {path}: Permission denied")
        # Root looks after the caches of others: theirs is what the directory is.
        owner = os.fstat(self._directory).st_uid
        self._owner = os.geteuid() or owner
        self._begin_part()

    def inspect(self, part: str) -> Tally:
        """Inspect one of ``PARTS``, and mend it if that is wanted.

        Raises:
            CacheError: No descriptor or memory is left.
        """
        self._begin_part()
        if part == TOP:
            self._inspect_top()
        else:
            self._inspect_objects(part)
        return Tally(
            self._object_count,
            self._total_bytes,
            tuple(self._faults),
            tuple(self._foreign),
        )

    def close(self) -> None:
        """Give back the directory."""
        close_quietly(self._directory)

    def _begin_part(self) -> None:
        self._object_count = 0
        self._total_bytes = 0
        self._faults: list[Fault] = []
        self._foreign: list[str] = []

    # -- objects ---------------------------------------------------------------------

    def _inspect_objects(self, prefix: str) -> None:
        names = self._names_in(prefix)
        if names is None:
            return
        self._check_directory(prefix)
        for name in names:
            path = f"{prefix}/{name}"
            if _OBJECT.fullmatch(name):
                self._inspect_object(path, ContentHash.parse(prefix + name))
            else:
                self._foreign.append(path)

    def _inspect_object(self, path: str, content_hash: ContentHash) -> None:
        try:
            descriptor = os.open(path, _OPEN_FLAGS, dir_fd=self._directory)
        except FileNotFoundError:
            return  # removed meanwhile
        except OSError as error:
            self._not_opened(path, error)
            return
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self._remove_odd(path)
                return
            self._object_count += 1
            self._total_bytes += status.st_size
            self._check_content(path, content_hash, descriptor, status)
        finally:
            close_quietly(descriptor)

    def _check_content(
        self,
        path: str,
        content_hash: ContentHash,
        descriptor: int,
        status: os.stat_result,
    ) -> None:
        is_in_use = content_hash in self._in_use
        problem, detail = Problem.CORRUPT, f"{status.st_size} bytes"
        try:
            is_sound = is_confirmed(descriptor, content_hash)
        except OSError as error:
            is_sound = False
            problem, detail = Problem.UNREADABLE, error.strerror or ""
        if not is_sound:
            fault = Fault(path, problem, detail, is_in_use=is_in_use)
            self._report(fault, self._take_away(path, descriptor))
        elif not self._remedy.is_shared:
            self._check_owner(path, descriptor, status)

    def _check_owner(self, path: str, descriptor: int, status: os.stat_result) -> None:
        """Refuse objects that somebody else could change after they were verified."""
        if status.st_uid != self._owner:
            detail = f"uid {status.st_uid}"
            fault = Fault(path, Problem.FOREIGN_OWNER, detail)
            self._report(fault, self._take_away(path, descriptor))
        elif status.st_mode & _OTHERS_CAN_WRITE:
            detail = f"mode {stat.S_IMODE(status.st_mode):04o}"
            fault = Fault(path, Problem.WRITABLE, detail)
            mode = stat.S_IMODE(status.st_mode) & ~_OTHERS_CAN_WRITE
            self._report(fault, lambda: os.fchmod(descriptor, mode))

    def _take_away(self, path: str, descriptor: int) -> _Repair:
        """Return what removes an object, unless another has taken its place."""

        def repair() -> None:
            present = os.stat(path, dir_fd=self._directory, follow_symlinks=False)
            if not os.path.samestat(present, os.fstat(descriptor)):
                return
            # A pin is a second name: it would keep what is not wanted.
            with contextlib.suppress(OSError):
                keep_wish(self._directory, ContentHash.parse(path.replace("/", "")))
            if self._remedy.keeps_corrupt:
                self._to_quarantine(path)
            else:
                os.unlink(path, dir_fd=self._directory)

        return repair

    def _to_quarantine(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(QUARANTINE, 0o700, dir_fd=self._directory)
        os.rename(
            path,
            f"{QUARANTINE}/{path.replace('/', '')}",
            src_dir_fd=self._directory,
            dst_dir_fd=self._directory,
        )

    def _not_opened(self, path: str, error: OSError) -> None:
        if error.errno in OUT_OF_MEANS:
            raise CacheError(f"cannot open {path}: {error.strerror}") from error
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            self._remove_odd(path)
            return
        fault = Fault(path, Problem.UNREADABLE, error.strerror or "")
        self._report(fault, lambda: os.unlink(path, dir_fd=self._directory))

    def _remove_odd(self, path: str) -> None:
        """Remove what has an object's name and is no file; a directory stays."""
        self._report(
            Fault(path, Problem.WRONG_TYPE),
            lambda: os.unlink(path, dir_fd=self._directory),
        )

    # -- what lies beside them -------------------------------------------------------

    def _inspect_top(self) -> None:
        self._check_directory(".")
        for name in self._names_in(".") or ():
            if name.startswith(_BREADCRUMB):
                self._check_breadcrumb(name)
            elif not _KNOWN.fullmatch(name):
                self._foreign.append(name)
        self._foreign += [f"{QUARANTINE}/{n}" for n in self._names_in(QUARANTINE) or ()]
        self._check_pending()
        self._check_pins()

    def _check_directory(self, path: str) -> None:
        """See that nobody else can put objects into a directory of objects."""
        if self._remedy.is_shared:
            return
        try:
            status = os.stat(path, dir_fd=self._directory, follow_symlinks=False)
        except OSError:
            return  # removed meanwhile
        if status.st_uid != self._owner:
            fault = Fault(path, Problem.FOREIGN_OWNER, f"uid {status.st_uid}")
            self._report(fault, None)
        elif status.st_mode & _OTHERS_CAN_WRITE:
            detail = f"mode {stat.S_IMODE(status.st_mode):04o}"
            mode = stat.S_IMODE(status.st_mode) & ~_OTHERS_CAN_WRITE
            self._report(
                Fault(path, Problem.WRITABLE, detail),
                lambda: os.chmod(path, mode, dir_fd=self._directory),
            )

    def _check_breadcrumb(self, name: str) -> None:
        try:
            descriptor = os.open(name, _OPEN_FLAGS, dir_fd=self._directory)
        except OSError:
            return  # not for us to read, or removed meanwhile
        try:
            Breadcrumb.parse(os.read(descriptor, BREADCRUMB_BYTES_MAX + 1))
        except (FormatError, OSError) as error:
            self._report(
                Fault(name, Problem.DAMAGED_RECORD, str(error)),
                lambda: os.unlink(name, dir_fd=self._directory),
            )
        finally:
            close_quietly(descriptor)

    def _check_pending(self) -> None:
        pending = PendingFiles(self._directory)
        count = pending.count_dead()
        if count:
            self._report(
                Fault(PENDING, Problem.LEFTOVER, f"{count} files"),
                pending.remove_dead,
            )

    def _check_pins(self) -> None:
        for content_hash, status in wished(self._directory):
            path = f"{PINS}/{content_hash}"
            if not stat.S_ISREG(status.st_mode):
                self._remove_odd(path)
            elif has_file(self._directory, content_hash):
                repair = partial(pin_for_good, self._directory, content_hash)
                self._report(Fault(path, Problem.LOST_PIN), repair)
            elif status.st_size:
                self._check_only_copy(path, content_hash, status.st_size)

    def _check_only_copy(
        self, path: str, content_hash: ContentHash, size_bytes: int
    ) -> None:
        """Look at an object that has lost its place, but not its pin."""
        try:
            descriptor = open_pinned(self._directory, content_hash)
            try:
                is_sound = is_confirmed(descriptor, content_hash)
            finally:
                close_quietly(descriptor)
        except OSError:
            is_sound = False
        if is_sound:
            repair = partial(restore, self._directory, content_hash)
            self._report(Fault(path, Problem.LOST_PIN), repair)
        else:
            repair = partial(keep_wish, self._directory, content_hash)
            fault = Fault(path, Problem.CORRUPT, f"{size_bytes} bytes")
            self._report(fault, repair)

    # -- both ------------------------------------------------------------------------

    def _names_in(self, path: str) -> list[str] | None:
        """Return what a directory holds; ``None`` if there is no such directory."""
        try:
            descriptor = os.open(path, _DIRECTORY_FLAGS, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            self._remove_odd(path)
            return None
        except OSError as error:
            self._not_opened(path, error)
            return None
        try:
            return sorted(os.listdir(descriptor))
        except OSError as error:
            self._report(Fault(path, Problem.UNREADABLE, error.strerror or ""), None)
            return None
        finally:
            close_quietly(descriptor)

    def _report(self, fault: Fault, repair: _Repair | None) -> None:
        """Note a fault, after mending it if that is wanted and possible."""
        if not self._remedy.repairs or repair is None:
            self._faults.append(fault)
            return
        try:
            repair()
        except FileNotFoundError:
            self._faults.append(fault._replace(is_fixed=True))
        except OSError as error:
            detail = f"{fault.detail}; {error.strerror}".removeprefix("; ")
            self._faults.append(fault._replace(detail=detail))
        else:
            self._faults.append(fault._replace(is_fixed=True))
