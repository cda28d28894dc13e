"""What a mount answers, command by command, in the words of the original."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cvmfsexec import __version__
from cvmfsexec.cache.directory import DirectoryStore
from cvmfsexec.client.assembly import Client
from cvmfsexec.client.mount_attributes import NoFaults
from cvmfsexec.client.talk_answers import TalkAnswers, TalkSubject
from cvmfsexec.configuration.evaluate import evaluate
from cvmfsexec.errors import CacheError
from cvmfsexec.format.talk_message import TALK_COMMANDS
from tests.support.clients import open_client
from tests.support.configuration import make_dist
from tests.support.published import FQRN, Tree, publish_tree
from tests.support.system_calls import fail_calls

TREE: Tree = {
    "hello": b"hello\n",
    "with blank": b"blank\n",
    "link": "hello",
    "nested": {".cvmfscatalog": b"", "leaf": b"leaf\n", "deep": {".cvmfscatalog": b""}},
}
PROXIES = "http://user:secret@127.0.0.1:1|http://127.0.0.2:1;http://127.0.0.3:1;DIRECT"
PARAMETERS: dict[str, Any] = {
    "CVMFS_HTTP_PROXY": PROXIES,
    "CVMFS_FALLBACK_PROXY": "",
    "CVMFS_TIMEOUT": "7",
    "CVMFS_TIMEOUT_DIRECT": "0",
    "CVMFS_QUOTA_LIMIT": "4000",
    "CVMFS_EXTERNAL_URL": "http://e.example.org",
}

Ask = Callable[[str], str]


class Forgetting:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made = publish_tree(tmp_path, TREE, tag="v1", ttl_s=600)
    here = f"file://{made.output}"
    servers = f"{here}/@fqrn@;{here}/./@fqrn@"
    with open_client(
        tmp_path, made, here, CVMFS_SERVER_URL=servers, **PARAMETERS
    ) as opened:
        yield opened


class CountingServer:
    requests: ClassVar = {"LOOKUP": 3}
    faults = NoFaults()
    latencies: tuple[int, ...] = ()


@pytest.fixture
def forgetting() -> Forgetting:
    return Forgetting()


@pytest.fixture
def ask(client: Client, tmp_path: Path, forgetting: Forgetting) -> Ask:
    root = make_dist(tmp_path / "other", {"default.local": "CVMFS_X='a b'\n"})
    parameters = evaluate(FQRN, root, None, os.environ)
    board = client.gauges(CountingServer())
    subject = TalkSubject(client, parameters, str(tmp_path), board, forgetting)
    answers = TalkAnswers(subject)
    return lambda text: answers.answer(text.encode()).decode()


DIGITS = r"\d+"
SIZE = rf"Current cache size is {DIGITS}MB \({DIGITS} Bytes\), pinned: {DIGITS}MB "


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("tracebuffer flush", "OK"),
        ("cache instance", "Cache: DirectoryStore\nDirectory: .*\nWorkspace: .*"),
        ("cache size", SIZE + rf"\({DIGITS} Bytes\)"),
        ("cache list catalogs", rf"file catalog at {FQRN}:/ \([0-9a-f]{{40}}\)"),
        ("cache limit get", "4000"),
        ("cache limit set 2000", "OK"),
        ("cache limit set 999", r"New limit too low \(minimum 1000\)"),
        ("cache limit set much", "Limit not reset"),
        ("cleanup 4000", "OK"),
        ("cleanup 0", r"Not fully cleaned \(there might be pinned chunks\)"),
        ("cleanup all", "Usage: cleanup <MB>"),
        ("cleanup rate 60", DIGITS),
        ("cleanup rate x", "Usage: cleanup rate <period in mn>"),
        ("evict /hello", "OK"),
        ("evict /with blank", "OK"),
        ("evict /link", "No such regular file"),
        ("evict /../hello", "No such regular file"),
        ("evict /nothing", "No such regular file"),
        ("pin /nested/leaf", "OK"),
        ("pin /nothing", "No such regular file or pinning failed"),
        ("pin /nested", "No such regular file or pinning failed"),
        ("device id", rf"{DIGITS}:{DIGITS}"),
        ("remount", "Catalog up to date"),
        ("remount sync", "Catalog up to date"),
        ("revision", "1"),
        ("max ttl info", "unset"),
        ("max ttl set 5", "OK"),
        ("max ttl set soon", "Usage: max ttl set <minutes>"),
        ("nameserver get", r"DNS server not set\."),
        ("host probe geo", "Failed"),
        ("host switch", "OK"),
        ("external host switch", "OK"),
        ("host set http://a.example.org/x", "OK"),
        ("host set ftp://a", r"Failed \(.*\)"),
        ("external host info", r"  \[0\] http://e\.example\.org \(unprobed\)\n.*"),
        ("proxy rebalance", "OK"),
        ("proxy group switch", "OK"),
        ("proxy set http://p:1", "OK"),
        ("proxy set :::", "Failed, no valid proxies"),
        ("proxy set ;", "Failed, no valid proxies"),
        ("external proxy set DIRECT", "OK"),
        ("proxy fallback http://f:1", "OK"),
        ("proxy fallback auto", "Failed, no valid proxies"),
        ("timeout info", "Timeout with proxy: 7s\nTimeout without proxy: no timeout"),
        ("timeout set 3 4", "OK"),
        ("timeout set 3", "Usage: timeout set <proxy> <direct>"),
        ("open catalogs", "-> /"),
        ("parameters", r"(?s)CVMFS_NFILES=.*\nCVMFS_X='a b'    # from .*"),
        ("pid", str(os.getpid())),
        ("reset error counters", "OK"),
        (
            "version",
            rf"{re.escape(__version__)} \(CernVM-FS Fuse Module\)\n.* \(Loader\)",
        ),
        ("version patchlevel", "0"),
        ("attribute fqrn", re.escape(FQRN)),
        ("attribute nothing", "No such attribute"),
        ("attribute statfs", r"\d+(,\d+){3}"),
        ("evict", "Usage: evict <arg>"),
        ("host set", "Usage: host set <arg>"),
        ("nonsense", "unknown command"),
        ("", "unknown command"),
        ("hotpatch history", "hotpatch history does not apply: .*"),
        ("chroot abc", "chroot does not apply: .*"),
    ],
)
def test_a_command_has_the_answer_of_the_original(
    ask: Ask, command: str, wanted: str
) -> None:
    answer = ask(command)
    assert answer.endswith("\n")
    assert re.fullmatch(wanted, answer[:-1]), answer


@pytest.mark.parametrize("command", sorted(TALK_COMMANDS))
def test_every_command_has_an_answer(ask: Ask, command: str) -> None:
    with_argument = f"{command} x" if TALK_COMMANDS[command] else command
    for text in (command, with_argument):
        answer = ask(text)
        assert answer.endswith("\n") or not answer
        assert "unknown command" not in answer
        assert "internal error" not in answer
        assert "secret" not in answer or command == "parameters"


def test_a_file_can_be_pinned_and_evicted(ask: Ask, client: Client) -> None:
    location = client.lookup.find(b"/nested/leaf")
    assert location is not None
    name = str(location.entry.content_hash)
    assert name not in ask("cache list")
    assert ask("pin /nested/leaf") == "OK\n"
    assert name in ask("cache list").split()
    assert name in ask("cache list pinned").split()
    assert ask("evict /nested/leaf") == "OK\n"
    assert name not in ask("cache list").split()


def test_catalogs_are_listed_as_they_are_opened(ask: Ask, client: Client) -> None:
    assert client.lookup.find(b"/nested/deep/.cvmfscatalog") is not None
    assert ask("open catalogs") == "-> /\n    -> /nested\n        -> /nested/deep\n"
    assert f"file catalog at {FQRN}:/nested/deep (" in ask("cache list catalogs")


def test_limits_hold_from_now_on(ask: Ask, client: Client) -> None:
    ask("cache limit set 2000")
    assert ask("cache limit get") == "2000\n"
    ask("max ttl set 5")
    assert ask("max ttl info") == "5 minutes\n"
    assert client.updates.max_ttl_s == 300
    ask("max ttl set 0")
    assert ask("max ttl info") == "unset\n"


def test_servers_can_be_changed(ask: Ask, client: Client) -> None:
    first, second = client.http.routes.settings.servers
    assert ask("host info") == (
        f"  [0] {first} (unprobed)\n  [1] {second} (unprobed)\nActive host 0: {first}\n"
    )
    ask("host switch")
    assert f"Active host 1: {second}\n" in ask("host info")
    assert ask("host probe") == "OK\n"
    assert re.search(r"\[0\] .* \(\d+ ms\)\n", ask("host info"))
    ask("host set http://a.example.org/@fqrn@")
    assert ask("host info") == (
        f"  [0] http://a.example.org/{FQRN} (unprobed)\n"
        f"Active host 0: http://a.example.org/{FQRN}\n"
    )


def test_a_server_that_does_not_answer_is_down(ask: Ask) -> None:
    ask("host set file:///nonexistent/@fqrn@")
    ask("host probe")
    assert "(host down)" in ask("host info")


def test_proxies_can_be_changed(ask: Ask) -> None:
    # Where all servers are directories there are none.
    assert ask(f"proxy set {PROXIES}") == "OK\n"
    told = ask("proxy info").splitlines()
    assert told[:4] == [
        "Load-balance groups:",
        "[0] http://127.0.0.1:1, http://127.0.0.2:1",
        "[1] http://127.0.0.3:1",
        "[2] DIRECT",
    ]
    ask("proxy group switch")
    assert "Active proxy: [1] http://127.0.0.3:1\n" in ask("proxy info")
    ask("proxy set http://127.0.0.9:2;DIRECT")
    ask("proxy fallback http://127.0.0.8:2")
    assert ask("proxy info").endswith("First fallback group: [2]\n")
    assert "[2] http://127.0.0.8:2\n" in ask("proxy info")


def test_a_name_is_told_beside_its_addresses(ask: Ask) -> None:
    ask("proxy set http://localhost:3128")
    told = ask("proxy info")
    assert re.search(r"\[0\] http://127\.0\.0\.1:3128 \(localhost, \+\d+[hms]\)", told)
    ask("proxy set http://nowhere.invalid:3128")
    assert "(:unresolved:, +0s)" in ask("proxy info")


def test_timeouts_can_be_changed(ask: Ask, client: Client) -> None:
    ask("timeout set 3 0")
    assert ask("timeout info") == (
        "Timeout with proxy: 3s\nTimeout without proxy: no timeout\n"
    )
    assert client.http.routes.settings.timeout_s == 3


def test_errors_are_forgotten(ask: Ask, forgetting: Forgetting) -> None:
    ask("reset error counters")
    assert forgetting.count == 1


def test_affairs_are_counted(ask: Ask) -> None:
    told = ask("internal affairs")
    assert "Raw Counters:\n" in told
    assert "fuse.n_lookup|3|" in told


def test_what_fails_is_told_in_a_sentence(
    ask: Ask, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: bytes) -> None:
        raise CacheError("no descriptors left")

    monkeypatch.setattr(client.lookup, "find", refuse)
    assert ask("evict /hello") == "Failed (no descriptors left)\n"


@pytest.mark.parametrize(
    "command", ["pin /hello", "evict /hello", "cache list", "cache list pinned"]
)
def test_a_cache_that_is_away_is_told_in_a_sentence(
    ask: Ask, client: Client, command: str
) -> None:
    assert isinstance(client.store, DirectoryStore)
    path = Path(client.store.path)
    path.rename(path.with_name("away"))
    sentence = f"Failed (cache directory {path}: No such file or directory)\n"
    assert ask(command) == sentence


def test_what_cannot_be_removed_is_not_said_to_be(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask("pin /nested/leaf") == "OK\n"
    fail_calls(monkeypatch, "unlink", errno.EROFS)
    wanted = r"Failed \(cache directory .*: Read-only file system\)\n"
    assert re.fullmatch(wanted, ask("evict /nested/leaf"))
