"""The report of a job: one page that needs nothing but a browser.

Names and messages in it come from servers and repositories: all are escaped.
"""

import html
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cvmfsexec.format.gauges import Gauges
from cvmfsexec.reporting.history import History
from cvmfsexec.reporting.plots import latency_plot, line_plot

_MB = 1_000_000

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 960px; padding: 0 1em; color: #222 }
h1 { font-size: 1.5em } h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; width: 100%; margin: .6em 0 1.4em; font-size: .92em }
th, td { text-align: left; padding: .25em .8em .25em 0; border-bottom: 1px solid #eee; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td.name { font-family: monospace; overflow-wrap: anywhere }
figure { margin: 1em 0 } svg { width: 100%; height: auto }
svg text { font-size: 13px; fill: #222 } svg text.scale { font-size: 11px; fill: #666 }
svg line { stroke: #ddd } svg rect, svg circle { fill: #1b6ca8 }
svg .line { fill: none; stroke: #1b6ca8; stroke-width: 2; stroke-linejoin: round }
"""  # noqa: E501 -- lines of another language


class Job(NamedTuple):
    """What was run.

    Attributes:
        command: Its words.
        begin_s: When it began, in seconds since 1970.
        seconds: How long it took.
        status: Its exit status.
        version: Of what ran it.
    """

    command: tuple[str, ...]
    begin_s: float
    seconds: float
    status: int
    version: str


def compose_page(job: Job, histories: Sequence[History]) -> str:
    """Return the report as HTML."""
    title = f"cvmfsexec: {' '.join(job.command)}"
    sections = "".join(_repository(history) for history in histories)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(title)}</h1>\n{_summary(job, histories)}{sections}"
        "</body>\n</html>\n"
    )


def _summary(job: Job, histories: Sequence[History]) -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(job.begin_s))
    about = _text(
        f"Began {began}, took {job.seconds:.1f} s, ended with status {job.status}. "
        f"cvmfsexec {job.version}."
    )
    if not histories:
        return f"<p>{about} Nothing was recorded.</p>\n"
    columns = (
        *("Repository", "revision", "requests", "hit rate", "downloaded"),
        *("average speed", "input/output errors"),
    )
    rows = [_summary_row(history.last, history) for history in histories]
    return f"<p>{about}</p>\n{_table(columns, rows, names=1)}"


def _summary_row(last: Gauges, history: History) -> tuple[str, ...]:
    hits = history.sums.hit_percent
    speed = last.received_bytes / last.transfer_s / _MB if last.transfer_s else 0.0
    return (
        last.fqrn,
        str(last.revision),
        f"{last.request_count:,}",
        "none" if hits is None else f"{hits:.1f} %",
        f"{last.received_bytes / _MB:,.1f} MB",
        f"{speed:.1f} MB/s",
        str(last.io_errors),
    )


def _repository(history: History) -> str:
    last, rates = history.last, history.rates()
    parts = [
        f"<h2>{_text(last.fqrn)}</h2>\n<p>{_text(_where(last))}</p>\n",
        _figure(
            line_plot(
                "requests of the kernel per second",
                [(at_s, one.requests_per_s) for at_s, one in rates],
            )
        ),
        _figure(
            line_plot(
                "objects that were in the cache, percent",
                [(at_s, one.hit_percent) for at_s, one in rates],
                top=100,
            )
        ),
        _figure(
            line_plot(
                "download speed, MB/s",
                [(at_s, one.received_bytes_per_s / _MB) for at_s, one in rates],
            )
        ),
    ]
    if last.latencies:
        plot = latency_plot("requests by how long they took", last.latencies)
        parts.append(_figure(plot))
    return "".join(parts) + _tables(last)


def _where(last: Gauges) -> str:
    text = f"Server {last.server or 'unknown'}, proxy {last.proxy or 'unknown'}."
    if not last.cache_limit_bytes:
        return text
    used, limit = last.cache_used_bytes / _MB, last.cache_limit_bytes / _MB
    return f"{text} The cache held {used:,.0f} of {limit:,.0f} MB."


def _tables(last: Gauges) -> str:
    files = (
        (one.path, f"{one.size_bytes:,}", f"{one.reads:,}", f"{one.seconds:.3f}")
        for one in last.files
    )
    slow = (
        (one.name, f"{one.size_bytes:,}", f"{one.seconds:.3f}") for one in last.slowest
    )
    failed = (
        (time.strftime("%H:%M:%S", time.localtime(one.at_s)), one.message)
        for one in last.failures
    )
    return (
        _titled("What failed", ("Time", "what, and why"), failed, names=2)
        + _titled("Slowest downloads", ("Object", "bytes", "seconds"), slow, names=1)
        + _titled(
            "What was read, the longest first",
            ("File", "bytes", "reads", "seconds"),
            files,
            names=1,
        )
    )


def _titled(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: int
) -> str:
    kept = list(rows)
    if not kept:
        return ""
    return f"<h3>{_text(title)}</h3>\n{_table(columns, kept, names=names)}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, names: int) -> str:
    """Return a table whose first columns are names, and the others numbers."""
    lines = [_row("th", columns, names), *(_row("td", row, names) for row in rows)]
    return "<table>\n" + "".join(lines) + "</table>\n"


def _row(kind: str, cells: Sequence[str], names: int) -> str:
    tagged = (
        f'<{kind} class="{"name" if column < names else "number"}">{_text(cell)}'
        f"</{kind}>"
        for column, cell in enumerate(cells)
    )
    return f"<tr>{''.join(tagged)}</tr>\n"


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>\n"


def _text(text: str) -> str:
    shown = text.encode("utf-8", "backslashreplace").decode()
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in shown))
