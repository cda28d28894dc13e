"""Make or continue a repository from a directory."""

import argparse
import json
import os
import signal
import time
from pathlib import Path

from cvmfsexec.cli.options import add_json
from cvmfsexec.cli.progress import progress_bar
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.digest import HashAlgorithm
from cvmfsexec.format.dirent import Compression
from cvmfsexec.publish.chunker import ChunkSizes
from cvmfsexec.publish.settings import PublishSettings
from cvmfsexec.publish.transaction import Publication, publish

DEFAULT_OUTPUT = Path("repositories")
DEFAULT_KEYS = Path("keys")

_ALGORITHMS = {algorithm.name.lower(): algorithm for algorithm in HashAlgorithm}
_COMPRESSIONS = {compression.name.lower(): compression for compression in Compression}
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("source", metavar="DIR", type=Path, help="what to publish")
    parser.add_argument(
        "--repository", required=True, metavar="FQRN", help="e.g. software.example.org"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=DEFAULT_OUTPUT,
        help="directory to serve; the repository is DIR/FQRN (default: %(default)s)",
    )
    parser.add_argument(
        "--keys",
        metavar="DIR",
        type=Path,
        default=DEFAULT_KEYS,
        help="where the keys are, or are made; keep it private (default: %(default)s)",
    )
    parser.add_argument("--tag", metavar="NAME", default="", help="name the revision")
    parser.add_argument("--message", metavar="TEXT", default="", help="describe it")
    parser.add_argument(
        "--hash",
        choices=_ALGORITHMS,
        help="how objects are named (default: as before, at first sha1)",
    )
    parser.add_argument(
        "--compression", choices=_COMPRESSIONS, default="zlib", help="of file contents"
    )
    parser.add_argument(
        "--chunk-size",
        metavar="BYTES",
        type=_chunk_sizes,
        default=ChunkSizes(),
        help="average chunk of a large file, with K, M or G (default: 8M)",
    )
    parser.add_argument(
        "--no-chunking", action="store_true", help="store every file as one object"
    )
    parser.add_argument(
        "--ttl",
        metavar="SECONDS",
        type=_seconds,
        help="how long clients go without asking again (default: as before, at first "
        "240)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publish, and say what was published."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        # Who interrupts it finds everything as it was.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = PublishSettings(
        fqrn=arguments.repository,
        output=arguments.output,
        keys_directory=arguments.keys,
        algorithm=_ALGORITHMS[arguments.hash] if arguments.hash else None,
        compression=_COMPRESSIONS[arguments.compression],
        chunk_sizes=None if arguments.no_chunking else arguments.chunk_size,
        ttl_s=arguments.ttl,
        tag=arguments.tag,
        message=os.fsencode(arguments.message).decode(errors="replace"),
    )
    publication = publish(
        arguments.source, settings, int(time.time()), show_progress=progress_bar
    )
    if arguments.json:
        print(json.dumps(_as_json(publication, settings), indent=1))
    else:
        _print(publication, settings)
    return 0


def _print(publication: Publication, settings: PublishSettings) -> None:
    manifest, counters = publication.manifest, publication.counters
    total = publication.new_catalogs + publication.kept_catalogs
    print(f"{manifest.fqrn}: revision {manifest.revision}, tag {publication.tag}")
    print(
        f"  {counters['regular']} files, {counters['dir'] - counters['nested']} "
        f"directories, {counters['symlink']} links, {counters['file_size']} bytes"
    )
    print(
        f"  {publication.objects.object_count} new objects, "
        f"{publication.objects.stored_bytes} bytes; "
        f"{publication.new_catalogs} of {total} catalogs are new"
    )
    print(f"  repository: {settings.repository}")
    print(f"  master key: {settings.master_key}")


def _as_json(publication: Publication, settings: PublishSettings) -> dict[str, object]:
    manifest = publication.manifest
    return {
        "fqrn": manifest.fqrn,
        "revision": manifest.revision,
        "tag": publication.tag,
        "published_at_s": manifest.published_at_s,
        "root_catalog": str(manifest.root_catalog),
        "root_catalog_size": manifest.root_catalog_size,
        "repository": str(settings.repository),
        "master_key": str(settings.master_key),
        "new_objects": publication.objects.object_count,
        "new_objects_stored_bytes": publication.objects.stored_bytes,
        "new_catalogs": publication.new_catalogs,
        "kept_catalogs": publication.kept_catalogs,
        "counters": publication.counters,
    }


def _chunk_sizes(typed: str) -> ChunkSizes:
    try:
        return ChunkSizes.around(_bytes(typed))
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(f"{error}; {error.hint}") from error


def _bytes(typed: str) -> int:
    number = typed.rstrip("kKmMgG")
    unit = typed[len(number) :].lower()
    if not number.isdecimal() or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"{typed!r} is no number of bytes")
    return int(number) * _UNITS[unit]


def _seconds(typed: str) -> int:
    if not typed.isdecimal() or not 0 < int(typed) < 2**31:
        raise argparse.ArgumentTypeError(f"{typed!r} is no number of seconds")
    return int(typed)
