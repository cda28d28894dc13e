"""Any text is a map of ids that survives being written, or a ConfigurationError."""

from cvmfsexec.configuration.id_map import IdMap
from cvmfsexec.errors import ConfigurationError


def target(data: bytes) -> None:
    """Raise only on a finding."""
    try:
        id_map = IdMap.parse(data.decode("ascii", "replace"), "map")
    except ConfigurationError:
        return
    lines = [f"{published} {local}\n" for published, local in id_map.ids.items()]
    if id_map.default is not None:
        lines.append(f"* {id_map.default}\n")
    assert IdMap.parse("".join(lines), "map") == id_map
