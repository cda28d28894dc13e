"""Keeping a packed cache small: below its limit, and in few packs.

Done by the process that has the lease (``lease``), while others read and write. What is
removed at a bad moment costs whoever wanted it a download, nothing else.

* **Too much**: packs that were not used for the longest time are removed as a whole,
  and old files of objects. What only the index of such a pack tells, of files that
  stay, is told anew in ours; or they would take room and be found by nobody.
* **Too many**: what small packs hold that nobody wrote for an hour is put together.
* A pack without an index is left by who died while he removed it; or its index was
  damaged. Files that nobody tells of any more, then, are told of anew.
"""

import contextlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from cvmfsexec import log
from cvmfsexec.cache import contents
from cvmfsexec.cache.lease import Lease, Renewal
from cvmfsexec.cache.pack_listing import all_names_in
from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK, left_alone
from cvmfsexec.cache.packs import Packs
from cvmfsexec.cache.tidying import ROOM_PART
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.format.pack_index import INDEX_BYTES_MAX, RecordKind

PACKS_MAX = 12
"""More are put together: each costs who begins to read four operations."""

IDLE_S = 3600.0


class _Found(NamedTuple):
    """What could be removed: a pack, or an object in a file of its own.

    Attributes:
        used_s: When it was used last, by the clock of the file server.
        size_bytes: How much room it takes.
        pack: The name of a pack, or nothing.
        content_hash: The object; of a pack, nothing.
    """

    used_s: float
    size_bytes: int
    pack: str
    content_hash: ContentHash | None = None


class PackTidying:
    """One process's part in it; belongs to one thread at a time.

    Args:
        directory: Descriptor of the cache directory, which stays the caller's.
        packs: Its packs.
        limit_bytes: How much it may hold; 0 for any.
        pack_bytes: How large a pack becomes.
    """

    def __init__(
        self, directory: int, packs: Packs, limit_bytes: int, pack_bytes: int
    ) -> None:
        self._directory = directory
        self._packs = packs
        self._limit_bytes = limit_bytes
        self._small_bytes = pack_bytes // ROOM_PART

    def used_bytes(self) -> int:
        """Return how much is used, as far as the indexes tell."""
        self._packs.lookout.look_now()
        return self._packs.told_bytes()

    def tidy(self) -> None:
        """Look, and do what has to be done.

        Raises:
            OSError: The directory cannot be read or written.
        """
        self._packs.lookout.look_at_all()
        whole, halves = all_names_in(self._directory)
        unread = [name for name in whole if not self._packs.index_bytes(name)]
        names = [name for name in whole if name not in unread]
        remains = self._look_at(halves + unread)
        is_near_limit = self._is_near_limit(names, remains)
        found = self._look_at(names) if is_near_limit else []
        is_too_much = is_near_limit and self._are_too_much(found + remains)
        if is_too_much or remains or self._may_be_put_together(names):
            self._tidy(names, remains, found if is_too_much else None)
        if self._packs.has_made_directory:
            self._packs.has_made_directory = False
            self.tell_of_files()

    def _is_near_limit(self, names: list[str], remains: list[_Found]) -> bool:
        """Whether there may be so much that sizes of files have to be asked for.

        What a crash has left in packs, and no index tells of, is less than the rest.
        """
        if not self._limit_bytes:
            return False
        known_bytes = self._packs.told_bytes() + sum(one.size_bytes for one in remains)
        known_bytes += sum(map(self._packs.index_bytes, names))
        return self._limit_bytes < 2 * known_bytes

    def _are_too_much(self, packs: list[_Found]) -> bool:
        own_files = (place.record.size_bytes for place in self._packs.own_files())
        used_bytes = sum(own_files) + sum(one.size_bytes for one in packs)
        return self._limit_bytes < used_bytes

    def _may_be_put_together(self, names: list[str]) -> bool:
        """Whether there are too many packs, and some are left, as far as is known."""
        if len(names) <= PACKS_MAX:
            return False
        now_s = self._packs.written_s()
        if now_s is None:
            return True  # what time it is there, only who has the lease can ask
        own_name = self._packs.own_name()
        return any(self._is_small_and_left(n, now_s) for n in names if n != own_name)

    def _tidy(
        self, names: list[str], remains: list[_Found], too_much: list[_Found] | None
    ) -> None:
        lease = Lease(self._directory)
        if not lease.acquire():
            return
        try:
            now_s = lease.now_s()
            lease.clear_abandoned(now_s)
            young = self._remove_remains(remains, now_s)
            if too_much is not None:
                self._shrink(too_much + young, Renewal(lease))
            elif len(names) > PACKS_MAX:
                self._merge(names, now_s, Renewal(lease))
        finally:
            lease.release()

    def _remove_remains(self, remains: list[_Found], now_s: float) -> list[_Found]:
        """Remove packs without an index; return those that may just be made."""
        idle = [one for one in remains if now_s - one.used_s >= IDLE_S]
        removed = [one for one in idle if self._remove(one)]
        if removed:
            self.tell_of_files()
        return [one for one in remains if one not in removed]

    def _look_at(self, names: Iterable[str]) -> list[_Found]:
        return [one for name in names if (one := self._pack(name)) is not None]

    def _pack(self, name: str) -> _Found | None:
        """Return what is to be known of a pack; one of its files may be missing."""
        used_s: list[float] = []
        size_bytes = index_bytes = self._packs.index_bytes(name)
        for suffix in (PACK, INDEX):
            with contextlib.suppress(OSError):  # removed meanwhile
                path = f"{DIRECTORY}/{name}{suffix}"
                status = os.stat(path, dir_fd=self._directory)
                is_pack = suffix == PACK  # all who begin read the index
                used_s.append(_used_s(status) if is_pack else status.st_mtime)
                if is_pack or not index_bytes:
                    size_bytes += status.st_size
                if index_bytes and status.st_size:
                    break  # else it may tell of files only
        return _Found(max(used_s), size_bytes, name) if used_s else None

    # -- too much -------------------------------------------------------------------

    def _shrink(self, found: list[_Found], renewal: Renewal) -> None:
        files = self._own_files()
        told = {place.record.content_hash for place in self._packs.own_files()}
        self._forget_missing(told.difference(one.content_hash for one in files))
        found = sorted(found + files)
        left_bytes = sum(one.size_bytes for one in found)
        if left_bytes > self._limit_bytes:
            target_bytes = self._limit_bytes - self._limit_bytes // ROOM_PART
            removed = set()
            for one in found:
                if left_bytes <= target_bytes or not renewal.is_held():
                    break
                if self._remove(one):
                    left_bytes -= one.size_bytes
                    removed.add(one)
            log.info("cache: removed %d packs and files", len(removed))
            files = [one for one in files if one not in removed]
        self._tell_untold(files)

    def _own_files(self) -> list[_Found]:
        present = set(os.listdir(self._directory))
        return [
            _Found(
                _used_s(status), status.st_size, "", ContentHash.parse(prefix + name)
            )
            for prefix in contents.PREFIXES
            if prefix in present
            for name, status in contents.object_files(self._directory, prefix)
        ]

    def tell_of_files(self) -> None:
        """Tell of files of objects that no index tells of.

        Raises:
            OSError: The directory cannot be read.
        """
        self._tell_untold(self._own_files())

    def _tell_untold(self, files: list[_Found]) -> None:
        """Tell of files that no index tells of: nobody would find or count them."""
        told = {place.record.content_hash for place in self._packs.own_files()}
        with contextlib.suppress(OSError):  # no room: another time
            for one in files:
                if one.content_hash is not None and one.content_hash not in told:
                    self._packs.note_own_file(one.content_hash, one.size_bytes)

    def _forget_missing(self, missing: Iterable[ContentHash | None]) -> None:
        """Tell of files that are gone; else they would be counted for ever."""
        for content_hash in missing:
            if content_hash is None:
                continue
            try:
                os.stat(content_hash.cache_path(), dir_fd=self._directory)
            except FileNotFoundError:
                self._tell_removed(content_hash)
            except OSError:
                continue  # it cannot be seen now

    def _remove(self, one: _Found) -> bool:
        """Remove something; return whether that makes room."""
        if one.content_hash is None:
            with left_alone(one.pack):  # nor shall we go on with it
                return self._remove_pack(one.pack)
        if not self._unlink(one.content_hash.cache_path()):
            return False
        self._tell_removed(one.content_hash)
        return True

    def _tell_removed(self, content_hash: ContentHash) -> None:
        with contextlib.suppress(OSError):  # no room: it is not found, and then counted
            self._packs.remove(content_hash)

    def _remove_pack(self, name: str) -> bool:
        if name == self._packs.own_name():
            return False  # the one that what is left is told in
        try:
            self._packs.carry_over(name)
        except OSError:  # no room for a record: so nobody would find these
            for place in self._packs.told_by(name):
                if place.record.kind is RecordKind.OWN_FILE:
                    self._unlink(place.record.content_hash.cache_path())
        # The index first, so that nobody looks for what is not there any more.
        path = f"{DIRECTORY}/{name}"
        is_removed = self._unlink(path + INDEX) and self._unlink(path + PACK)
        self._packs.drop(name)
        return is_removed

    def _unlink(self, path: str) -> bool:
        try:
            os.unlink(path, dir_fd=self._directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            log.debug("cache: cannot remove %s: %s", path, error.strerror)
            return False
        return True

    # -- too many -------------------------------------------------------------------

    def _merge(self, names: list[str], now_s: float, renewal: Renewal) -> None:
        """Append what small packs hold to ours, and remove them.

        Those that are read are no exception: who misses one looks for the objects
        anew. On other nodes somebody may be writing one; he would not for so long.
        """
        for name in names:
            if not self._is_small_and_left(name, now_s):
                continue
            if not self._is_still_left(name, now_s):
                continue
            if not renewal.is_held():
                return
            self.renew(name)

    def renew(self, name: str) -> bool:
        """Append what a pack holds to ours, and remove it.

        Returns:
            Whether it is gone. It is not if it is ours, or a neighbour's.

        Raises:
            OSError: There is no room for the objects.
        """
        with left_alone(name) as is_left:
            if not is_left:
                return False
            self._packs.lookout.read_index(name)
            self._move_objects(name)
            return self._remove_pack(name)

    def _is_small_and_left(self, name: str, now_s: float) -> bool:
        """Whether a pack may be put together with others, known without asking."""
        if now_s - self._packs.lookout.written_s(name) < IDLE_S:
            return False
        index_bytes = self._packs.index_bytes(name)
        is_short = index_bytes < INDEX_BYTES_MAX // ROOM_PART
        size_bytes = index_bytes + self._packs.end_bytes(name)
        return is_short and size_bytes < self._small_bytes

    def _is_still_left(self, name: str, now_s: float) -> bool:
        """Whether nobody has added to a pack for long, wherever that may be.

        Who reads touches the pack, not its index.
        """
        with contextlib.suppress(OSError):
            status = os.stat(f"{DIRECTORY}/{name}{INDEX}", dir_fd=self._directory)
            return now_s - status.st_mtime >= IDLE_S
        return False  # removed meanwhile

    def _move_objects(self, name: str) -> None:
        for place in self._packs.told_by(name):
            if place.record.kind is not RecordKind.PACKED:
                continue
            content = self._packs.read(place)
            if content is not None:
                self._packs.append(place.record.content_hash, content)


def _used_s(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)
