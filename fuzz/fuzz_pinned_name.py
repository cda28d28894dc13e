"""Any text names a repository, perhaps with a revision, or is refused."""

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.pinned_name import (
    DATE,
    PIN_PARAMETERS,
    parse_date,
    parse_pinned_name,
)


def target(data: bytes) -> None:
    """Raise only on a finding."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        name, pin = parse_pinned_name(text)
    except ConfigurationError:
        return
    assert text.startswith(name)
    if pin is None:
        assert text == name
    else:
        assert pin.parameter in PIN_PARAMETERS
        assert pin.value
        assert pin.parameter != DATE or parse_date(pin.value) is not None
