"""Each variable of ``singcvmfs``, by the words that a container program is given.

The container program is a script that prints its words. The repository is real.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cvmfsexec import __version__
from tests.support.published import FQRN, PublishedRepository, publish_tree, serve

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "/images/debian"
_PROGRAM = """#!/bin/sh
[ "$1" != version ] || { echo "$VERSION"; exit; }
for word; do printf '%s\\n' "$word"; done
"""
_SHOWS_NOTE = """#!{python}
import json, sys, urllib.parse
spec = sys.argv[sys.argv.index("--fusemount") + 1]
path = urllib.parse.unquote(spec.split()[2])
print(open(path).read())
"""


class Site(NamedTuple):
    """A user with a dist and a container program.

    Attributes:
        top: All of it.
        published: What can be mounted.
    """

    top: Path
    published: PublishedRepository

    @property
    def programs(self) -> Path:
        return self.top / "bin"

    def program(self, name: str, text: str = _PROGRAM) -> None:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.top / "singcvmfs"), *words],
            env={
                "PATH": f"{self.programs}:/usr/bin:/bin",
                "HOME": str(self.top),
                "TMPDIR": str(self.top / "tmp"),
                "PYTHONPATH": str(ROOT / "src"),
                "CVMFSEXEC_DIST": str(self.top / "dist"),
                "SINGCVMFS_REPOSITORIES": FQRN,
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
            cwd=self.top,
        )

    def words(self, *words: str, **variables: str) -> list[str]:
        """Return what the program is given, if all goes well."""
        done = self.run(*words, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def note(self, **variables: str) -> dict[str, object]:
        """Return what a file server is told."""
        self.program("apptainer", _SHOWS_NOTE.format(python=sys.executable))
        (line,) = self.words("exec", IMAGE, **variables)
        told = json.loads(line)
        assert isinstance(told, dict)
        return told


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), {"hello": b"hello\n"})


@pytest.fixture(scope="module")
def base_url(published: PublishedRepository) -> Iterator[str]:
    with serve(published.output) as url:
        yield url


@pytest.fixture
def site(tmp_path: Path, published: PublishedRepository, base_url: str) -> Site:
    etc = tmp_path / "dist/etc/cvmfs"
    (etc / "keys").mkdir(parents=True)
    (etc / "keys/key.pub").write_bytes(published.master_key_pem)
    (etc / "default.local").write_text(
        f"CVMFS_SERVER_URL={base_url}/@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\n"
        "CVMFS_MAX_RETRIES=0\n"
    )
    for name in ("bin", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "singcvmfs").write_text(
        "from cvmfsexec.cli.singcvmfs_cmd import main\nmain()\n"
    )
    made = Site(tmp_path, published)
    made.program("apptainer")
    return made


def split_mount(words: list[str]) -> list[str]:
    position = words.index("--fusemount")
    return words[position + 1].split()


def test_a_mount_is_added_before_the_users_options(site: Site) -> None:
    words = site.words("-q", "exec", "-e", IMAGE, "ls", "-l")
    assert words[:3] == ["-q", "exec", "--fusemount"]
    assert words[4:] == ["-e", IMAGE, "ls", "-l"]
    program, serve_word, note, fqrn, mountpoint = split_mount(words)
    assert program == f"host:{site.top}/singcvmfs"
    assert serve_word == "--serve"
    assert note.endswith(f"/{FQRN}")
    assert (fqrn, mountpoint) == (FQRN, f"/cvmfs/{FQRN}")


@pytest.mark.parametrize(
    "words",
    [
        ("version",),
        ("instance", "stop", "a"),
        ("instance", "list"),
        ("exec", "instance://a", "ls"),
        ("exec", "--help"),
    ],
)
def test_what_starts_no_container_is_passed_on(
    site: Site, words: tuple[str, ...]
) -> None:
    site.program("apptainer", _PROGRAM.replace("version", "-"))
    assert site.words(*words, SINGCVMFS_REPOSITORIES="") == list(words)


def test_repositories_are_mounted_once_each(site: Site) -> None:
    names = f"{FQRN}, {FQRN},"
    words = site.words("exec", IMAGE, SINGCVMFS_REPOSITORIES=names)
    assert words.count("--fusemount") == 1


def test_the_image_of_the_short_form(site: Site) -> None:
    words = site.words("ls", "-l", SINGCVMFS_IMAGE=IMAGE)
    assert words[0] == "run"
    assert words[-3:] == [IMAGE, "ls", "-l"]


def test_more_options_are_split_at_blanks(site: Site) -> None:
    words = site.words("exec", "-e", IMAGE, SINGCVMFS_SINGOPTS="  --nv -B  /a:/b ")
    assert words[3:] == ["--nv", "-B", "/a:/b", "-e", IMAGE]


def test_the_program_can_be_chosen(site: Site) -> None:
    site.program("mine", "#!/bin/sh\necho mine\n")
    assert site.words("version", SINGCMD="mine") == ["mine"]


def test_singularity_is_the_first_choice(site: Site) -> None:
    site.program("singularity", "#!/bin/sh\necho singularity\n")
    assert site.words("version") == ["singularity"]


@pytest.mark.parametrize("variable", ["APPTAINER_BINDPATH", "SINGULARITY_BINDPATH"])
def test_binds_of_the_user_reach_the_program(site: Site, variable: str) -> None:
    shown = "$APPTAINER_BINDPATH $SINGULARITY_BINDPATH"
    site.program("apptainer", f'#!/bin/sh\necho "{shown}"\n')
    assert site.words("exec", IMAGE, **{variable: "/a:/b"}) == ["/a:/b /a:/b"]


def test_the_cache_and_the_logs_can_be_elsewhere(site: Site) -> None:
    told = site.note(SINGCVMFS_CACHEDIR="cache", SINGCVMFS_LOGDIR=str(site.top / "l"))
    root = told["root"]
    assert isinstance(root, list)
    assert f"{site.top}/cache" in root
    assert f"{site.top}/l" in root
    assert (site.top / "cache" / FQRN).is_dir()
    assert not (site.top / "dist/var").exists()


def test_another_file_can_have_the_settings(site: Site) -> None:
    local = (site.top / "dist/etc/cvmfs/default.local").read_text()
    (site.top / "options").write_text(f"{local}CVMFS_TIMEOUT=17\n")
    values = site.note(SINGCVMFS_OPTSFILE="options")["values"]
    assert isinstance(values, dict)
    assert values["CVMFS_TIMEOUT"] == ["17", f"{site.top}/options"]


def test_debugging_has_a_log_of_its_own(site: Site) -> None:
    values = site.note(SINGCVMFS_LOGLEVEL="debug")["values"]
    assert isinstance(values, dict)
    assert values["CVMFS_DEBUGLOG"][0] == f"{site.top}/log/{FQRN}-debug.log"
    assert "CVMFS_DEBUGLOG" not in (site.note()["values"] or {})  # type: ignore[operator]


def test_file_servers_are_told_who_the_user_is(site: Site) -> None:
    told = site.note(CVMFS_MINE="x")
    assert (told["uid"], told["gid"]) == (os.getuid(), os.getgid())
    environment = told["environment"]
    assert isinstance(environment, dict)
    assert environment["CVMFS_MINE"] == "x"


def test_the_version_is_told(site: Site) -> None:
    assert site.words("-V") == [__version__]


def test_help_tells_all_variables(site: Site) -> None:
    said = "\n".join(site.words("--help"))
    source = (ROOT / "src/cvmfsexec/cli/singcvmfs_cmd.py").read_text()
    reference = (ROOT / "docs/reference/singcvmfs.md").read_text()
    variables = {word.strip("\"',().=") for word in source.split() if "SINGC" in word}
    for variable in (one for one in variables if one.isidentifier()):
        assert variable in said
        assert variable in reference


@pytest.mark.parametrize(
    ("words", "variables", "status", "sentence"),
    [
        ("", {}, 1, "there is no command"),
        ("-c", {}, 1, "option -c needs a value"),
        ("ls", {}, 1, "there is no SINGCVMFS_IMAGE to run it in"),
        ("exec i", {"SINGCVMFS_REPOSITORIES": ""}, 2, "SINGCVMFS_REPOSITORIES is not"),
        ("exec i", {"SINGCVMFS_REPOSITORIES": " , "}, 2, "SINGCVMFS_REPOSITORIES is"),
        ("exec i", {"SINGCVMFS_REPOSITORIES": "../x"}, 2, "not a repository name"),
        ("exec i", {"SINGCVMFS_REPOSITORIES": "short"}, 2, "CVMFS_DEFAULT_DOMAIN"),
        ("exec i", {"SINGCVMFS_REPOSITORIES": "no.example.org"}, 16, "no.example.org:"),
        ("exec i", {"SINGCVMFS_REPOSITORIES": f"{FQRN}@x,{FQRN}"}, 2, "two revisions"),
        ("exec i", {"SINGCVMFS_SERVER": "moon"}, 2, "neither host nor container"),
        ("exec i", {"SINGCVMFS_SERVER": "container"}, 2, "makedist -s -o FILE"),
        ("exec i", {"SINGCVMFS_LOGLEVEL": "loud"}, 2, "the only level is debug"),
        ("exec i", {"SINGCVMFS_OPTSFILE": "/no/file"}, 2, "there is no such file"),
        ("exec i", {"SINGCVMFS_CACHEDIR": "/dev/null"}, 2, "cannot be written to"),
        ("exec i", {"SINGCVMFS_LOGDIR": "/dev/null/x"}, 2, "cannot be written to"),
        ("exec i", {"SINGCVMFS_CACHEIMAGE": "/no/image"}, 2, "No such file"),
        ("exec i", {"SINGCVMFS_CACHEIMAGE": "/etc/passwd"}, 2, "not an ext3 image"),
        ("exec i", {"SINGCMD": "no-such-program"}, 2, "no no-such-program in PATH"),
        ("exec i", {"PATH": "/nowhere"}, 2, "no singularity and no apptainer in PATH"),
        ("exec i", {"CVMFSEXEC_DIST": "/nowhere"}, 2, "no configuration"),
        ("version", {"SINGCMD": "broken"}, 126, "cannot execute"),
        ("--serve", {}, 1, "Usage: singcvmfs --serve"),
        ("--serve a b.c /dev/fd/x -f", {}, 2, "/dev/fd/x is not a descriptor"),
        ("--serve a ../b /dev/fd/3", {}, 2, "not a repository name"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    site: Site, words: str, variables: dict[str, str], status: int, sentence: str
) -> None:
    site.program("broken", "#!/no/such/shell\n")
    done = site.run(*words.split(), **variables)
    assert (done.returncode, done.stdout) == (status, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    if status != 1:
        assert done.stderr.count("\n") == 1


def test_a_place_that_others_can_write_is_not_used(site: Site) -> None:
    private = site.top / f"tmp/cvmfsexec-{os.getuid()}"
    private.mkdir(mode=0o777)
    private.chmod(0o777)
    done = site.run("exec", IMAGE)
    assert done.returncode == 2
    assert "can be changed by other users" in done.stderr
