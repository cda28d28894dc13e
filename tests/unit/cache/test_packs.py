"""Packs: what one process writes, all find; what is torn is passed over."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfsexec.cache import packs
from cvmfsexec.cache.packs import DIRECTORY, INDEX, PACK, Packs, names_in
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.pack_index import RECORD_BYTES
from tests.support.system_calls import count_calls, run_and_die_at

ONE, TWO = b"one object\n", b"another object\n"
NAME, OTHER = ContentHash.of(ONE), ContentHash.of(TWO)


class Node:
    """Processes on one directory; what they do is done in this one."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.now_s = 0.0
        self.directory = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self.all: list[Packs] = []

    def process(self, pack_bytes: int = 1 << 20) -> Packs:
        made = Packs(self.directory, pack_bytes, lambda: self.now_s)
        self.all.append(made)
        return made

    def close(self) -> None:
        for process in self.all:
            process.close()
        os.close(self.directory)

    def files(self, suffix: str) -> list[Path]:
        return sorted((self.top / DIRECTORY).glob(f"*{suffix}"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def content_of(process: Packs, content_hash: ContentHash) -> bytes | None:
    place = process.find(content_hash)
    return None if place is None else process.read(place)


def test_others_find_an_object_when_they_look_again(node: Node) -> None:
    writer, reader = node.process(), node.process()
    assert content_of(reader, NAME) is None
    writer.append(NAME, ONE)
    assert content_of(writer, NAME) == ONE
    assert content_of(reader, NAME) is None
    node.now_s += 2
    assert content_of(reader, NAME) == ONE
    writer.append(OTHER, TWO)
    node.now_s += 2
    assert content_of(reader, OTHER) == TWO


def test_a_neighbour_is_looked_at_without_a_pause(node: Node) -> None:
    writer, reader = node.process(), node.process()
    writer.append(NAME, ONE)
    reader.look_at_neighbours()
    assert content_of(reader, NAME) == ONE
    for number in range(20):
        name = ContentHash(bytes([number]) * 20)
        writer.append(name, TWO)
        reader.look_at_neighbours()
        place = reader.find(name, refresh_s=None)
        assert place is not None
        assert reader.read(place) == TWO


def test_without_neighbours_looking_is_rare(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = node.process()
    alone.append(NAME, ONE)
    alone.look_at_neighbours()
    calls = count_calls(monkeypatch, "open", "stat", "listdir")
    for _ in range(1000):
        node.now_s += 0.02  # twenty seconds of a slow network
        alone.look_at_neighbours()
    assert len(calls) < 25


def test_who_has_met_a_neighbour_finds_its_new_pack_at_once(node: Node) -> None:
    reader = node.process()
    for _ in range(1000):
        node.now_s += 0.02  # so long alone that looking has become rare
        reader.look_at_neighbours()
    node.process().append(NAME, ONE)
    reader.look_at_neighbours(has_met_one=True)
    assert reader.find(NAME, refresh_s=None) is not None


def test_packs_of_other_nodes_are_not_neighbours(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = node.process()
    monkeypatch.setattr(packs, "node_number", lambda: "0" * 8)
    node.process().append(NAME, ONE)
    reader.look_at_neighbours()
    assert reader.find(NAME, refresh_s=None) is None
    assert content_of(reader, NAME) == ONE


def test_each_process_appends_to_a_pack_of_its_own(node: Node) -> None:
    first, second = node.process(), node.process()
    for _ in range(3):
        first.append(NAME, ONE)
        second.append(OTHER, TWO)
    assert len(node.files(PACK)) == len(node.files(INDEX)) == 2
    assert len(names_in(node.directory)) == 2


def test_a_full_pack_is_followed_by_another(node: Node) -> None:
    writer = node.process(pack_bytes=3 * len(ONE))
    hashes = [ContentHash(bytes([number]) * 20) for number in range(8)]
    for content_hash in hashes:
        writer.append(content_hash, ONE)
    assert [len(path.read_bytes()) for path in node.files(PACK)].count(33) == 2
    reader = node.process()
    assert {content_of(reader, content_hash) for content_hash in hashes} == {ONE}


def test_algorithms_have_objects_of_their_own(node: Node) -> None:
    writer = node.process()
    for algorithm in HashAlgorithm:
        writer.append(NAME._replace(algorithm=algorithm), b"%d" % algorithm)
    reader = node.process()
    for algorithm in HashAlgorithm:
        content = content_of(reader, NAME._replace(algorithm=algorithm))
        assert content == b"%d" % algorithm


def test_a_torn_tail_of_the_index_is_passed_over(node: Node) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    writer.append(OTHER, TWO)
    (index,) = node.files(INDEX)
    whole = index.read_bytes()
    for length in range(len(whole)):
        index.write_bytes(whole[:length])
        reader = Packs(node.directory, 1)
        assert content_of(reader, NAME) in (None, ONE)
        assert content_of(reader, OTHER) is None
        reader.close()


def test_bytes_that_did_not_reach_the_disk_are_noticed(node: Node) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    writer.append(OTHER, TWO)
    (pack,) = node.files(PACK)
    pack.write_bytes(ONE + bytes(len(TWO)))
    reader = node.process()
    assert content_of(reader, NAME) == ONE
    assert content_of(reader, OTHER) is None
    pack.write_bytes(ONE[:5])
    assert content_of(node.process(), NAME) is None


def test_a_damaged_record_hides_only_its_object(node: Node) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    writer.append(OTHER, TWO)
    (index,) = node.files(INDEX)
    text = bytearray(index.read_bytes())
    text[RECORD_BYTES + 30] ^= 1
    index.write_bytes(text)
    reader = node.process()
    assert content_of(reader, NAME) is None
    assert content_of(reader, OTHER) == TWO


def test_a_removed_object_is_gone_for_all_until_it_is_stored_anew(node: Node) -> None:
    writer, remover = node.process(), node.process()
    writer.append(NAME, ONE)
    place = remover.find(NAME)
    assert place is not None
    remover.remove(place)
    assert remover.find(NAME) is None
    assert node.process().find(NAME) is None
    remover.append(NAME, ONE)
    assert content_of(remover, NAME) == ONE


def test_a_pack_that_was_removed_is_read_by_who_has_it_open(node: Node) -> None:
    writer, reader = node.process(), node.process()
    writer.append(NAME, ONE)
    place = reader.find(NAME)
    assert place is not None
    assert reader.read(place) == ONE
    for path in node.files(""):
        path.unlink()
    assert reader.read(place) == ONE
    late = node.process()
    assert late.find(NAME) is None
    # Who appends to it finds out, and begins another one.
    node.now_s += 2
    assert writer.find(OTHER) is None
    writer.append(OTHER, TWO)
    assert content_of(node.process(), OTHER) == TWO


def test_other_files_among_packs_are_left_alone(node: Node) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    for name in ("0123.index", "x" * 16 + INDEX, "f" * 16 + INDEX, "notes", "a" * 16):
        (node.top / DIRECTORY / name).write_bytes(b"something else")
    (node.top / DIRECTORY / ("e" * 16 + INDEX)).mkdir()
    assert content_of(node.process(), NAME) == ONE


def test_a_record_that_points_out_of_its_pack_is_no_object(node: Node) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    place = writer.find(NAME)
    assert place is not None
    for change in (
        place.record._replace(offset=1 << 40),
        place.record._replace(size_bytes=1 << 40),
        place.record._replace(size_bytes=len(ONE) + 1),
    ):
        assert writer.read(place._replace(record=change)) is None


@settings(deadline=None)
@given(st.dictionaries(st.binary(min_size=20, max_size=20), st.binary(max_size=99)))
def test_what_was_appended_is_found(objects: dict[bytes, bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as top:
        node = Node(Path(top))
        writer = node.process(pack_bytes=200)
        for digest, content in objects.items():
            writer.append(ContentHash(digest), content)
        reader = node.process()
        for digest, content in objects.items():
            assert content_of(reader, ContentHash(digest)) == content
        node.close()


def test_who_dies_at_any_moment_leaves_whole_objects(tmp_path: Path) -> None:
    def work(top: Path) -> None:
        node = Node(top)
        writer = node.process(pack_bytes=20)
        writer.append(NAME, ONE)
        writer.append(OTHER, TWO)

    for number in range(1, 100):
        top = tmp_path / str(number)
        top.mkdir()
        has_died = run_and_die_at(number, partial(work, top))
        node = Node(top)
        reader = node.process()
        for content_hash, content in ((NAME, ONE), (OTHER, TWO)):
            assert content_of(reader, content_hash) in (None, content)
        reader.append(NAME, ONE)
        assert content_of(node.process(), NAME) == ONE
        node.close()
        if not has_died:
            return
    pytest.fail("it never came to an end")
