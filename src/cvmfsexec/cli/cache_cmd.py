"""Tell what is in caches, remove from them, and keep things in them."""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import TypeVar

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.cache_choice import (
    add_cache_choice,
    chosen_places,
    complete,
    tell_that_nothing_is_cached,
)
from cvmfsexec.cli.environment import open_client
from cvmfsexec.cli.options import add_json, repository_path
from cvmfsexec.cli.output import local_time, printable, write_line
from cvmfsexec.cli.prefetch_cmd import tell_failures, tell_missing, warn_of_memory
from cvmfsexec.cli.progress import progress_bar, waiting
from cvmfsexec.cli.report import report_error, write_message
from cvmfsexec.cli.stat_cmd import no_such_entry
from cvmfsexec.client.cache_contents import CacheContents, packed_bytes
from cvmfsexec.client.cache_places import CachePlace
from cvmfsexec.client.cached_names import CachedName, CachedRepository
from cvmfsexec.client.warming import Wishes, warm
from cvmfsexec.errors import CacheError, ConfigurationError
from cvmfsexec.format.digest import ContentHash
from cvmfsexec.log import harmless

NOT_DONE = 1
_MB = 1 << 20
_NUMBER = re.compile(r"[0-9]{1,12}")
_DAY_S = 86_400
_CONNECTIONS = 8

_HINT_FOR_GOOD = "set CVMFS_QUOTA_LIMIT for what will be mounted"

_SHOW = ("usage", "pinned", "hit-rate", "limit", "list")
_CHANGE = ("cleanup", "evict", "pin", "unpin")

_Told = TypeVar("_Told")

_WORDS = """\
what to do:
  usage                how much each cache holds, how much of it is pinned, its limit
  pinned               what is not removed to make room
  hit-rate             how often running sessions found what they wanted in the cache
  limit [MB]           how much each cache may hold, and which limit is in force now;
                       or let what is mounted now go by another one
  list [FQRN...]       every object, with the paths that cached catalogs know
  cleanup [MB]         remove what was used least recently, until MB are left
                       (default: 0, everything that is not pinned)
  evict FQRN PATH...   remove files, or all files below directories
  pin FQRN PATH...     fetch files and keep them, whatever room is needed
  unpin FQRN PATH...   do not keep them any longer; without paths, nothing of FQRN

PATH may be a pattern: '/lib/*.so'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _WORDS
    parser.add_argument("action", metavar="ACTION", choices=(*_SHOW, *_CHANGE))
    words = "see below"
    parser.add_argument("words", metavar="WORD", nargs="*", default=[], help=words)
    add_cache_choice(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments say."""
    action = _ACTIONS[arguments.action]
    if arguments.action in ("usage", "pinned", "hit-rate"):
        _take_no_words(arguments)
    return action(arguments)


def _take_no_words(arguments: argparse.Namespace) -> None:
    if arguments.words:
        raise ConfigurationError(
            f"cvmfs cache {arguments.action} takes no {arguments.words[0]!r}",
            hint="choose caches with --dir or --repository",
        )


# -- showing ---------------------------------------------------------------------------


def _usage(arguments: argparse.Namespace) -> int:
    reports, status = _visit(arguments, _usage_of)
    if arguments.json:
        print(json.dumps(reports, indent=1))
        return status
    for one in reports:
        print(harmless(str(one["directory"])))
        print(f"  {'repositories':14}{' '.join(one['repositories']) or '-'}")  # type: ignore[arg-type]
        print(f"  {'kind':14}{one['kind']}")
        if "objects" not in one:
            print(f"  {'used':14}{_size(one['used_bytes'])}")
            print(f"  {'limit':14}{_limit_text(one)}")
            continue
        print(f"  {'used':14}{_size(one['used_bytes'])} in {one['objects']} objects")
        print(f"  {'pinned':14}{_size(one['pinned_bytes'])}")
        print(f"  {'limit':14}{_limit_text(one)}")
        if one["oldest_use"]:
            print(f"  {'oldest use':14}{local_time(int(str(one['oldest_use'])))}")
        print(f"  {'cleanings':14}{one['cleanings_24h']} in the last 24 hours")
    return status


def _visit(
    arguments: argparse.Namespace, visit: Callable[[CachePlace], _Told]
) -> tuple[list[_Told], int]:
    """Return what each cache tells, and the status if one cannot be looked at."""
    told, status = [], exit_codes.OK
    for place in chosen_places(arguments):
        try:
            told.append(visit(place))
        except CacheError as error:
            report_error("cvmfs", error)
            status = exit_codes.CACHE
    if not told and not status:
        tell_that_nothing_is_cached(arguments)
    return told, status


def _usage_of(place: CachePlace) -> dict[str, object]:
    report: dict[str, object] = {
        "directory": place.directory,
        "repositories": list(place.repositories),
        "kind": place.kind.value,
        "limit_bytes": place.limit_bytes,
    }
    if not place.is_files:
        return {**report, "used_bytes": packed_bytes(place)}
    with closing(CacheContents.open(place)) as contents:
        scan = contents.scan()
        return {
            **report,
            "limit_in_force_bytes": contents.limit_in_force_bytes(),
            "used_bytes": scan.total_bytes,
            "objects": scan.object_count,
            "pinned_bytes": scan.pinned_bytes,
            "pinned_objects": scan.pinned_count,
            "oldest_use": scan.oldest_use_s or None,
            "cleanings_24h": contents.cleanings_within(_DAY_S),
        }


def _limit(arguments: argparse.Namespace) -> int:
    if arguments.words:
        return _set_limit(arguments, _megabytes(arguments.words))
    reports, status = _visit(arguments, _limit_of)
    if arguments.json:
        print(json.dumps(reports, indent=1))
        return status
    for one in reports:
        print(f"{harmless(str(one['directory']))}: {_limit_text(one)}")
    return status


def _limit_of(place: CachePlace) -> dict[str, object]:
    with closing(CacheContents.open(place)) as contents:
        return {
            "directory": place.directory,
            "limit_bytes": place.limit_bytes,
            "limit_in_force_bytes": contents.limit_in_force_bytes(),
        }


def _set_limit(arguments: argparse.Namespace, limit_mb: int) -> int:
    """Let all mounts that use the caches now go by another limit."""
    from cvmfsexec.cli.mounts import PATIENCE_S, live_mounts
    from cvmfsexec.client.talk_socket import talk

    status, answers = exit_codes.OK, []
    for fqrn in _mounted_repositories(arguments):
        alive, troubles = live_mounts(fqrn, arguments.dist)
        for text in troubles:
            write_message("cvmfs", text)
            status = NOT_DONE
        for mount in alive:
            command = f"cache limit set {limit_mb}".encode()
            answer = (
                talk(mount.socket, command, PATIENCE_S)[0]
                .strip()
                .decode(errors="replace")
            )
            answers.append({**mount._asdict(), "answer": answer})
            status = status if answer == "OK" else NOT_DONE
    if arguments.json:
        print(json.dumps(answers, indent=1))
    for one in () if arguments.json else answers:
        place = harmless(str(one["mountpoint"]))
        print(f"{place}  pid {one['pid']}: {harmless(str(one['answer']))}")
    if not answers:
        write_message("cvmfs", "nothing is mounted", _HINT_FOR_GOOD)
        status = NOT_DONE
    return status


def _limit_text(report: dict[str, object]) -> str:
    configured = _size(report["limit_bytes"]) if report["limit_bytes"] else "none"
    in_force = report.get("limit_in_force_bytes")
    if in_force and in_force != report["limit_bytes"]:
        return f"{configured}; {_size(in_force)} is in force, by a session that runs"
    return configured


def _hit_rate(arguments: argparse.Namespace) -> int:
    from cvmfsexec.cli.hit_rates import hit_rates

    told, troubles = hit_rates(_mounted_repositories(arguments), arguments.dist)
    for text in troubles:
        write_message("cvmfs", text)
    if not told and not troubles:
        write_message("cvmfs", "nothing is mounted, so nobody counts")
    if arguments.json:
        print(json.dumps([one._asdict() for one in told], indent=1))
        return exit_codes.OK
    for one in told:
        percent = "n/a" if one.percent is None else f"{one.percent:.1f} %"
        place = harmless(one.mountpoint)
        print(f"{place}  pid {one.pid}  {percent}  {one.downloads} downloads")
    return exit_codes.OK


def _mounted_repositories(arguments: argparse.Namespace) -> list[str]:
    """Return what may be mounted: all that is cached, or runs without a directory."""
    from cvmfsexec.cli.mounts import wanted_names

    names = [name for one in chosen_places(arguments) for name in one.repositories]
    if not arguments.dir:
        names += wanted_names(arguments.repository, arguments.dist)
    return list(dict.fromkeys(names))


def _pinned(arguments: argparse.Namespace) -> int:
    return _show_objects(arguments, only_pinned=True)


def _list(arguments: argparse.Namespace) -> int:
    arguments.repository = [*arguments.repository, *arguments.words]
    return _show_objects(arguments, only_pinned=False)


def _show_objects(arguments: argparse.Namespace, *, only_pinned: bool) -> int:
    """Write a line for each object: size, state, kind, hash, repository and path."""
    wanted = set(arguments.repository)

    def rows_of(place: CachePlace) -> list[dict[str, object]]:
        if not place.is_files:
            raise CacheError(
                f"{place.directory} is packed, and packs cannot be listed",
                hint="cvmfs cache usage tells how much there is",
            )
        rows = []
        with closing(CacheContents.open(place)) as contents:
            with waiting("reading the catalogs"):
                names, in_use = contents.names(), contents.in_use()
            for one in contents.objects():
                fqrn, name = names.get(one.content_hash, ("", None))
                if (only_pinned and not one.is_pinned) or (wanted and not fqrn):
                    continue
                row: dict[str, object] = {
                    "hash": str(one.content_hash),
                    "bytes": one.size_bytes,
                    "last_use": one.last_used_ns // 1_000_000_000,
                    "pinned": one.is_pinned,
                    "in_use": one.content_hash in in_use,
                    **_name_of(fqrn, name),
                }
                if arguments.json:
                    rows.append(row)
                else:
                    _write_row(row, name)
            missing_count = contents.count_missing_pins() if only_pinned else 0
        if missing_count:
            text = f"{missing_count} pinned objects are not in {place.directory}"
            write_message("cvmfs", text, "whatever fetches them again keeps them")
        return rows

    told, status = _visit(arguments, rows_of)
    if arguments.json:
        print(json.dumps([row for rows in told for row in rows], indent=1))
    return status


def _name_of(fqrn: str, name: CachedName | None) -> dict[str, object]:
    return {
        "kind": name.kind.value if name else None,
        "repository": fqrn or None,
        "path": (os.fsdecode(name.path) or "/") if name else None,
    }


def _write_row(row: dict[str, object], name: CachedName | None) -> None:
    state = "in use" if row["in_use"] else "pinned" if row["pinned"] else "-"
    start = f"{row['bytes']:>12} {state:6} {row['kind'] or '-':7} {row['hash']}"
    place = b""
    if name is not None:
        place = b" " + str(row["repository"]).encode() + b":" + (name.path or b"/")
    write_line(start.encode() + printable(place))


# -- changing --------------------------------------------------------------------------


def _cleanup(arguments: argparse.Namespace) -> int:
    target_bytes = _megabytes(arguments.words) * _MB

    def clean(place: CachePlace) -> dict[str, object]:
        with closing(CacheContents.open(place)) as contents:
            is_reached = contents.clean(target_bytes)
            used_bytes = contents.scan().total_bytes
        if not arguments.json:
            ending = "" if is_reached else "; the rest is pinned or in use"
            print(f"{harmless(place.directory)}: {_size(used_bytes)} are left{ending}")
        return {
            "directory": place.directory,
            "used_bytes": used_bytes,
            "is_reached": is_reached,
        }

    reports, status = _visit(arguments, clean)
    if arguments.json:
        print(json.dumps(reports, indent=1))
    if target_bytes and not all(one["is_reached"] for one in reports):
        status = status or NOT_DONE
    return status


def _megabytes(words: list[str]) -> int:
    if not words:
        return 0
    if len(words) > 1 or not _NUMBER.fullmatch(words[0]):
        raise ConfigurationError(f"not a number of megabytes: {' '.join(words)!r}")
    return int(words[0])


def _evict(arguments: argparse.Namespace) -> int:
    fqrn, paths = _repository_and_paths(arguments)
    places = _places_of(arguments, fqrn)
    found, missing = _names_in_any(places, fqrn, paths)
    status, count, freed_bytes = exit_codes.OK, 0, 0
    for place in places:
        with closing(CacheContents.open(place)) as contents:
            removed = contents.evict(found)
            count, freed_bytes = count + removed[0], freed_bytes + removed[1]
    for path in missing:
        status = no_such_entry(path)
    _tell_count(arguments, "evicted", count, freed_bytes)
    return status


def _pin(arguments: argparse.Namespace) -> int:
    fqrn, paths = _repository_and_paths(arguments)
    with open_client(fqrn, arguments.dist) as client:
        place = _places_of(arguments, client.fqrn)[0]
        warn_of_memory(place.kind)
        wishes = Wishes(client)
        wishes.add_paths(paths)
        with closing(CacheContents.open(place)) as contents:
            hashes = {wish.request.content_hash for wish in wishes.wanted}
            with progress_bar(wishes.total_bytes, "bytes", client.fqrn) as progress:
                warmth = warm(client, wishes.wanted, _CONNECTIONS, progress)
            pinned_count, pinned_bytes = contents.pin(hashes)
    status = tell_failures((*wishes.failures, *warmth.failures))
    status = tell_missing(wishes) or status
    _tell_count(arguments, "pinned", pinned_count, pinned_bytes)
    if not status and pinned_count < len(hashes):
        report_error("cvmfs", CacheError("not everything could be kept"))
        return exit_codes.CACHE
    return status


def _unpin(arguments: argparse.Namespace) -> int:
    fqrn, paths = _repository_and_paths(arguments, needs_paths=False)
    status, count = exit_codes.OK, 0
    for place in _places_of(arguments, fqrn):
        with closing(CacheContents.open(place)) as contents:
            if not paths:
                count += contents.unpin(_all_pinned(contents, fqrn))
                continue
            hashes, missing = _hashes_at(contents, fqrn, paths, arguments)
            count += contents.unpin(hashes)
            for path in missing:
                status = no_such_entry(path)
    _tell_count(arguments, "unpinned", count, None)
    return status


def _hashes_at(
    contents: CacheContents,
    fqrn: str,
    paths: list[bytes],
    arguments: argparse.Namespace,
) -> tuple[list[ContentHash], list[bytes]]:
    """Return what is at and below paths; servers are asked if the catalogs are gone."""
    try:
        with closing(contents.repository(fqrn)) as repository:
            found, missing = _names_at(repository, paths)
        return [one.content_hash for one in found], missing
    except CacheError:
        with open_client(fqrn, arguments.dist) as client:
            wishes = Wishes(client)
            wishes.add_paths(paths)
        return [one.request.content_hash for one in wishes.wanted], wishes.missing


def _all_pinned(contents: CacheContents, fqrn: str) -> Iterable[ContentHash]:
    """Return what is pinned for a repository, also what its catalogs know no more."""
    names = contents.names()
    return [
        one
        for one in contents.pinned_for_good()
        if one not in names or names[one][0] == fqrn
    ]


def _repository_and_paths(
    arguments: argparse.Namespace, *, needs_paths: bool = True
) -> tuple[str, list[bytes]]:
    if not arguments.words or (needs_paths and len(arguments.words) < 2):
        raise ConfigurationError(
            f"cvmfs cache {arguments.action} needs a repository"
            + (" and paths in it" if needs_paths else "")
        )
    name, *typed = arguments.words
    return complete(arguments, name), [repository_path(path) for path in typed]


def _places_of(arguments: argparse.Namespace, fqrn: str) -> list[CachePlace]:
    """Return the caches of a repository; with ``--dir``, those.

    Raises:
        CacheError: None of them keeps objects in files.
    """
    if not arguments.dir:
        arguments.repository = [fqrn]
    places = chosen_places(arguments)
    if not places:
        raise CacheError(f"nothing of {fqrn} is cached")
    files = [one for one in places if one.is_files]
    if not files:
        raise CacheError(
            f"{places[0].directory} is packed, and packs do not know single files",
            hint="CVMFS_CACHE_TYPE=posix keeps each in a file of its own",
        )
    return files


def _names_in_any(
    places: list[CachePlace], fqrn: str, paths: list[bytes]
) -> tuple[set[CachedName], list[bytes]]:
    """Return what is at and below paths, and the paths that are nowhere.

    One of two tiers may have the catalogs, and both the files.

    Raises:
        CacheError: No cache has the catalogs that it takes.
    """
    found: set[CachedName] = set()
    missing = set(paths)
    errors: list[CacheError] = []
    for place in places:
        try:
            with (
                closing(CacheContents.open(place)) as contents,
                closing(contents.repository(fqrn)) as repository,
            ):
                names, absent = _names_at(repository, paths)
        except CacheError as error:
            errors.append(error)
        else:
            found.update(names)
            missing.intersection_update(absent)
    if len(errors) == len(places):
        raise errors[0]
    return found, [path for path in paths if path in missing]


def _names_at(
    repository: CachedRepository, paths: list[bytes]
) -> tuple[list[CachedName], list[bytes]]:
    """Return what is at and below paths, and the paths that are not there."""
    found: list[CachedName] = []
    missing: list[bytes] = []
    for path in paths:
        names = repository.names_at(path)
        if names is None:
            missing.append(path)
        else:
            found += names
    return found, missing


def _tell_count(
    arguments: argparse.Namespace, verb: str, count: int, size_bytes: int | None
) -> None:
    if arguments.json:
        print(json.dumps({verb: count, "bytes": size_bytes}))
        return
    size = "" if size_bytes is None else f" of {_size(size_bytes)}"
    print(f"{count} objects{size} {verb}")


def _size(count: object) -> str:
    """Return a number of bytes as a person reads it."""
    size = float(str(count))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "usage": _usage,
    "pinned": _pinned,
    "hit-rate": _hit_rate,
    "limit": _limit,
    "list": _list,
    "cleanup": _cleanup,
    "evict": _evict,
    "pin": _pin,
    "unpin": _unpin,
}
