"""`namd methods`: the rows of Table 1 that can be run."""

import argparse

from namd.cli.output import add_json_option, answer, columns


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
            "stochastic": method.stochastic,
            "presets": list(method.presets),
        }
        for method in METHODS.values()
    ]
    rows = [
        [m.name, m.paper, "draws differ" if m.stochastic else "one outcome", ", ".join(m.presets)]
        for m in METHODS.values()
    ]
    answer(arguments, {"methods": found}, columns(["method", "paper", "draws", "presets"], rows))
    return 0
