"""Packs: what one process writes, all find; what is torn is passed over."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvmfsexec.cache import pack_lookout, pack_writer, packs
from cvmfsexec.cache.pack_listing import names_in
from cvmfsexec.cache.pack_places import Place
from cvmfsexec.cache.pack_writer import DIRECTORY, INDEX, PACK
from cvmfsexec.cache.packs import Packs
from cvmfsexec.errors import CacheError
from cvmfsexec.format.digest import ContentHash, HashAlgorithm
from cvmfsexec.format.pack_index import RECORD_BYTES, Record, RecordKind
from tests.support.descriptors import descriptor_count, descriptors_below
from tests.support.network_files import files_of_a_server
from tests.support.system_calls import count_calls, fail_calls, run_and_die_at

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
    reader.lookout.look_at_neighbours()
    assert content_of(reader, NAME) == ONE
    for number in range(20):
        name = ContentHash(bytes([number]) * 20)
        writer.append(name, TWO)
        reader.lookout.look_at_neighbours()
        place = reader.find(name, looks=False)
        assert place is not None
        assert reader.read(place) == TWO


def test_without_neighbours_looking_is_rare(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = node.process()
    alone.append(NAME, ONE)
    alone.lookout.look_at_neighbours()
    calls = count_calls(monkeypatch, "open", "stat", "listdir")
    for _ in range(1000):
        node.now_s += 0.02  # twenty seconds of a slow network
        alone.lookout.look_at_neighbours()
    assert len(calls) < 25


def test_who_has_met_a_neighbour_finds_its_new_pack_at_once(node: Node) -> None:
    reader = node.process()
    for _ in range(1000):
        node.now_s += 0.02  # so long alone that looking has become rare
        reader.lookout.look_at_neighbours()
    node.process().append(NAME, ONE)
    reader.lookout.look_at_neighbours(has_met_one=True)
    assert reader.find(NAME, looks=False) is not None


def test_packs_that_were_made_in_the_same_tick_are_all_found(node: Node) -> None:
    """A directory's time of change has milliseconds, in which much is made."""
    reader = node.process()
    node.process().append(NAME, ONE)
    reader.lookout.look_at_neighbours(has_met_one=True)
    changed = (node.top / DIRECTORY).stat()
    node.process().append(OTHER, TWO)
    times = (changed.st_atime_ns, changed.st_mtime_ns)
    os.utime(node.top / DIRECTORY, ns=times)
    node.now_s += 0.01
    reader.lookout.look_at_neighbours(has_met_one=True)
    assert reader.find(OTHER, looks=False) is not None


def test_packs_of_other_nodes_are_not_neighbours(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = node.process()
    monkeypatch.setattr(packs, "node_number", lambda: "0" * 8)
    node.process().append(NAME, ONE)
    reader.lookout.look_at_neighbours()
    assert reader.find(NAME, looks=False) is None
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
    assert remover.remove(NAME) == [place]
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


@pytest.mark.parametrize("torn", [0, -1], ids=["first", "last"])
def test_one_of_two_copies_is_found_however_their_packs_are_called(
    node: Node, torn: int
) -> None:
    """Two nodes have fetched it, and a crash has torn one of the copies."""
    one, two = node.process(), node.process()
    one.append(NAME, ONE)
    two.append(NAME, ONE)
    packs_of_both = node.files(PACK)
    packs_of_both[torn].write_bytes(bytes(len(ONE)))
    reader = node.process()
    found = reader.find(NAME)
    assert found is not None
    if reader.read(found) is None:
        reader.forget(found)
    assert content_of(reader, NAME) == ONE


@pytest.mark.parametrize("_attempt", range(8))
def test_what_was_removed_and_stored_anew_is_found_by_whoever_comes(
    node: Node, _attempt: int
) -> None:
    """Whatever the names of the packs, and so the order in which they are read."""
    writer, remover = node.process(), node.process()
    writer.append(NAME, ONE)
    assert remover.find(NAME) is not None
    remover.remove(NAME)
    assert node.process().find(NAME) is None
    remover.append(NAME, ONE)
    assert content_of(node.process(), NAME) == ONE
    node.now_s += 3
    assert content_of(writer, NAME) == ONE


def test_an_empty_object_can_be_removed_and_stored_anew(node: Node) -> None:
    writer = node.process()
    for _ in range(3):
        writer.append(NAME, b"")
        assert content_of(node.process(), NAME) == b""
        writer.remove(NAME)
        assert node.process().find(NAME) is None


def test_so_can_one_that_was_the_last_of_its_pack(node: Node) -> None:
    for _ in range(3):
        process = Packs(node.directory, 1 << 20)
        process.append(NAME, b"")
        process.close()
        assert content_of(node.process(), NAME) == b""
        process = Packs(node.directory, 1 << 20)
        assert process.find(NAME) is not None
        process.remove(NAME)
        process.close()
        assert node.process().find(NAME) is None
    assert len(node.files(PACK)) == 1


def test_processes_one_after_the_other_share_a_pack(node: Node) -> None:
    hashes = [ContentHash(bytes([number]) * 20) for number in range(10)]
    for content_hash in hashes:
        process = Packs(node.directory, 1 << 20)
        process.append(content_hash, ONE)
        process.close()
    assert len(node.files(INDEX)) == len(node.files(PACK)) == 1
    reader = node.process()
    assert {content_of(reader, content_hash) for content_hash in hashes} == {ONE}


def test_who_goes_on_with_a_pack_writes_over_what_was_torn(node: Node) -> None:
    dead = Packs(node.directory, 1 << 20)
    dead.append(NAME, ONE)
    dead.close()
    (index,) = node.files(INDEX)
    for torn in (b"x" * 10, bytes(RECORD_BYTES), b"x" * (3 * RECORD_BYTES + 1)):
        whole = index.read_bytes()
        index.write_bytes(whole + torn)
        early = node.process()
        assert content_of(early, NAME) == ONE
        heir = Packs(node.directory, 1 << 20)
        heir.append(OTHER, TWO)
        heir.close()
        node.now_s += 5
        assert content_of(early, OTHER) == TWO
        assert content_of(node.process(), OTHER) == TWO
        index.write_bytes(whole)


def test_a_pack_of_the_living_or_of_another_node_is_left_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.process().append(NAME, ONE)
    other = Packs(node.directory, 1 << 20)
    monkeypatch.setattr(other, "_node", "0" * 8)
    other.append(NAME, ONE)
    other.close()
    node.process().append(OTHER, TWO)
    assert len(node.files(PACK)) == 3


def test_without_addresses_nobody_takes_a_pack_for_left(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(pack_writer, "hold_address", refuse)
        node.process().append(NAME, ONE)
    node.process().append(OTHER, TWO)
    assert len(node.files(PACK)) == 2


def test_a_pack_that_was_deleted_under_its_writer_is_left(node: Node) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    for suffix in (PACK, INDEX):
        (path,) = node.files(suffix)
        path.unlink()
        node.now_s += 3
        assert writer.find(ContentHash.of(b"missing")) is None
        writer.append(OTHER, TWO)
        assert content_of(node.process(), OTHER) == TWO
        for path in node.files(""):
            path.unlink()
        node.now_s += 3
        assert writer.find(ContentHash.of(b"missing")) is None
        writer.append(NAME, ONE)


def test_a_neighbour_is_looked_at_whatever_the_clock_of_the_files_says(
    node: Node,
) -> None:
    writer, reader = node.process(), node.process()
    writer.append(NAME, ONE)
    reader.lookout.look_at_neighbours()
    for number in range(5):
        name = ContentHash(bytes([number]) * 20)
        writer.append(name, TWO)
        for path in node.files(INDEX):
            os.utime(path, (10**9, 10**9))  # the file server is years behind
        reader.lookout.look_at_neighbours()
        assert reader.find(name, looks=False) is not None
    node.now_s += 1000
    writer.append(OTHER, TWO)
    reader.lookout.look_at_neighbours(has_met_one=True)
    assert reader.find(OTHER, looks=False) is not None


def test_removed_packs_are_not_held_on_to(node: Node) -> None:
    writer, reader = node.process(), node.process()
    writer.append(NAME, ONE)
    assert content_of(reader, NAME) == ONE
    writer.close()
    for path in node.files(""):
        path.unlink()
    node.now_s += 3
    assert not reader.has(OTHER)
    assert not reader.has(NAME)
    assert not descriptors_below(node.top / DIRECTORY)


def test_packs_that_do_not_grow_are_rarely_looked_at(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        other = Packs(node.directory, 1)
        monkeypatch.setattr(other, "_node", f"{number:08x}")
        other.append(NAME, ONE)
        other.close()
    reader = node.process()
    assert content_of(reader, NAME) == ONE
    calls = count_calls(monkeypatch, "stat", "open")
    for _ in range(600):
        node.now_s += 1
        assert reader.find(OTHER) is None
    assert len(calls) < 600


def test_neighbours_at_work_are_read_without_asking_for_names(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers, reader = [node.process() for _ in range(3)], node.process()
    for writer in writers:
        writer.append(NAME, ONE)
    reader.lookout.look_at_neighbours()
    calls = count_calls(monkeypatch, "stat", "open", "listdir")
    for number in range(90):
        name = ContentHash(bytes([number]) * 20)
        writers[number % 3].append(name, TWO)
        reader.lookout.look_at_neighbours()
        assert reader.find(name, looks=False) is not None
    assert len(calls) <= 3


def test_more_neighbours_at_work_than_may_be_kept_open_are_all_found(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_lookout, "ACTIVE_MAX", 2)
    writers, reader = [node.process() for _ in range(5)], node.process()
    before = descriptor_count()
    names = [ContentHash(bytes([number]) * 20) for number in range(20)]
    for number, name in enumerate(names):
        writers[number % 5].append(name, TWO)
        reader.lookout.look_at_neighbours()
    assert descriptor_count() - before <= 5 * 3 + 2  # also an address for each writer
    node.now_s += pack_lookout.REFRESH_S
    assert all(reader.find(name) for name in names)


def test_packs_that_neighbours_have_left_are_rarely_looked_at(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cost the file server nothing for each object that is fetched."""
    for writer in [node.process() for _ in range(6)]:
        writer.append(NAME, ONE)
    for writer in node.all:
        writer.close()
    reader = node.process()
    assert content_of(reader, NAME) == ONE
    calls = count_calls(monkeypatch, "stat", "open", "pread")
    for _ in range(1000):
        reader.lookout.look_at_neighbours()
    assert len(calls) <= 3


def test_who_goes_on_with_a_left_pack_is_soon_noticed(node: Node) -> None:
    """However rarely that was looked at."""
    first = Packs(node.directory, 1 << 20)
    first.append(NAME, ONE)
    first.close()
    reader = node.process()
    for _ in range(20):
        node.now_s += 700
        assert content_of(reader, NAME) == ONE
        assert reader.find(OTHER) is None
    heir = node.process()
    heir.append(OTHER, TWO)
    assert len(node.files(PACK)) == 1
    node.now_s += pack_lookout.REFRESH_MAX_S
    assert content_of(reader, OTHER) == TWO


def test_packs_of_other_nodes_are_looked_at_the_more_rarely_the_older_they_are(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, age_s in enumerate((0, 3600)):
        other = Packs(node.directory, 1 << 20)
        monkeypatch.setattr(other, "_node", f"{number:08x}")
        other.append(NAME, ONE)
        other.close()
        for path in node.files(INDEX):
            if path.name.startswith(f"{number:08x}"):
                os.utime(path, (10**9 - age_s, 10**9 - age_s))
    reader = node.process()
    assert reader.find(OTHER) is None
    asked = fail_calls(monkeypatch, "stat", errno.EIO)
    for _ in range(200):
        node.now_s += pack_lookout.REFRESH_S
        assert reader.find(OTHER) is None
    paths = [str(arguments[0]) for arguments in asked]
    assert sum(DIRECTORY + "/00000000" in path for path in paths) > 2
    assert not [path for path in paths if DIRECTORY + "/00000001" in path]


def test_a_pack_of_the_future_does_not_hide_who_is_at_work(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [node.process(), node.process()]
    for number, other in enumerate(others):
        monkeypatch.setattr(other, "_node", f"{number:08x}")
        other.append(NAME, ONE)
    for path in node.files(INDEX):
        if path.name.startswith("00000000"):
            os.utime(path, (10**11, 10**11))
    reader = node.process()
    assert content_of(reader, NAME) == ONE
    others[1].append(OTHER, TWO)
    node.now_s += pack_lookout.IDLE_PAUSE_MAX_S
    assert content_of(reader, OTHER) == TWO
    for number in range(5):
        name = ContentHash(bytes([number]) * 20)
        others[1].append(name, ONE)
        node.now_s += pack_lookout.REFRESH_S
        assert content_of(reader, name) == ONE


def test_who_finds_nothing_new_looks_ever_less_often(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = node.process()
    alone.append(NAME, ONE)
    calls = count_calls(monkeypatch, "listdir")
    for _ in range(80):
        node.now_s += 1
        assert alone.find(OTHER) is None
    assert len(calls) <= 3 + 80 / pack_lookout.REFRESH_MAX_S
    other = node.process()
    monkeypatch.setattr(other, "_node", "0" * 8)
    other.append(OTHER, TWO)
    node.now_s += pack_lookout.REFRESH_MAX_S
    assert content_of(alone, OTHER) == TWO
    # While others add to their packs, they are followed.
    for number in range(5):
        name = ContentHash(bytes([number]) * 20)
        other.append(name, ONE)
        node.now_s += pack_lookout.REFRESH_S
        assert content_of(alone, name) == ONE


def test_without_descriptors_no_pack_is_taken_for_lost(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    for call in ("open", "dup"):
        place = writer.find(NAME)
        assert place is not None
        with monkeypatch.context() as patch:
            fail_calls(patch, call, errno.EMFILE)
            with pytest.raises(CacheError, match="Too many open files"):
                writer.read(place)
        assert content_of(writer, NAME) == ONE
    with monkeypatch.context() as patch:
        fail_calls(patch, "open", errno.EMFILE)
        node.now_s += 3
        assert writer.find(OTHER) is None
    writer.append(OTHER, TWO)
    assert len(node.files(PACK)) == 1


def test_readers_do_not_wait_for_a_writer(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that hangs keeps those who write, not those who find."""
    store = node.process()
    store.append(NAME, ONE)
    assert content_of(store, NAME) == ONE
    is_writing, may_go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def hang(descriptor: int, data: bytes, offset: int) -> int:
        is_writing.set()
        may_go_on.wait(60)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", hang)
    thread = threading.Thread(target=store.append, args=(OTHER, TWO))
    thread.start()
    is_writing.wait(60)
    assert content_of(store, NAME) == ONE
    assert store.find(OTHER, looks=False) is None
    may_go_on.set()
    thread.join()
    assert content_of(store, OTHER) == TWO


def test_who_misses_an_object_waits_for_who_looks(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the threads of a session that begins would fetch what is there."""
    node.process().append(NAME, ONE)
    reader = node.process()
    is_reading, may_go_on = threading.Event(), threading.Event()
    pread = os.pread

    def hang(descriptor: int, size: int, offset: int) -> bytes:
        is_reading.set()
        may_go_on.wait(60)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", hang)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(reader.find(NAME)))
        for _ in range(2)
    ]
    threads[0].start()
    is_reading.wait(60)
    threads[1].start()
    may_go_on.set()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert None not in found


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


# -- what others, and file servers, do to files --------------------------------------


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.rename(path)


def forbid(path: Path) -> None:
    path.chmod(0)


@pytest.mark.parametrize("suffix", [INDEX, PACK])
@pytest.mark.parametrize("damage", [Path.unlink, cut_off, overwrite, replace, forbid])
def test_who_appends_to_a_pack_that_is_damaged_begins_another(
    node: Node, damage: Callable[[Path], None], suffix: str
) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    (path,) = node.files(suffix)
    damage(path)
    node.now_s += 1
    writer.append(OTHER, TWO)
    assert content_of(writer, OTHER) == TWO
    assert content_of(node.process(), OTHER) == TWO
    is_seen_when_read = damage is overwrite and suffix == PACK
    assert (path.stem == writer.own_name()) == is_seen_when_read
    assert content_of(writer, NAME) in (None, ONE)
    writer.close()
    for attempt in range(3):  # nor does it go on with that one ever
        name = ContentHash.of(b"%d" % attempt)
        heir = node.process()
        heir.append(name, TWO)
        assert content_of(node.process(), name) == TWO
        heir.close()
    assert len(list((node.top / DIRECTORY).glob(f"*{INDEX}"))) <= 2


def test_a_pack_that_has_grown_is_opened_again(node: Node) -> None:
    """Who has it open is not told by a network file system how large it is now."""
    writer, reader = node.process(), node.process()
    with files_of_a_server(sizes_are_late=True):
        writer.append(NAME, ONE)
        assert content_of(reader, NAME) == ONE
        writer.append(OTHER, TWO)
        node.now_s += 3
        assert content_of(reader, OTHER) == TWO
    reader.close()


def test_a_pack_that_another_node_removed_is_no_obstacle(node: Node) -> None:
    writer, reader = node.process(), node.process()
    with files_of_a_server():
        writer.append(NAME, ONE)
        assert content_of(reader, NAME) == ONE
        for path in node.files(""):
            path.unlink()
        place = reader.find(NAME)
        assert place is not None
        assert reader.read(place) is None
        writer.append(OTHER, TWO)
        node.now_s += 3
        assert content_of(reader, OTHER) == TWO
        writer.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("fails", ["pack", "index"])
def test_a_pack_that_its_server_lost_is_left_for_another(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: int, fails: str
) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    first = writer.own_name()
    lost = f"{first}.{fails}"
    failed = fail_calls(
        monkeypatch,
        "pwrite",
        error,
        lambda descriptor, *_: os.readlink(f"/proc/self/fd/{descriptor}").endswith(
            lost
        ),
    )
    for number in range(5):
        writer.append(ContentHash.of(b"%d" % number), TWO)
    assert len(failed) == 1
    assert content_of(node.process(), ContentHash.of(b"4")) == TWO
    assert len(node.files(PACK)) == 2
    assert content_of(writer, NAME) == ONE


def test_a_limit_of_file_sizes_makes_smaller_packs(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_calls(
        monkeypatch, "pwrite", errno.EFBIG, lambda _, data, at: at + len(data) > 1000
    )
    writer = node.process()
    for number in range(10):
        writer.append(ContentHash.of(b"%d" % number), b"x" * 300)
    assert len(node.files(PACK)) == 4
    for _ in range(3):
        with pytest.raises(OSError, match="File too large"):
            writer.append(NAME, b"x" * 1001)
    assert len(node.files(PACK)) == 5
    writer.append(NAME, ONE)
    assert content_of(node.process(), NAME) == ONE


@pytest.mark.parametrize("call", ["open", "pwrite"])
def test_a_full_disk_is_not_filled_with_empty_packs(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def is_second(*arguments: object, **_: object) -> bool:
        return call == "pwrite" or str(arguments[0]).endswith(PACK)

    fail_calls(monkeypatch, call, errno.ENOSPC, is_second)
    writer = node.process()
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            writer.append(NAME, ONE)
    assert node.files("") == []
    monkeypatch.undo()
    writer.append(NAME, ONE)
    assert content_of(node.process(), NAME) == ONE


def test_an_index_has_an_end(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (packs, pack_lookout):
        monkeypatch.setattr(module, "INDEX_BYTES_MAX", 5 * RECORD_BYTES)
    writer = node.process()
    hashes = [ContentHash.of(b"%d" % number) for number in range(10)]
    for content_hash in hashes:
        writer.append(content_hash, b"")
    assert [path.stat().st_size for path in node.files(INDEX)].count(320) == 2
    reader = node.process()
    assert {content_of(reader, one) for one in hashes} == {b""}


def test_an_index_that_was_cut_off_is_read_anew(node: Node) -> None:
    """Else what is appended from there on would be found by newcomers only."""
    writer, reader = node.process(), node.process()
    for number in range(9):
        writer.append(ContentHash.of(b"%d" % number), ONE)
    assert content_of(reader, ContentHash.of(b"8")) == ONE
    writer.close()
    (index,) = node.files(INDEX)
    os.truncate(index, 2 * RECORD_BYTES)
    heir = node.process()
    heir.append(NAME, ONE)
    assert heir.own_name() == index.stem
    node.now_s += 3
    assert content_of(reader, NAME) == ONE
    assert content_of(reader, ContentHash.of(b"0")) == ONE


def test_a_vast_index_is_not_read_into_memory(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = node.process()
    writer.append(NAME, ONE)
    writer.close()
    (index,) = node.files(INDEX)
    os.truncate(index, 1 << 40)
    monkeypatch.setattr(pack_lookout, "INDEX_BYTES_MAX", 1 << 16)
    sizes: list[int] = []
    pread = os.pread

    def note(descriptor: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", note)
    reader = node.process()
    assert content_of(reader, NAME) == ONE
    for _ in range(3):
        node.now_s += 700
        assert content_of(reader, OTHER) is None
    assert max(sizes) <= 1 << 16
    assert len(sizes) < 9
    reader.append(OTHER, TWO)
    assert content_of(node.process(), OTHER) == TWO


def test_what_is_no_file_is_not_waited_for(node: Node) -> None:
    (node.top / DIRECTORY).mkdir()
    for suffix in (INDEX, PACK):
        os.mkfifo(node.top / DIRECTORY / ("a" * 16 + suffix))
    reader = node.process()
    assert content_of(reader, NAME) is None
    record = Record(RecordKind.PACKED, NAME, 0, len(ONE), 0)
    assert reader.read(Place("a" * 16, record)) is None
    reader.append(NAME, ONE)
    assert content_of(node.process(), NAME) == ONE


def test_bytes_that_cannot_be_read_are_looked_for_elsewhere(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = node.process(), node.process()
    one.append(NAME, ONE)
    two.append(NAME, ONE)
    reader = node.process()
    place = reader.find(NAME)
    assert place is not None
    fail_calls(
        monkeypatch,
        "pread",
        errno.EIO,
        lambda descriptor, *_: (
            place.pack + PACK in os.readlink(f"/proc/self/fd/{descriptor}")
        ),
    )
    assert reader.read(place) is None
    reader.forget(place)
    assert content_of(reader, NAME) == ONE
