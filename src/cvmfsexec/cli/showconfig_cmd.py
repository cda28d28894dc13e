"""Show each parameter of a repository with the file that set it."""

import argparse
import json

from cvmfsexec.cli.environment import load_parameters
from cvmfsexec.cli.options import add_json, add_repository
from cvmfsexec.format.parameters import Parameters, format_parameter


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_repository(parser)
    parser.add_argument(
        "-s", "--set", action="store_true", help="leave out parameters that are empty"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the effective parameters, in the form that shells read."""
    parameters = load_parameters(arguments.fqrn, arguments.dist)
    if arguments.json:
        print(json.dumps(_as_json(parameters, only_set=arguments.set), indent=1))
        return 0
    print(f"CVMFS_REPOSITORY_NAME={parameters.fqrn}")
    for name, parameter in parameters.items():
        if parameter.value or not arguments.set:
            print(format_parameter(name, parameter))
    return 0


def _as_json(parameters: Parameters, *, only_set: bool) -> dict[str, object]:
    return {
        "repository": parameters.fqrn,
        "parameters": {
            name: parameter._asdict()
            for name, parameter in parameters.items()
            if parameter.value or not only_set
        },
    }
