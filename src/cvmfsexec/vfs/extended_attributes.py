"""Extended attributes: those that were published, and the magic ones.

Magic attributes tell about the mount (``user.revision``) or about an entry
(``user.hash``). They can always be read by name; whether they are *listed* is a
matter of configuration, and some may be kept from all groups but those that are told
them. A magic name wins over a published attribute of that name.

Long values come in pages: ``X`` and ``X~0`` are the first, ``X~N`` any other, ``X~?``
tells how many there are, and ``X@N`` is page N with a heading for people.

Source: docs/reference/client-behaviour.md, "Magic extended attributes".
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cvmfsexec.format.dirent import Compression
from cvmfsexec.format.xattr import parse_xattrs
from cvmfsexec.repository.lookup import Location

PAGE_BYTES = 40_000  # the original's; the kernel's limit is 64 KiB

_PAGED_NAME = re.compile(rb"(.+?)(?:([~@])(\d{1,6}|\?))?", re.DOTALL)


class Subject(NamedTuple):
    """What an entry's magic attributes are computed from.

    Attributes:
        location: The entry.
        sources: Where facts outside of the entry come from.
    """

    location: Location
    sources: "Sources"


class Sources(NamedTuple):
    """Facts for magic attributes that an entry alone does not hold.

    Attributes:
        chunk_list: Hash, offset and size (bytes) of each piece of a regular file.
        cached_hash: Hash of the stored form of a cached object, computed again from
            the cache; ``None`` if it is not there.
        catalog_counters: Text about the catalog that holds a location.
        external_url: Where an external file is fetched from.
        membership: What the repository asks of its readers; ``None`` for nothing.
    """

    chunk_list: Callable[[Location], list[tuple[str, int, int]]]
    cached_hash: Callable[[Location], str | None]
    catalog_counters: Callable[[Location], str]
    external_url: Callable[[Location], str]
    membership: Callable[[], str | None] = lambda: None


class Protection(NamedTuple):
    """Magic attributes that are not for everybody.

    Attributes:
        names: Full names.
        gids: The groups that may read them, as requests of the kernel have them.
    """

    names: frozenset[bytes]
    gids: frozenset[int]


NO_PROTECTION = Protection(frozenset(), frozenset())


class ExtendedAttributes:
    """Attributes of entries under one set of rules. Safe to use from any thread."""

    def __init__(
        self,
        mount_attributes: Mapping[bytes, Callable[[], str]],
        sources: Sources,
        lists_magic: Callable[[Location], bool],
        protection: Protection = NO_PROTECTION,
    ) -> None:
        """Fix the rules.

        Args:
            mount_attributes: What every entry answers, by full attribute name.
            sources: Facts for attributes of entries.
            lists_magic: Whether magic attributes of an entry are listed.
            protection: Which of them are kept from whom.
        """
        self._mount_attributes = mount_attributes
        self._sources = sources
        self._lists_magic = lists_magic
        self._protection = protection

    def find(self, location: Location, name: bytes, gid: int = 0) -> bytes | None:
        """Return a value, or ``None`` if there is no such attribute for this group."""
        stored = location.entry.xattr
        # The kernel asks every file for these; answer without looking at magic.
        if not name.startswith((b"user.", b"xfsroot.")):
            return parse_xattrs(stored).get(name) if stored else None
        match = _PAGED_NAME.fullmatch(name)
        if match is not None:
            text = self._magic(location, match[1], gid)
            if text is not None:
                return _page(text.encode(errors="surrogateescape"), match[2], match[3])
        return parse_xattrs(stored).get(name) if stored else None

    def names(self, location: Location) -> list[bytes]:
        """Return the names to list for an entry."""
        names = list(parse_xattrs(location.entry.xattr))
        if self._lists_magic(location):
            names += [name for name in self._mount_attributes if name not in names]
            subject = Subject(location, self._sources)
            names += [
                name
                for name, applies_and_value in _ENTRY_ATTRIBUTES.items()
                if applies_and_value[0](subject) and name not in names
            ]
        return names

    def _magic(self, location: Location, name: bytes, gid: int) -> str | None:
        if name in self._protection.names and gid not in self._protection.gids:
            return None
        of_mount = self._mount_attributes.get(name)
        if of_mount is not None:
            return of_mount()
        of_entry = _ENTRY_ATTRIBUTES.get(name)
        if of_entry is None:
            return None
        applies, value = of_entry
        subject = Subject(location, self._sources)
        return value(subject) if applies(subject) else None


def _page(value: bytes, style: bytes | None, number: bytes | None) -> bytes | None:
    count = max(1, -(-len(value) // PAGE_BYTES))
    if number == b"?":
        return b"num_pages, %d" % count if style == b"~" else None
    index = int(number or 0)
    if index >= count:
        return None
    page = value[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]
    if style == b"@":
        return b"# Access page at idx: %d of %d\n" % (index, count) + page
    return page


def _is_regular(subject: Subject) -> bool:
    return subject.location.entry.is_regular


def _is_link(subject: Subject) -> bool:
    return subject.location.entry.is_symlink


def _has_hash(subject: Subject) -> bool:
    return subject.location.entry.content_hash is not None


def _is_external(subject: Subject) -> bool:
    return _is_regular(subject) and subject.location.entry.is_external


def _always(_subject: Subject) -> bool:
    return True


def _hash(subject: Subject) -> str:
    return str(subject.location.entry.content_hash)


def _lhash(subject: Subject) -> str:
    if subject.location.entry.is_chunked:
        return "Not in cache"
    return subject.sources.cached_hash(subject.location) or "Not in cache"


def _chunks(subject: Subject) -> str:
    return str(len(subject.sources.chunk_list(subject.location)))


def _chunk_list(subject: Subject) -> str:
    rows = subject.sources.chunk_list(subject.location)
    return "hash,offset,size\n" + "".join(f"{h},{o},{s}\n" for h, o, s in rows)


def _compression(subject: Subject) -> str:
    is_plain = subject.location.entry.compression is Compression.NONE
    return "none" if is_plain else "zlib"


def _direct_io(subject: Subject) -> str:
    return "1" if subject.location.entry.has_direct_io else "0"


def _external_file(subject: Subject) -> str:
    return "1" if subject.location.entry.is_external else "0"


def _external_url(subject: Subject) -> str:
    return subject.sources.external_url(subject.location)


def _rawlink(subject: Subject) -> str:
    return subject.location.entry.symlink.decode(errors="surrogateescape")


def _catalog_counters(subject: Subject) -> str:
    return subject.sources.catalog_counters(subject.location)


def _is_for_members(subject: Subject) -> bool:
    return bool(subject.sources.membership())


def _authz(subject: Subject) -> str:
    return subject.sources.membership() or ""


_Applies = Callable[[Subject], bool]
_ENTRY_ATTRIBUTES: Mapping[bytes, tuple[_Applies, Callable[[Subject], str]]] = {
    b"user.authz": (_is_for_members, _authz),
    b"user.catalog_counters": (_always, _catalog_counters),
    b"user.hash": (_has_hash, _hash),
    b"user.lhash": (_has_hash, _lhash),
    b"user.chunks": (_is_regular, _chunks),
    b"user.chunk_list": (_is_regular, _chunk_list),
    b"user.compression": (_is_regular, _compression),
    b"user.direct_io": (_is_regular, _direct_io),
    b"user.external_file": (_is_regular, _external_file),
    b"user.external_url": (_is_external, _external_url),
    b"user.rawlink": (_is_link, _rawlink),
    b"xfsroot.rawlink": (_is_link, _rawlink),
}
"""Attribute name to (does the entry have it, its value)."""
