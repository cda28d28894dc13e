"""What a real web server sees of who asks, where the site wants that; else nothing."""

from collections.abc import Iterator

import pytest

from tests.support.commands import client_dist, run_exec
from tests.support.nginx import Nginx
from tests.support.published import FQRN, PublishedRepository, Tree, publish_tree

pytestmark = pytest.mark.kernel

HOSTILE = "name\r\nX-Evil: yes\r\n\r\n%20 ä"
TREE: Tree = {
    "nested": {".cvmfscatalog": b"", "file": b"nested\n", "ahead": b"ahead\n"},
    HOSTILE: b"hostile\n",
    "plain": b"plain\n",
}
_FIELDS = ("cvmfs_info", "x_cvmfs_pid", "x_cvmfs_uid", "x_cvmfs_gid", "x_cvmfs_site")
_FORMAT = "|".join(f"$http_{name}" for name in (*_FIELDS, "x_evil"))

USER_ERROR = 2

Seen = tuple[str, ...]
"""Values of the fields, and of one that is never sent."""


class ListeningNginx(Nginx):
    """Writes down what it is told."""

    def configure(self) -> None:
        """See ``ServerProcess``."""
        super().configure()
        file = self.directory / "nginx.conf"
        logs = (
            f"log_format told '$request_uri|{_FORMAT}';\n"
            f"  access_log {self.directory}/told.log told;\n  default_type"
        )
        file.write_text(file.read_text().replace("default_type", logs, 1))

    def told(self) -> dict[str, Seen]:
        """Return what was told about each object."""
        lines = (line.strip().split("|") for line in self.lines("told.log"))
        return {path: tuple(values) for path, *values in lines if "/data/" in path}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> PublishedRepository:
    return publish_tree(tmp_path_factory.mktemp("published"), TREE)


@pytest.fixture
def server(repository: PublishedRepository) -> Iterator[ListeningNginx]:
    with ListeningNginx(repository.output) as server:
        yield server


def told_of(
    server: ListeningNginx, repository: PublishedRepository, settings: str, job: str
) -> tuple[list[str], list[Seen]]:
    """Run a job; return what it says, and what the server is told of each object."""
    with client_dist(server.url, repository.master_key_pem, settings=settings) as dist:
        done = run_exec(dist, FQRN, "--", "sh", "-c", f"cd /cvmfs/{FQRN} && {job}")
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), list(server.told().values())


def test_files_and_readers_are_told(
    server: ListeningNginx, repository: PublishedRepository
) -> None:
    settings = (
        "CVMFS_READ_AHEAD=no\nCVMFS_SEND_INFO_HEADER=yes\nCVMFS_HTTP_TRACING=yes\n"
        "CVMFS_HTTP_TRACING_HEADERS='site:batch 7'\n"
    )
    job = "echo $$ $(id -u) $(id -g) && exec cat nested/file name* plain"
    (pid, uid, gid, *content), seen = told_of(server, repository, settings, job)
    assert content == ["nested", "hostile", "plain"]
    who = (pid, uid, gid, "batch 7", "-")
    by_info = {info: rest for info, *rest in seen}
    for info in ("/nested/file", "/plain"):
        assert tuple(by_info[info]) == who
    escaped = "/name%0D%0AX-Evil:%20yes%0D%0A%0D%0A%2520%20%C3%A4"
    assert tuple(by_info[escaped]) == who
    nested = by_info["file%20catalog%20at%20/nested"]
    assert nested[1:] == [uid, gid, "batch 7", "-"]
    # Before there was a payload there was nobody who waited.
    for info in ("file%20catalog%20at%20/", "certificate"):
        assert by_info[info] == ["-", "-", "-", "batch 7", "-"]


def test_what_is_fetched_ahead_is_for_nobody(
    server: ListeningNginx, repository: PublishedRepository
) -> None:
    settings = "CVMFS_HTTP_TRACING=yes\n"
    _, seen = told_of(server, repository, settings, "cat nested/* plain >/dev/null")
    assert {info for info, *_ in seen} == {"-"}
    assert {site for *_, site, _ in seen} == {"-"}
    asked = [(pid, uid) for _, pid, uid, *_ in seen]
    assert all((pid == "-") == (uid == "-") for pid, uid in asked)


def test_nothing_is_told_unless_it_is_wanted(
    server: ListeningNginx, repository: PublishedRepository
) -> None:
    settings = "CVMFS_HTTP_TRACING_HEADERS='site:here'\n"
    _, seen = told_of(server, repository, settings, "cat plain >/dev/null")
    assert seen
    assert {value for values in seen for value in values} == {"-"}


def test_headers_that_are_none_are_refused(
    server: ListeningNginx, repository: PublishedRepository
) -> None:
    settings = "CVMFS_HTTP_TRACING=yes\nCVMFS_HTTP_TRACING_HEADERS='a:b|x-y:z'\n"
    with client_dist(server.url, repository.master_key_pem, settings=settings) as dist:
        done = run_exec(dist, FQRN, "--", "true")
    assert done.returncode == USER_ERROR
    assert "CVMFS_HTTP_TRACING_HEADERS" in done.stderr
    assert "is not a list of name:value" in done.stderr
    assert "Traceback" not in done.stderr
