"""`namd methods`: the rows of Table 1 that can be run."""

import argparse
from typing import TYPE_CHECKING

from namd.cli.output import add_json_option, answer, columns

if TYPE_CHECKING:
    from namd.methods.base import Method

DRAWS = {True: "draws differ", False: "one outcome", None: "by configuration"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("methods", help="list the methods that can be run")
    add_json_option(parser)
    parser.set_defaults(func=list_methods)


def list_methods(arguments: argparse.Namespace) -> int:
    """List name, paper, whether draws differ, and presets."""
    from namd.methods.registry import METHODS

    found = [
        {
            "name": method.name,
            "title": method.title,
            "paper": method.paper,
            "stochastic": _stated(method),
            "presets": list(method.presets),
        }
        for method in METHODS.values()
    ]
    rows = [[m.name, m.paper, DRAWS[_stated(m)], ", ".join(m.presets)] for m in METHODS.values()]
    answer(arguments, {"methods": found}, columns(["method", "paper", "draws", "presets"], rows))
    return 0


def _stated(method: "Method") -> bool | None:
    """Return whether draws differ; None if that depends on the configuration."""
    return method.stochastic if isinstance(method.stochastic, bool) else None
