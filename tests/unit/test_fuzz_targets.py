"""Which fuzz target feeds which parser: none of outside bytes goes without.

A new module that takes outside bytes apart has to be entered here.
"""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src/cvmfsexec"

TARGETS = {
    "apptainer/installation.py": {"container_settings"},
    "apptainer/command_line.py": {"singcvmfs_command_line"},
    "cache/breadcrumb.py": {"breadcrumb"},
    "cache/ledger_format.py": {"ledger"},
    "cache/verified_objects.py": {"verified_object"},
    "catalog/database.py": {"catalog", "file_system", "history", "reflog"},
    "catalog/history.py": {"history"},
    "catalog/reader.py": {"catalog", "file_system"},
    "cli/exec_cmd.py": {"command_line"},
    "cli/fusemount_cmd.py": {"singcvmfs_command_line"},
    "cli/hit_rates.py": {"hit_rate"},
    "cli/makedist_cmd.py": {"makedist_command_line"},
    "cli/mount_words.py": {"mount_command_line"},
    "cli/mountrepo_cmd.py": {"mount_command_line"},
    "cli/umountrepo_cmd.py": {"mount_command_line"},
    "configuration/assignments.py": {"configuration_file"},
    "configuration/id_map.py": {"id_map"},
    "configuration/plain.py": {"configuration_file"},
    "configuration/plain_words.py": {"configuration_file"},
    "distribution/client_packages.py": {"client_package"},
    "distribution/machine_types.py": {"makedist_command_line"},
    "distribution/relocatable.py": {"interpreter_archive"},
    "distribution/sources.py": {"package_listing"},
    "distribution/wheels.py": {"wheel"},
    "fetch/inflate.py": {"inflate"},
    "format/archive.py": {"cpio", "deb", "rpm", "tar"},
    "format/blacklist.py": {"blacklist"},
    "format/chunk.py": {"chunk"},
    "format/compression.py": {"compression"},
    "format/cpio.py": {"cpio", "rpm"},
    "format/deb.py": {"deb"},
    "format/der.py": {"certificate"},
    "format/digest.py": {"breadcrumb", "envelope", "manifest", "whitelist"},
    "format/directory_listing.py": {"package_listing"},
    "format/dirent.py": {"catalog", "file_system"},
    "format/elf.py": {"elf"},
    "format/envelope.py": {"envelope"},
    "format/manifest.py": {"manifest"},
    "format/names.py": {"names"},
    "format/pac_answer.py": {"pac_answer"},
    "format/pack_index.py": {"pack_index"},
    "format/package.py": {"rpm"},
    "format/parameters.py": {"parameters"},
    "format/pem.py": {"certificate"},
    "format/pinned_name.py": {"pinned_name"},
    "format/proxy_groups.py": {"network_settings", "proxy_groups"},
    "format/rpm.py": {"rpm"},
    "format/talk_message.py": {"talk_message"},
    "format/tar.py": {"deb", "tar"},
    "format/gauges.py": {"gauges"},
    "format/trace.py": {"trace"},
    "format/url_path.py": {"url"},
    "format/variant_symlink.py": {"variant_symlink"},
    "format/whitelist.py": {"whitelist"},
    "format/xattr.py": {"catalog", "xattr"},
    "fuse/directory.py": {"fuse_request"},
    "fuse/doors.py": {"fuse_request"},
    "fuse/negotiation.py": {"fuse_request"},
    "fuse/operations.py": {"fuse_request"},
    "fuse/permissions.py": {"fuse_request"},
    "fusemount/handover.py": {"handover"},
    "namespaces/meeting.py": {"session_card"},
    "namespaces/messages.py": {"session_message"},
    "namespaces/mount_table.py": {"mount_table"},
    "namespaces/requests.py": {"session_request"},
    "network/credentials.py": {"credential"},
    "network/discovery_memory.py": {"proxy_memory"},
    "network/failure.py": {"http_answer"},
    "network/geo.py": {"geo_answer"},
    "network/local_transport.py": {"url"},
    "network/pac_evaluation.py": {"pac_output"},
    "network/settings.py": {"network_settings"},
    "network/transport.py": {"http_answer"},
    "publish/http_message.py": {"http_request"},
    "publish/nesting.py": {"dirtab"},
    "publish/reflog.py": {"reflog"},
    "repository/catalog_tree.py": {"file_system"},
    "repository/difference.py": {"difference"},
    "trust/chain.py": {"chain"},
    "trust/signature.py": {"certificate"},
    "vfs/extended_attributes.py": {"file_system", "xattr_name"},
    "vfs/file_system.py": {"file_system"},
    "vfs/presentation.py": {"file_system"},
}
"""Targets by module."""

EXEMPT = {
    "cache/byte_locks.py": "the kernel writes what it unpacks",
    "cli/main.py": "argparse takes the words apart",
    "client/talk_socket.py": "the kernel writes what it unpacks",
    "configuration/settings.py": "types of the parameters are fuzzed",
    "configuration/shell.py": "must not run foreign text; test_shell has odd output",
    "format/ripemd160.py": "hashes, and parses nothing",
    "fuse/crew.py": "reads a header only; operations are fuzzed",
    "fuse/server.py": "reads a header only; negotiation and operations are fuzzed",
    "namespaces/descendants.py": "the kernel writes what it reads",
    "namespaces/scratch_image.py": "reads two numbers; e2fsck and fuse2fs see the rest",
    "namespaces/root.py": "the kernel writes what it reads",
    "publish/layout.py": "reads whole files for others to take apart",
    "trust/keyring.py": "certificate feeds what reads keys",
}
"""Modules with a function that looks like a parser, and why they need no target."""

_PARSES = re.compile(r"_?(parse|decode|unpack)($|_)")
_UNPACKS = {"unpack", "unpack_from", "iter_unpack"}


@functools.cache
def modules() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(SOURCES)): ast.parse(path.read_text())
        for path in sorted(SOURCES.rglob("*.py"))
    }


def looks_like_a_parser(module: ast.Module) -> bool:
    """Whether it defines a function called like a parser, or unpacks structures."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and _PARSES.match(node.name):
            return True
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _UNPACKS
        ):
            return True
    return False


def all_targets() -> set[str]:
    files = (ROOT / "fuzz").glob("fuzz_*.py")
    return {path.stem.removeprefix("fuzz_") for path in files}


@functools.cache
def reached_from(target: str) -> set[str]:
    """Return the modules that a target's module imports, directly or not."""
    known = modules()
    seen: set[str] = set()
    pending = [ast.parse((ROOT / f"fuzz/fuzz_{target}.py").read_text())]
    while pending:
        for name in _imported(pending.pop()):
            path = name.removeprefix("cvmfsexec.").replace(".", "/")
            for file in (f"{path}.py", f"{path}/__init__.py"):
                if file in known and file not in seen:
                    seen.add(file)
                    pending.append(known[file])
    return seen


def _imported(module: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.startswith("cvmfsexec.")}


def test_every_parser_has_a_target_or_needs_none() -> None:
    parsers = {name for name, code in modules().items() if looks_like_a_parser(code)}
    assert parsers - TARGETS.keys() - EXEMPT.keys() == set()


def test_every_module_named_here_exists() -> None:
    assert (TARGETS.keys() | EXEMPT.keys()) - modules().keys() == set()
    assert TARGETS.keys() & EXEMPT.keys() == set()


def test_every_target_feeds_a_module_named_here() -> None:
    assert set().union(*TARGETS.values()) == all_targets()


@pytest.mark.parametrize("module", TARGETS)
def test_a_target_reaches_the_module_that_it_is_named_for(module: str) -> None:
    for target in TARGETS[module]:
        assert module in reached_from(target), target
