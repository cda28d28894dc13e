"""What ``cvmfs top`` shows."""

from cvmfsexec.format.gauges import Gauges, SlowObject
from cvmfsexec.reporting.screen import screen_of

KEY, OTHER = ("/s", 1), ("/t", 2)


def test_the_busiest_comes_first_with_what_it_does_now() -> None:
    before = {
        KEY: Gauges(10.0, "quiet.example.org", requests={"READ": 100}),
        OTHER: Gauges(10.0, "busy.example.org", requests={"READ": 100}),
    }
    now = {
        KEY: before[KEY]._replace(at_s=12.0),
        OTHER: before[OTHER]._replace(
            at_s=12.0, requests={"READ": 300}, received_bytes=4_000_000
        ),
    }
    head, busy, quiet, _, details, *_ = screen_of(before, now)
    assert "READ 300 (100.0/s)" in details
    assert head.startswith("REPOSITORY")
    assert busy.split()[:5] == ["busy.example.org", "0", "100.0", "-", "2.00"]
    assert quiet.split()[:3] == ["quiet.example.org", "0", "0.0"]


def test_one_look_tells_no_speed() -> None:
    _, row, *details = screen_of({}, {KEY: Gauges(1.0, "a.org", requests={"READ": 5})})
    assert row.split()[2] == "-"
    assert details[1].endswith("READ 5")


def test_slow_objects_and_the_cache_are_told() -> None:
    gauges = Gauges(
        1.0,
        "a.org",
        cache_used_bytes=1_000_000,
        cache_limit_bytes=4_000_000,
        slowest=(SlowObject("abcdef", 2.5, 1000),),
    )
    text = "\n".join(screen_of({}, {KEY: gauges}))
    assert "cache 1 of 4 MB, 25 %" in text
    assert "2.500 s" in text
    assert "abcdef" in text


def test_what_a_terminal_would_obey_is_spelled_out() -> None:
    gauges = Gauges(1.0, "a\x1b[2J", requests={"\n": 1}, server="\x07", proxy="\r")
    assert all(line.isprintable() for line in screen_of({}, {KEY: gauges}))


def test_nothing_mounted_is_said() -> None:
    assert screen_of({}, {}) == ["nothing is mounted that could be watched"]
