"""Tools that people use on files, on a mount: what they say and what they copy.

Each line of the table in docs/reference/tools.md is a test here.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import (
    client_dist,
    give_to_ordinary_user,
    run_exec,
)
from tests.support.published import FQRN, Tree, publish_tree, serve, write_tree

TOP = f"/cvmfs/{FQRN}"
OLD_S, MIDDLE_S, NEW_S = 1_500_000_000, 1_550_000_000, 1_600_000_000
TREE: Tree = {
    "old": b"old\n",
    "new": b"new\n" * 1000,
    "to-old": "old",
    "dir": {"leaf": b"leaf\n", "empty": b""},
    "nested": {".cvmfscatalog": b"", "large": b"0123456789abcdef" * 100_000},
}
LIMIT_MB = 4000


class Place(NamedTuple):
    """A repository on a mount, and where it came from.

    Attributes:
        dist: To mount it with.
        source: What was published.
        scratch: A directory of the user's own.
    """

    dist: Path
    source: Path
    scratch: Path

    def run(self, script: str, *, status: int = 0) -> str:
        """Run a script in a session, and return what it says, errors included."""
        line = f"exec 2>&1; cd {TOP}; {script}"
        environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.scratch),
            "LC_ALL": "C.UTF-8",
            "SCRATCH": str(self.scratch),
            "SOURCE": str(self.source),
        }
        done = run_exec(
            self.dist, FQRN, "--", "sh", "-c", line, environment=environment
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("tools")
    source = home / "tree"
    write_tree(source, TREE)
    (source / "hard-link").hardlink_to(source / "old")
    (source / "dir/leaf").chmod(0o750)
    _make_checkout(source / "checkout")
    for path in (*source.rglob("*"), source):
        if ".git" not in path.parts:
            at_s = NEW_S if path.name == "new" else OLD_S
            os.utime(path, (at_s, at_s), follow_symlinks=False)
    made = publish_tree(home, source)
    settings = f"CVMFS_QUOTA_LIMIT={LIMIT_MB}\n"
    with (
        serve(made.output) as base_url,
        client_dist(base_url, made.master_key_pem, settings=settings) as dist,
    ):
        original = dist.parent / "original"
        subprocess.run(["cp", "-a", source, original], check=True)
        give_to_ordinary_user(original)
        yield Place(dist, original, dist.parent / "tmp")


def _make_checkout(directory: Path) -> None:
    _skip_without("git")
    directory.mkdir()
    (directory / "file").write_text("tracked\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "file"), (*identity, "commit", "-qm", "x")):
        subprocess.run(["git", *words], cwd=directory, check=True)


def _skip_without(tool: str) -> None:
    if shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin") is None:
        pytest.skip(f"there is no {tool} here")


def test_getfattr_reads_and_lists(place: Place) -> None:
    _skip_without("getfattr")
    assert place.run("getfattr -n user.fqrn --only-values old") == FQRN
    told = place.run("getfattr -d .")
    assert f'user.fqrn="{FQRN}"\n' in told
    assert place.run("getfattr -d old") == ""
    told = place.run("getfattr -n user.nothing old", status=1)
    assert told == "old: user.nothing: No such attribute\n"


def test_attr_reads_and_lists(place: Place) -> None:
    _skip_without("attr")
    assert place.run("attr -q -g fqrn old").strip() == FQRN
    assert 'Attribute "fqrn" has a ' in place.run("attr -l .")
    assert place.run("attr -g nothing old", status=1).startswith("attr_get: No data")
    assert "Read-only file system" in place.run("attr -s x -V y old", status=1)


def test_df_shows_the_cache(place: Place) -> None:
    heading, line = place.run("df -k .").splitlines()
    assert heading.split()[0] == "Filesystem"
    name, size, used, free, share, mountpoint = line.split()
    assert (name, mountpoint) == ("cvmfs2", TOP)
    assert int(size) == LIMIT_MB * 1024
    assert abs(int(used) + int(free) - int(size)) <= 1  # of 512 bytes, rounded
    assert int(used) > 0
    assert share.endswith("%")
    assert place.run("df --output=fstype . | tail -1").startswith("fuse")


def test_df_counts_entries(place: Place) -> None:
    line = place.run("df -i .").splitlines()[-1]
    _, all_, used, free, _, _ = line.split()
    found = len(place.run("find . -mindepth 1").splitlines())
    # The root, and the top of the nested catalog once more.
    assert int(all_) == found + 2
    assert int(used) + int(free) == int(all_)


def test_stat_tells_of_the_file_system(place: Place) -> None:
    format_ = "%T %s %S %l %b %c"
    told = place.run(f"stat -f -c '{format_}' old").split()
    assert told[0] in ("fuse", "fuseblk")
    assert told[1:4] == ["512", "512", "255"]
    assert int(told[4]) == LIMIT_MB * 2048


def test_lsattr_has_nothing_to_tell(place: Place) -> None:
    _skip_without("lsattr")
    told = place.run("lsattr old", status=1)
    # Which of them is a matter of the kernel's version.
    assert re.search(r"(Inappropriate ioctl|Operation not supported).* on old", told)


def test_find_compares_times(place: Place) -> None:
    marks = f"touch -d @{MIDDLE_S} $SCRATCH/mark"
    found = place.run(
        f"{marks}; find . -newer $SCRATCH/mark -name '[a-z]*' -maxdepth 1"
    )
    assert set(found.split()) >= {"./new"}
    assert not {"./old", "./to-old", "./dir", "./nested"} & set(found.split())
    assert place.run("find . -newer new -maxdepth 1 -name old") == ""


def test_find_sees_hard_links(place: Place) -> None:
    assert set(place.run("find . -samefile old").split()) == {"./hard-link", "./old"}
    assert place.run("find . -links 2 -type f | wc -l").strip() == "2"


@pytest.mark.parametrize("tool", ["rsync -aH", "cp -a"])
def test_a_copy_is_what_was_published(place: Place, tool: str) -> None:
    name = tool.partition(" ")[0]
    _skip_without(name)
    target = f"$SCRATCH/{name}"
    place.run(f"mkdir {target}; {tool} . {target}/")
    copied = place.scratch / name
    assert _facts(copied) == _facts(place.source)
    assert (copied / "old").samefile(copied / "hard-link")
    assert place.run(f"diff -r --no-dereference . {target}") == ""


def _facts(top: Path) -> dict[str, tuple[object, ...]]:
    """Return what a copy is to keep; directories' times are their tools' business."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = ("dir", oct(status.st_mode))
        else:
            content = path.read_bytes()
            found[name] = ("file", oct(status.st_mode), int(status.st_mtime), content)
    return found


def test_rsync_finds_nothing_to_do_again(place: Place) -> None:
    _skip_without("rsync")
    again = "rsync -a --itemize-changes . $SCRATCH/twice/"
    place.run(f"mkdir $SCRATCH/twice; {again}")
    assert place.run(again) == ""
    # From a copy to the mount, by contents: nothing differs either.
    assert place.run("rsync -acn --itemize-changes $SCRATCH/twice/ .") == ""


def test_diff_compares_trees(place: Place) -> None:
    assert place.run("diff -r --no-dereference . $SOURCE") == ""
    change = "cp -r dir $SCRATCH/other; echo x >> $SCRATCH/other/leaf"
    told = place.run(f"{change}; diff -rq dir $SCRATCH/other", status=1)
    assert re.fullmatch(r"Files dir/leaf and .*/other/leaf differ\n", told)


def test_git_status_is_clean(place: Place) -> None:
    told = place.run(
        "cd checkout && git status --porcelain=v1 --branch && git log -1 --format=%s"
    )
    branch, subject = told.splitlines()
    assert branch.startswith("## ")
    assert subject == "x"


def test_what_would_write_is_refused(place: Place) -> None:
    for script in ("touch x", "rm old", "chmod 0 old", "mv old x", "echo x > old"):
        assert "Read-only file system" in place.run(f"{script}; true")
