"""Every magic attribute of the original, read through the kernel by real tools."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cvmfsexec.publish.chunker import ChunkSizes
from tests.support.commands import client_dist, run_exec
from tests.support.published import FQRN, Tree, publish_tree, serve
from tests.support.sessions import ORDINARY_UID

OF_THE_MOUNT = (
    *("fqrn", "revision", "root_hash", "tag", "version", "pid", "uptime", "expires"),
    *("maxfd", "usedfd", "useddirp", "nclg", "inode_max", "nopen", "ndiropen"),
    *("ndownload", "hitrate", "rx", "speed", "nioerr", "timestamp_last_ioerr"),
    *("ncleanup24", "host", "host_list", "proxy", "proxy_list"),
    *("proxy_list_external", "timeout", "timeout_direct", "external_timeout"),
    *("external_host", "pubkeys", "repo_counters", "repo_metainfo", "logbuffer"),
    "catalog_counters",
)
OF_FILES = (
    *("hash", "lhash", "chunks", "chunk_list", "compression", "direct_io"),
    "external_file",
)
OF_LINKS = ("xfsroot.rawlink",)
"""As the original's client lists them, docs/reference/magic-attributes.md;
``user.authz`` and ``user.external_url`` need repositories of their own."""

LARGE = b"".join(b"line %d\n" % number for number in range(300_000))
TREE: Tree = {
    "file": b"hello\n",
    "large": LARGE,
    "empty": b"",
    "link": "$(NOWHERE:-file)",
    "dir": {"leaf": b"leaf\n"},
}

LOOK = (
    "import json, os, sys\n"
    "def read(path, name):\n"
    "    try:\n"
    "        return os.getxattr(path, name, follow_symlinks=False).decode()\n"
    "    except OSError as error:\n"
    "        return error.strerror\n"
    "paths, names = json.loads(sys.argv[1])\n"
    "told = {p: {n: read(p, n) for n in names} for p in paths}\n"
    "listed = {p: os.listxattr(p, follow_symlinks=False) for p in paths}\n"
    "print(json.dumps([told, listed]))\n"
)

Told = tuple[dict[str, dict[str, str]], dict[str, list[str]]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, bytes]]:
    made = publish_tree(
        tmp_path_factory.mktemp("magic"),
        TREE,
        chunk_sizes=ChunkSizes(512, 1024, 2048),
    )
    with serve(made.output) as base_url:
        yield base_url, made.master_key_pem


def look(
    base: tuple[str, bytes], *names: str, settings: str = "", pinned: str = ""
) -> Told:
    paths = ["", "/file", "/large", "/empty", "/link", "/dir", "/dir/leaf"]
    full = [f"/cvmfs/{FQRN}{path}" for path in paths]
    with client_dist(*base, settings=settings) as dist:
        asked = json.dumps([full, names])
        done = run_exec(dist, FQRN + pinned, "--", "python3", "-c", LOOK, asked)
    assert (done.returncode, done.stderr) == (0, "")
    told, listed = json.loads(done.stdout)
    cut = len(full[0])
    return (
        {path[cut:]: values for path, values in told.items()},
        {path[cut:]: values for path, values in listed.items()},
    )


NO_SUCH = "No data available"


def test_each_attribute_of_the_original_has_a_value(base: tuple[str, bytes]) -> None:
    names = [f"user.{name}" for name in (*OF_THE_MOUNT, *OF_FILES)]
    told, _ = look(base, *names, *OF_LINKS)
    for path, values in told.items():
        is_link, is_file = path == "/link", path not in ("", "/link", "/dir")
        for name in OF_THE_MOUNT:
            # Linux allows no "user." attributes on links, whatever we say.
            assert (values[f"user.{name}"] == NO_SUCH) == is_link, (path, name)
        for name in OF_FILES:
            is_there = values[f"user.{name}"] != NO_SUCH
            has_one = is_file and (path != "/large" or "hash" not in name)
            assert is_there == has_one, (path, name)
    assert told["/link"]["xfsroot.rawlink"] == "$(NOWHERE:-file)"
    assert told[""]["user.fqrn"] == FQRN


ALL = {f"user.{name}" for name in OF_THE_MOUNT}


@pytest.mark.parametrize(
    ("settings", "at_root", "elsewhere"),
    [
        ("", True, False),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=always\n", True, True),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=rootonly\n", True, False),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY=never\n", False, False),
        ("CVMFS_HIDE_MAGIC_XATTRS=yes\n", False, False),
        ("CVMFS_HIDE_MAGIC_XATTRS=no\n", True, True),
        (
            "CVMFS_HIDE_MAGIC_XATTRS=yes\nCVMFS_MAGIC_XATTRS_VISIBILITY=rootonly\n",
            *(True, False),
        ),
    ],
)
def test_what_is_listed_is_a_matter_of_configuration(
    base: tuple[str, bytes], settings: str, *, at_root: bool, elsewhere: bool
) -> None:
    told, listed = look(base, "user.fqrn", settings=settings)
    for path, names in listed.items():
        wanted = elsewhere if path else at_root
        if path != "/link":  # the kernel hides "user." of links itself
            assert (set(names) >= ALL) == wanted, path
            assert bool(names) == wanted, path
            assert told[path]["user.fqrn"] == FQRN  # visible or not
        else:
            assert ("xfsroot.rawlink" in names) == wanted
        assert len(names) == len(set(names))
    if elsewhere:
        files = {f"user.{name}" for name in OF_FILES}
        assert set(listed["/file"]) >= files
        assert not set(listed["/dir"]) & files


def test_long_values_come_in_pages(base: tuple[str, bytes]) -> None:
    names = ["user.chunk_list"]
    names += [f"user.chunk_list{end}" for end in ("~?", "~0", "~1", "@1", "~99", "@?")]
    told, _ = look(base, *names)
    pages = told["/large"]
    whole, count, first, second, for_people, beyond, odd = pages.values()
    assert count.startswith("num_pages, ")
    assert int(count.split()[1]) >= 2
    assert whole == first
    assert len(first) == 40_000
    assert first.startswith("hash,offset,size\n")
    assert for_people.split("\n", 1)[1] == second
    assert for_people.startswith("# Access page at idx: 1")
    assert (beyond, odd) == (NO_SUCH, NO_SUCH)


@pytest.mark.parametrize(
    ("gids", "is_told"),
    [("", False), ("1,2", False), (f"5,{ORDINARY_UID}", True)],
)
def test_protected_attributes_are_for_some_groups(
    base: tuple[str, bytes], gids: str, *, is_told: bool
) -> None:
    settings = (
        "CVMFS_XATTR_PROTECTED_XATTRS=user.root_hash,user.hash\n"
        f"CVMFS_XATTR_PRIVILEGED_GIDS={gids}\n"
    )
    told, _ = look(
        base, "user.root_hash", "user.hash", "user.revision", settings=settings
    )
    assert (told["/file"]["user.root_hash"] != NO_SUCH) == is_told
    assert (told["/file"]["user.hash"] != NO_SUCH) == is_told
    assert told["/file"]["user.revision"] == "1"


def test_what_is_no_group_is_refused(base: tuple[str, bytes]) -> None:
    with client_dist(*base, settings="CVMFS_XATTR_PRIVILEGED_GIDS=staff\n") as dist:
        done = run_exec(dist, FQRN, "--", "true")
    assert done.returncode == 2
    assert "which is no group's number" in done.stderr


def test_real_tools_read_them(base: tuple[str, bytes]) -> None:
    for tool in ("getfattr", "attr"):
        if subprocess.run(["which", tool], check=False).returncode != 0:
            pytest.skip(f"there is no {tool} here")
    top = f"/cvmfs/{FQRN}"
    script = (
        f"getfattr -n user.fqrn --only-values {top}; echo;"
        f"attr -q -g fqrn {top}/file; echo;"
        f"getfattr -h -n xfsroot.rawlink --only-values {top}/link; echo;"
        f"getfattr -d {top} 2>/dev/null | grep -c '^user.';"
        f"getfattr -n user.nothing {top} 2>&1"
    )
    with client_dist(*base) as dist:
        done = run_exec(dist, FQRN, "--", "sh", "-c", script)
    fqrn, again, raw, count, *refusal = done.stdout.splitlines()
    assert (fqrn, again.strip(), raw) == (FQRN, FQRN, "$(NOWHERE:-file)")
    assert int(count) >= len(OF_THE_MOUNT)
    assert "No such attribute" in "".join(refusal)


def test_a_tag_is_told_by_its_name(base: tuple[str, bytes], tmp_path: Path) -> None:
    made = publish_tree(tmp_path, TREE, tag="v1")
    with serve(made.output) as base_url:
        by_tag = look((base_url, made.master_key_pem), "user.tag", pinned="@v1")
    assert by_tag[0][""]["user.tag"] == "v1"
    assert look(base, "user.tag")[0][""]["user.tag"] == ""
