"""The page about a job: whole, alone, and safe whatever names are in it."""

import re
from html.parser import HTMLParser

import pytest

from cvmfsexec.format.gauges import (
    LATENCY_BUCKETS,
    Failure,
    FileRead,
    Gauges,
    SlowObject,
)
from cvmfsexec.reporting.history import History
from cvmfsexec.reporting.page import Job, compose_page
from cvmfsexec.reporting.plots import duration_text

HOSTILE = '<script>alert("1")</script>\x1b[31m\udcff&'
VOID = {"meta"}


def history(**fields: object) -> History:
    moments = [Gauges(float(at_s), "a.example.org") for at_s in range(3)]
    moments.append(moments[-1]._replace(at_s=3.0, **fields))  # type: ignore[arg-type]
    return History(tuple(moments))


def page(*histories: History, command: tuple[str, ...] = ("true",)) -> str:
    return compose_page(Job(command, 1.0, 2.5, 3, "5.0"), histories)


class Tags(HTMLParser):
    """Checks that each tag is closed, and takes down attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"}:
                self.links.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    return tags


@pytest.mark.parametrize("latencies", [(), (0,) * LATENCY_BUCKETS, (0, 0, 4, 0, 9)])
def test_page_is_whole_and_fetches_nothing(latencies: tuple[int, ...]) -> None:
    tags = parsed(page(history(requests={"READ": 9}, latencies=latencies)))
    assert [link for link in tags.links if not link.startswith("#")] == []
    assert "script" not in tags.seen
    assert "svg" in tags.seen
    assert "ended with status 3" in tags.text


def test_hostile_names_stay_text() -> None:
    hostile = history(
        server=HOSTILE,
        proxy=HOSTILE,
        slowest=(SlowObject(HOSTILE, 1.0, 1),),
        files=(FileRead(HOSTILE, 1, 1, 1.0),),
        failures=(Failure(1.0, HOSTILE),),
    )
    text = page(hostile, command=(HOSTILE,))
    assert "script" not in parsed(text).seen
    assert "\x1b" not in text
    assert parsed(text).text.count('alert("1")') == 7
    text.encode("utf-8")


def test_what_happened_is_told() -> None:
    told = parsed(
        page(
            history(
                requests={"READ": 1234},
                opened=4,
                missed=1,
                received_bytes=5_000_000,
                transfer_s=2.0,
                io_errors=2,
                cache_used_bytes=1_000_000,
                cache_limit_bytes=4_000_000,
                files=(FileRead("/bin/tool", 77, 3, 0.5),),
                failures=(Failure(1.0, "READ of /x: no route"),),
            )
        )
    ).text
    for part in ("1,234", "75.0 %", "5.0 MB", "2.5 MB/s", "/bin/tool", "no route"):
        assert part in told
    assert re.search(r"cache held 1 of 4 MB", told)


def test_a_job_without_records_says_so() -> None:
    assert "Nothing was recorded" in parsed(page()).text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 s"),
        (8, "8 ns"),
        (8192, "8.19 µs"),
        (1 << 20, "1.05 ms"),
        (1 << 30, "1.07 s"),
    ],
)
def test_durations_have_units(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text
