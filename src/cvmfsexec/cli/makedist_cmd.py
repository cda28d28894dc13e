"""``makedist …``: make a dist, or pack one into a single file.

Words and options are the original's, and some of our own. What it says goes to stderr:
which packages it has taken, and which keys they make trusted.
"""

import contextlib
import getopt
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.report import (
    replace_missing_streams,
    report_error,
    set_verbosity,
    write_message,
)
from cvmfsexec.distribution.machine_types import (
    MACHINE_TYPES,
    MachineType,
    machine_type_of,
    machine_type_of_host,
)
from cvmfsexec.distribution.sources import CONFIGURATIONS, place_of, place_of_file
from cvmfsexec.errors import CvmfsError, DistributionError, TransferError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cvmfsexec.distribution.downloads import Means
    from cvmfsexec.distribution.interpreter import Source
    from cvmfsexec.distribution.making import Found, Order
    from cvmfsexec.network.authorities import Authorities

_NAME = "makedist"
_USAGE = """\
Usage: makedist [OPTION...] {default|egi|none|osg}
       makedist [-s] [-m TYPE] [--python ARCHIVE] [--libc PACKAGE] -o FILE
"""
_HELP = f"""\
{_USAGE}
Makes the directory dist beside this command: configuration packages of CernVM-FS
(default), EGI or OSG, or none of them. The client is this program itself, or what
--client says.

  -m TYPE          machine type to write down:
                   {" ".join(MACHINE_TYPES)}
  -s               for singcvmfs
  --client WHICH   'original': also put the C++ client into the dist, for cvmfsexec and
                   mountrepo to use; 'ours' is the default
  -v VERSION       version of the original client; has no effect on ours
  -o FILE          pack the dist and the commands into one file
  --python ARCHIVE with -o: pack this Python instead of the one that runs makedist: a
                   .tar.gz of python-build-standalone, install_only; a path, or a URL
  --libc PACKAGE   with --python: take dynamic loader and libc from this RPM or Debian
                   package, more often for more packages; a path, or a URL
  --from PLACE     use the package PLACE, or the newest one in the directory or mirror
                   PLACE, instead of the official places: a path, or a URL; more often
                   to try several ('none': to use them all)
  --pin FILE       accept only what FILE lists: SHA-256 of packages or master keys
  --gpg-key FILE   accept only RPM packages signed by an OpenPGP key in FILE
  --dist DIR       make DIR (default: $CVMFSEXEC_DIST, then dist beside this command)
  --verbose        say what is going on
  --help           this text
"""
_LONG_OPTIONS = (
    "from=",
    "pin=",
    "gpg-key=",
    "dist=",
    "client=",
    "python=",
    "libc=",
    "verbose",
    "help",
)
_SWITCHES = ("-s", "--verbose", "--help")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,3}")
_USAGE_STATUS = 2
_CLIENTS = ("ours", "original")
_OS_RELEASE_BYTES_MAX = 1 << 16


class Words(NamedTuple):
    """What the command line says.

    Attributes:
        configuration: The word; empty with ``output``.
        output: File to pack everything into; empty to make a dist.
        machine_type: What ``-m`` said; empty without.
        version: What ``-v`` said; empty without.
        is_for_singularity: Whether ``-s`` is there.
        places: What ``--from`` said, in order.
        pin_file: What ``--pin`` said; empty without.
        gpg_key: What ``--gpg-key`` said; empty without.
        dist: What ``--dist`` said; empty without.
        client: What ``--client`` said; empty without.
        python: What ``--python`` said; empty without.
        libraries: What ``--libc`` said, in order.
        verbosity: How often ``--verbose`` is there.
        wants_help: Whether ``--help`` is there.
    """

    configuration: str = ""
    output: str = ""
    machine_type: str = ""
    version: str = ""
    is_for_singularity: bool = False
    places: tuple[str, ...] = ()
    pin_file: str = ""
    gpg_key: str = ""
    dist: str = ""
    client: str = ""
    python: str = ""
    libraries: tuple[str, ...] = ()
    verbosity: int = 0
    wants_help: bool = False


class UsageError(Exception):
    """The command line cannot be understood; a reason or nothing."""


def parse_words(words: list[str]) -> Words:
    """Read a command line.

    Raises:
        UsageError: It cannot be understood.
    """
    try:
        options, rest = getopt.gnu_getopt(words, "sv:m:o:", list(_LONG_OPTIONS))
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from error
    names = [name for name, _ in options]
    if "--help" in names:
        return Words(wants_help=True)
    places = tuple(value for name, value in options if name == "--from")
    libraries = tuple(value for name, value in options if name == "--libc")
    given = dict(options)
    values = {name: value for name, value in options if name not in _SWITCHES}
    if not all((*values.values(), *places, *libraries)):
        raise UsageError("an option has an empty value")
    parsed = Words(
        output=given.get("-o", ""),
        machine_type=given.get("-m", ""),
        version=given.get("-v", ""),
        is_for_singularity="-s" in given,
        places=places,
        pin_file=given.get("--pin", ""),
        gpg_key=given.get("--gpg-key", ""),
        dist=given.get("--dist", ""),
        client=given.get("--client", ""),
        python=given.get("--python", ""),
        libraries=libraries,
        verbosity=names.count("--verbose"),
    )
    if parsed.version and not _VERSION.fullmatch(parsed.version):
        raise UsageError(f"{parsed.version} is no version")
    if parsed.client not in ("", *_CLIENTS):
        raise UsageError(f"there is no client {parsed.client}")
    if parsed.output:
        return _checked_for_packing(parsed, rest)
    if parsed.python or parsed.libraries:
        raise UsageError("--python and --libc are about -o")
    if len(rest) != 1 or rest[0] not in CONFIGURATIONS:
        raise UsageError
    return parsed._replace(configuration=rest[0])


def _checked_for_packing(words: Words, rest: list[str]) -> Words:
    if rest or words.places or words.client:
        raise UsageError("-o packs a dist that is there already")
    if words.libraries and not words.python:
        raise UsageError("--libc is about --python")
    return words


def main() -> NoReturn:
    """Run the command line and exit."""
    replace_missing_streams()
    try:
        words = parse_words(sys.argv[1:])
    except UsageError as error:
        if str(error):
            write_message(_NAME, str(error))
        sys.stderr.write(_USAGE)
        sys.exit(_USAGE_STATUS)
    if words.wants_help:
        sys.stdout.write(_HELP)
        sys.exit(exit_codes.OK)
    set_verbosity(_NAME, words.verbosity)
    # Who interrupts it finds everything as it was.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if words.output:
            _pack(words)
        else:
            _make(words)
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
    except CvmfsError as error:
        report_error(_NAME, error)
        if isinstance(error, TransferError) and not words.verbosity:
            for route in error.routes:
                write_message(_NAME, f"  tried {route}")
        sys.exit(exit_codes.exit_status_of(error))
    sys.exit(exit_codes.OK)


def _terminate(_number: int, _frame: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _pack(words: Words) -> None:
    architecture = _machine_type(words.machine_type).architecture
    if words.python:
        _pack_for(words, architecture)
        return
    here = os.uname().machine
    if architecture != here:
        raise DistributionError(
            f"cannot pack for {words.machine_type} here",
            hint=f"the file gets the interpreter of this machine, {here}: pack it "
            f"there, or give an interpreter for {architecture} with --python",
        )
    _write_file(words, None)


def _pack_for(words: Words, architecture: str) -> None:
    """Pack with an interpreter that the user names."""
    import tempfile

    from cvmfsexec.cli.progress import progress_bar
    from cvmfsexec.distribution import target

    wanted = target.Target(
        architecture,
        os.uname().machine,
        place_of_file(words.python),
        tuple(map(place_of_file, words.libraries)),
    )
    try:
        with tempfile.TemporaryDirectory(prefix="makedist-") as directory:
            with progress_bar(None, "bytes", "getting parts") as on_bytes:
                source = target.prepare(wanted, _means(on_bytes), directory)
            _write_file(words, source)
    except OSError as error:
        message = f"cannot unpack {words.python}: {error.strerror}"
        raise DistributionError(message) from error


def _write_file(words: Words, source: "Source | None") -> None:
    from cvmfsexec.distribution.self_extracting import make_self_extracting

    command = "singcvmfs" if words.is_for_singularity else "cvmfsexec"
    size_bytes = make_self_extracting(
        words.output, _dist(words.dist), source, command=command
    )
    write_message(_NAME, f"made {words.output}: {size_bytes / 1e6:.1f} MB")


def _make(words: Words) -> None:
    from cvmfsexec.cli.progress import progress_bar
    from cvmfsexec.distribution import making

    order = _order(words)
    _warn(words)
    with (
        _ended_at_once(),
        progress_bar(None, "bytes", "looking for packages") as on_bytes,
    ):
        packages = making.find_packages(order, _means(on_bytes))
    for package in packages:
        _show(package)
    making.check(order, packages)
    making.write(order, packages)
    made = f"{order.configuration} distribution for {order.machine_type}"
    write_message(_NAME, f"made {order.dist}: {made}")


@contextlib.contextmanager
def _ended_at_once() -> "Iterator[None]":
    """Let signals end us while there is nothing to clear away.

    Handlers would wait for the network, which may take its timeouts to give up.
    """
    handlers = {
        number: signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _order(words: Words) -> "Order":
    from cvmfsexec.distribution.making import Order
    from cvmfsexec.distribution.trusted_keys import read_pins

    return Order(
        configuration=words.configuration,
        dist=_dist(words.dist),
        machine_type=_machine_type(words.machine_type),
        is_for_singularity=words.is_for_singularity,
        places=tuple(map(place_of, words.places)),
        pins=read_pins(words.pin_file) if words.pin_file else None,
        gpg_key=words.gpg_key,
        has_original_client=words.client == "original",
        version=words.version,
    )


def _dist(option: str) -> str:
    """Return where the dist shall be: where the other commands look for it."""
    beside = os.path.join(os.path.dirname(os.path.realpath(sys.argv[0])), "dist")
    return os.path.abspath(option or os.environ.get("CVMFSEXEC_DIST") or beside)


def _machine_type(word: str) -> MachineType:
    if word:
        return machine_type_of(word)
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as stream:
            text = stream.read(_OS_RELEASE_BYTES_MAX)
    except OSError:
        text = ""
    return machine_type_of_host(text, os.uname().machine)


def _means(on_bytes: "Callable[[int], object]") -> "Means":
    import time

    from cvmfsexec.configuration.locate import user_directories
    from cvmfsexec.distribution.downloads import Means
    from cvmfsexec.distribution.package_store import PackageStore
    from cvmfsexec.network.default_transport import DefaultTransport
    from cvmfsexec.network.download import Downloader, Patience
    from cvmfsexec.network.environment_proxies import EnvironmentProxies
    from cvmfsexec.network.settings import NetworkSettings

    settings = NetworkSettings(servers=(), authorities=_authorities())
    downloader = Downloader(
        DefaultTransport(settings),
        EnvironmentProxies.from_environment(os.environ),
        Patience(time.sleep, on_bytes),
    )
    directories = user_directories(os.environ, os.getuid())
    kept = os.path.join(directories[0], "packages") if directories else ""
    return Means(downloader, PackageStore(kept))


def _authorities() -> "Authorities":
    """Return who may vouch for servers: what the user says, or the system's."""
    from cvmfsexec.network.authorities import Authorities, find_authorities

    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle:
        return Authorities(bundle)
    return find_authorities(os.environ, use_system=True)


def _warn(words: Words) -> None:
    if words.version and words.client != "original":
        write_message(_NAME, f"-v {words.version} has no effect: the client is ours")
    is_open = any(place.lower().startswith("http://") for place in words.places)
    if is_open and not words.pin_file and not words.gpg_key:
        write_message(
            _NAME,
            "http tells nobody whose package it is",
            "compare the keys below, or use https, --pin or --gpg-key",
        )


def _show(found: "Found") -> None:
    package = found.package
    write_message(_NAME, f"{package.name} {package.version} from {found.origin}")
    write_message(_NAME, f"  package {found.sha256}")
    for key in found.keys:
        write_message(_NAME, f"  trusted key {key.sha256} {key.path}")
