"""Show each parameter of a repository with the file that set it."""

import argparse
import json
import os

from cvmfsexec.cli.configuration import configuration_root
from cvmfsexec.cli.environment import load_parameters
from cvmfsexec.cli.options import add_dist, add_json
from cvmfsexec.configuration.evaluate import site_repositories
from cvmfsexec.errors import ConfigurationError
from cvmfsexec.format.parameters import Parameters, format_parameter


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "fqrn",
        metavar="FQRN",
        nargs="?",
        help="repository; those of CVMFS_REPOSITORIES if none is given",
    )
    add_dist(parser)
    parser.add_argument(
        "-s", "--set", action="store_true", help="leave out parameters that are empty"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the effective parameters, in the form that shells read."""
    if arguments.fqrn is not None:
        parameters = load_parameters(arguments.fqrn, arguments.dist)
        if arguments.json:
            print(json.dumps(_as_json(parameters, only_set=arguments.set), indent=1))
        else:
            _show(parameters, only_set=arguments.set)
        return 0
    names = site_repositories(configuration_root(arguments.dist), os.environ)
    if not names:
        raise ConfigurationError(
            "no repository to show", hint="name one, or set CVMFS_REPOSITORIES"
        )
    told = []
    for name in names:
        parameters = load_parameters(name, arguments.dist)
        told.append(_as_json(parameters, only_set=arguments.set))
        if not arguments.json:
            print(f"Running cvmfs showconfig {parameters.fqrn}:")
            _show(parameters, only_set=arguments.set)
            print()
    if arguments.json:
        print(json.dumps(told, indent=1))
    return 0


def _show(parameters: Parameters, *, only_set: bool) -> None:
    print(f"CVMFS_REPOSITORY_NAME={parameters.fqrn}")
    for name, parameter in parameters.items():
        if parameter.value or not only_set:
            print(format_parameter(name, parameter))


def _as_json(parameters: Parameters, *, only_set: bool) -> dict[str, object]:
    return {
        "repository": parameters.fqrn,
        "parameters": {
            name: parameter._asdict()
            for name, parameter in parameters.items()
            if parameter.value or not only_set
        },
    }
