"""Tell what works on this machine, what does not, and what to do about it."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from cvmfsexec.apptainer.installation import Installation, examine
from cvmfsexec.apptainer.program import ContainerProgram, find_program
from cvmfsexec.cli import exit_codes
from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.environment import load_parameters, open_client
from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.cli.progress import waiting
from cvmfsexec.configuration.cache_instances import StoreKind
from cvmfsexec.configuration.evaluate import complete_name, site_repositories
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.configuration.mount_places import mount_places, session_base
from cvmfsexec.configuration.settings import ClientSettings
from cvmfsexec.configuration.storage import cache_base
from cvmfsexec.diagnosis import containers, leftovers, modes
from cvmfsexec.diagnosis.finding import Finding, State
from cvmfsexec.diagnosis.leftovers import Leftover
from cvmfsexec.diagnosis.limits import examine_limits
from cvmfsexec.diagnosis.storage import examine_cache_directory
from cvmfsexec.errors import ConfigurationError, CvmfsError
from cvmfsexec.host_mounts import HANGING_HINT, Condition, conditions, mounted
from cvmfsexec.log import harmless
from cvmfsexec.namespaces.fusermount import Fusermount

TROUBLE = 1
"""Exit status if anything is a failure."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "fqrns",
        metavar="FQRN",
        nargs="*",
        help="repository to be tried; those of CVMFS_REPOSITORIES if none is given",
    )
    parser.add_argument(
        "--fix",
        action="store_true",
        help="remove what killed sessions and mounts have left behind",
    )
    add_dist(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything, and tell it."""
    with waiting("looking round"):
        ours = _examine_containers()
        verdict = _examine_modes(ours.program)
        found = [*modes.findings(verdict), *ours.findings, *examine_limits()]
        found += _examine_installation(arguments)
    if arguments.json:
        told = {**_as_json(verdict, found), "container_program": ours.as_json()}
        print(json.dumps(told, indent=1))
    else:
        for one in found:
            _print(one)
        print(_conclusion(verdict, found))
    is_bad = any(one.state is State.FAILURE for one in found)
    return TROUBLE if is_bad else exit_codes.OK


class _Containers(NamedTuple):
    """What runs containers, as far as there is something."""

    program: ContainerProgram | None = None
    installation: Installation | None = None
    findings: tuple[Finding, ...] = ()

    def as_json(self) -> dict[str, object] | None:
        if self.program is None or self.installation is None:
            return None
        return {"path": self.program.path, **self.installation._asdict()}


def _examine_containers() -> _Containers:
    try:
        program = find_program(_search_path(), os.environ.get("SINGCMD", ""))
    except ConfigurationError:
        return _Containers()  # mode 4 is said not to work
    try:
        installation = examine(program)
    except ConfigurationError as error:
        broken = Finding(containers.SUBJECT, State.WARNING, str(error), error.hint)
        return _Containers(program, None, (broken,))
    found = containers.findings(program.path, installation)
    return _Containers(program, installation, tuple(found))


def _examine_modes(program: ContainerProgram | None) -> modes.Verdict:
    directory = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 -- as everywhere
    return modes.examine_modes(_search_path(), directory, program)


def _search_path() -> str:
    return os.environ.get("PATH", "")


def _examine_installation(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Look at what depends on the configuration."""
    try:
        root = configuration_root(arguments.dist)
        names = arguments.fqrns or site_repositories(root, os.environ)
        names = [complete_name(name, root, os.environ) for name in names]
    except CvmfsError as error:
        # Who only wants to know about the machine may have none yet.
        is_wanted = arguments.fqrns or arguments.dist is not None
        state = State.FAILURE if is_wanted else State.WARNING
        yield Finding("configuration", state, str(error), error.hint)
        return
    yield Finding("configuration", State.GOOD, root.etc)
    places: dict[str, bool] = {}
    for fqrn in names:
        yield _examine_repository(fqrn, arguments.dist)
        places |= _cache_directory(fqrn, arguments.dist)
    base = cache_base(root)
    for directory, has_many_files in (places or {base: True}).items():
        yield from examine_cache_directory(directory, has_many_files=has_many_files)
    caches = dict.fromkeys([*places, *_directories_below(base)])
    mounts = conditions(mounted(mount_places(root), os.getuid()))
    yield from _examine_mounts(mounts)
    for one in _find_leftovers(root, tuple(caches), mounts):
        yield _treat(one, is_to_be_removed=arguments.fix)


def _examine_repository(fqrn: str, dist: str | None) -> Finding:
    """Try to open a repository as a session would."""
    try:
        with open_client(fqrn, dist) as client:
            routes = client.http.routes
            text = (
                f"revision {client.revision.number} from {routes.active_host}, "
                f"proxy {routes.active_proxy}"
            )
    except CvmfsError as error:
        return Finding(fqrn, State.FAILURE, str(error), error.hint)
    return Finding(fqrn, State.GOOD, text)


def _cache_directory(fqrn: str, dist: str | None) -> dict[str, bool]:
    """Return a repository's, and whether each object is a file in it."""
    try:
        settings = ClientSettings.from_configuration(load_parameters(fqrn, dist))
    except CvmfsError:
        return {}  # told already
    has_many_files = settings.cache.store.kind is StoreKind.POSIX
    return {settings.cache.directory: has_many_files}


def _directories_below(base: str) -> list[str]:
    try:
        with os.scandir(base) as entries:
            return [one.path for one in entries if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # never used


def _examine_mounts(mounts: Mapping[str, Condition]) -> Iterator[Finding]:
    """Tell of file servers of mode 1 that everybody waits for."""
    for mountpoint, condition in mounts.items():
        if condition is Condition.HANGS:
            yield Finding(
                "mounts",
                State.WARNING,
                f"the file server of {mountpoint} does not answer",
                HANGING_HINT,
            )


def _find_leftovers(
    root: ConfigurationRoot, caches: tuple[str, ...], mounts: Mapping[str, Condition]
) -> Iterator[Leftover]:
    helper = Fusermount(os.environ.get("PATH", ""))
    yield from leftovers.find_dead_mounts(mounts, helper)
    runtime_directory = os.environ.get("XDG_RUNTIME_DIR", "")
    with suppress(ConfigurationError):  # without a place there never were any
        base = session_base(root, runtime_directory)
        yield from leftovers.find_dead_sessions(base, helper)
    for directory in caches:
        yield from leftovers.find_dead_files(directory)
        yield from leftovers.find_dead_sockets(directory)
    yield from leftovers.find_unused_memory(os.getuid())


def _treat(leftover: Leftover, *, is_to_be_removed: bool) -> Finding:
    subject = "left behind"
    if not is_to_be_removed:
        hint = "the next start removes it, and so does cvmfs doctor --fix"
        return Finding(subject, State.WARNING, leftover.text, hint)
    failure = leftovers.remove(leftover)
    if failure:
        return Finding(subject, State.FAILURE, f"{leftover.text}: {failure}")
    return Finding(subject, State.GOOD, f"removed: {leftover.text}")


def _print(finding: Finding) -> None:
    line = f"{finding.state.value:8} {finding.subject}: {finding.text}"
    print(harmless(line))
    if finding.hint:
        print(harmless(f"{'':8}   {finding.hint}"))


def _conclusion(verdict: modes.Verdict, found: list[Finding]) -> str:
    failures = sum(one.state is State.FAILURE for one in found)
    warnings = sum(one.state is State.WARNING for one in found)
    if failures:
        return f"{failures} failures, {warnings} warnings"
    best = f"cvmfsexec works here, in mode {verdict.best}"
    return f"{best}; {warnings} warnings" if warnings else best


def _as_json(verdict: modes.Verdict, found: list[Finding]) -> dict[str, object]:
    return {
        "best_mode": verdict.best or None,
        "has_pid_namespace": verdict.has_pid_namespace,
        "modes": {
            str(mode.number): {
                "works": mode.works,
                "reason": mode.reason,
                "hint": mode.hint,
            }
            for mode in verdict.modes
        },
        "findings": [{**one._asdict(), "state": one.state.value} for one in found],
    }
