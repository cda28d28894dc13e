"""What a file server is told by file: all of it, by the right people, once."""

import json
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvmfsexec.configuration.files import ConfigurationRepository
from cvmfsexec.configuration.locate import ConfigurationRoot
from cvmfsexec.errors import ConfigurationError, FormatError
from cvmfsexec.format.parameters import Parameter
from cvmfsexec.fusemount import handover as handovers
from cvmfsexec.fusemount.handover import Handover, parse

_texts = st.text(st.characters(), max_size=10)


def make(environment: dict[str, str] | None = None) -> Handover:
    return Handover(
        "a.example.org",
        ConfigurationRoot("/dist", ("/own", "/own2"), given_cache="/cache"),
        {"CVMFS_TIMEOUT": Parameter("7", "/dist/etc/cvmfs/default.local")},
        "config.example.org",
        ConfigurationRepository("/cvmfs/config.example.org", "/copy"),
        environment or {},
        1000,
        100,
        0o077,
    )


@given(
    st.dictionaries(_texts, _texts, max_size=3),
    st.sampled_from(["", "\udcff", "é", "\0"]),
)
def test_what_is_written_is_read(environment: dict[str, str], odd: str) -> None:
    handover = make({**environment, "ODD": odd})
    assert parse(handover.dump()) == handover


def test_the_configuration_is_as_it_was_evaluated() -> None:
    configuration = make().configuration
    assert configuration.integer("CVMFS_TIMEOUT", 1) == 7
    assert configuration.source("CVMFS_TIMEOUT").endswith("default.local")
    assert configuration.resolve_path("/cvmfs/config.example.org/x") == "/copy/x"
    assert configuration.resolve_path("/var/lib/cvmfs/x") == "/cache/x"


WRONG: dict[str, object] = {
    "fqrn": "../x",
    "root": ["/dist"],
    "values": {"A": ["1"]},
    "config_repository": 1,
    "repository": ["/a"],
    "environment": {"A": 1},
    "uid": -1,
    "gid": "1",
    "umask": 1.5,
}


@pytest.mark.parametrize("field", WRONG)
def test_a_field_of_another_kind_is_refused(field: str) -> None:
    document = json.loads(make().dump())
    with pytest.raises(FormatError):
        parse(json.dumps({**document, field: WRONG[field]}).encode())
    del document[field]
    with pytest.raises(FormatError):
        parse(json.dumps(document).encode())


@pytest.mark.parametrize("position", range(len(ConfigurationRoot._fields)))
def test_a_root_of_other_things_is_refused(position: int) -> None:
    document = json.loads(make().dump())
    document["root"][position] = 1
    with pytest.raises(FormatError):
        parse(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b'"x"'])
def test_what_is_no_handover_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse(data)


def test_it_is_for_its_user_alone_and_for_one_reader(tmp_path: Path) -> None:
    place = handovers.make_place(str(tmp_path))
    path = handovers.leave(place, make())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o700
    assert handovers.take(path) == make()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match="cannot read"):
        handovers.take(path)


def test_a_file_that_is_far_too_long_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as stream:
        stream.truncate(handovers.HANDOVER_BYTES_MAX + 1)
    with pytest.raises(FormatError, match="too long"):
        handovers.take(str(file))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"):
        handovers.make_place(str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="cannot write"):
        handovers.leave(str(tmp_path / "missing"), make())


def test_what_was_left_yesterday_is_removed(tmp_path: Path) -> None:
    old, new = (handovers.make_place(str(tmp_path)) for _ in range(2))
    handovers.leave(old, make())
    other = tmp_path / "other"
    other.mkdir()
    long_ago_s = time.time() - 2 * 24 * 3600
    for path in (old, other):
        os.utime(path, (long_ago_s, long_ago_s))
    handovers.make_place(str(tmp_path))
    assert not os.path.exists(old)
    assert os.path.exists(new)
    assert other.exists()


def wait_until_gone(place: str) -> None:
    deadline_s = time.monotonic() + 30
    while os.path.exists(place) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not os.path.exists(place)


@pytest.mark.parametrize("is_taken", [False, True])
def test_nothing_stays_when_the_starter_has_ended(
    tmp_path: Path, *, is_taken: bool
) -> None:
    place = handovers.make_place(str(tmp_path))
    path = handovers.leave(place, make())
    if is_taken:
        os.unlink(path)  # as from where the directory itself cannot be removed
    starter = os.fork()
    if not starter:
        try:
            handovers.watch_over(place, is_instance=False)
        finally:
            os._exit(0)
    os.waitpid(starter, 0)
    wait_until_gone(place)


def test_what_was_taken_is_removed_while_the_container_runs(tmp_path: Path) -> None:
    place = handovers.make_place(str(tmp_path))
    path = handovers.leave(place, make())
    handovers.watch_over(place, is_instance=True)
    time.sleep(0.3)
    assert os.path.exists(path)
    os.unlink(path)
    wait_until_gone(place)
