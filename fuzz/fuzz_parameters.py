"""Any values are read as their type says, or refused with a ConfigurationError."""

import contextlib

from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.parameters import Parameters, expand_templates, format_parameter

FQRN = "software.example.org"


def target(data: bytes) -> None:
    """Take lines ``NAME=value`` as values; raise only on a finding."""
    text = data.decode(errors="surrogateescape")
    pairs = (line.partition("=") for line in text.split("\n"))
    values = {name: value for name, _, value in pairs}
    parameters = Parameters.from_values(FQRN, values)
    for name, parameter in parameters.items():
        assert expand_templates(parameter.value, FQRN) == parameter.value
        assert format_parameter(name, parameter).startswith(name + "=")
        assert parameters.boolean(name, default=False) in (True, False)
        with contextlib.suppress(ConfigurationError):
            assert -(10**18) < parameters.integer(name, 0) < 10**18
