"""What ``cvmfs_config stat`` tells of a mount: columns, and where they come from."""

from typing import NamedTuple

from cvmfsexec.cli.mounts import LiveMount
from cvmfsexec.cli.routes import try_routes
from cvmfsexec.errors import CvmfsError

_BLOCKS_A_KIB = 2  # of 512 bytes


class _Column(NamedTuple):
    """One column.

    Attributes:
        heading: The original's.
        key: Of the field in JSON.
        attribute: The magic attribute that it shows, or nothing.
        title: In the long form.
    """

    heading: str
    key: str
    attribute: str
    title: str


COLUMNS = (
    _Column("VERSION", "version", "version", "Version"),
    _Column("PID", "pid", "", "PID"),
    _Column("UPTIME(M)", "uptime_min", "uptime", "Uptime (minutes)"),
    _Column("MEM(K)", "memory_kib", "", "Memory (KiB)"),
    _Column("REVISION", "revision", "revision", "File catalog revision"),
    _Column("EXPIRES(M)", "expires_min", "expires", "File catalog expires in minutes"),
    _Column("NOCATALOGS", "catalogs", "nclg", "Loaded file catalogs"),
    _Column("CACHEUSE(K)", "cache_used_kib", "", "Cache usage (KiB)"),
    _Column("CACHEMAX(K)", "cache_max_kib", "", "Cache limit (KiB)"),
    _Column("NOFDUSE", "descriptors_used", "usedfd", "Used file descriptors"),
    _Column("NOFDMAX", "descriptors_max", "maxfd", "File descriptor limit"),
    _Column("NOIOERR", "io_errors", "nioerr", "I/O errors"),
    _Column("NOOPEN", "opens", "nopen", "Open requests"),
    _Column("HITRATE(%)", "hit_rate_percent", "hitrate", "Cache hit rate (%)"),
    _Column("RX(K)", "received_kib", "rx", "Received (KiB)"),
    _Column("SPEED(K/S)", "speed_kib_s", "speed", "Average speed (KiB/s)"),
    _Column("HOST", "host", "host", "Server"),
    _Column("PROXY", "proxy", "proxy", "Proxy"),
    _Column("ONLINE", "online", "", "Online"),
)


def statistics_of(mount: LiveMount, dist: str | None) -> dict[str, str]:
    """Return what there is to be told of a mount, by the keys of the columns.

    Raises:
        CvmfsError: It does not answer any more.
    """
    blocks, free_blocks = map(int, mount.attribute("statfs").split(",")[:2])
    computed = {
        "pid": str(mount.pid),
        "memory_kib": _memory_kib(mount.pid),
        "cache_used_kib": str((blocks - free_blocks) // _BLOCKS_A_KIB),
        "cache_max_kib": str(blocks // _BLOCKS_A_KIB),
        "online": _online(mount.fqrn, dist),
    }
    return {
        column.key: mount.attribute(column.attribute)
        if column.attribute
        else computed[column.key]
        for column in COLUMNS
    }


def table_of(values: dict[str, str]) -> tuple[str, str]:
    """Return a line of headings, and one of values below them."""
    cells = [(one.heading, _without_blanks(values[one.key]) or "-") for one in COLUMNS]
    widths = [max(map(len, pair)) for pair in cells]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in zip(*cells, strict=True)
    )
    heading, line = (line.rstrip() for line in lines)
    return heading, line


def text_of(fqrn: str, values: dict[str, str]) -> str:
    """Return the long form."""
    lines = [f"{one.title}: {values[one.key]}\n" for one in COLUMNS]
    return f"{fqrn}\n" + "".join(f"  {line}" for line in lines)


def _without_blanks(text: str) -> str:
    """Return the first word: ``never (fixed root catalog)`` would be four columns."""
    return text.partition(" ")[0]


def _memory_kib(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return line.split()[1]
    except OSError:
        pass
    return "n/a"


def _online(fqrn: str, dist: str | None) -> str:
    try:
        return "1" if try_routes(fqrn, dist).error is None else "0"
    except CvmfsError:
        return "0"
