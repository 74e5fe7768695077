"""`namd presets`: the configurations that the package carries."""

import argparse

from namd.cli.output import add_json_option, answer


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("presets", help="list the presets, or print one")
    parser.add_argument("name", nargs="?", metavar="PRESET", help="print this one, whole")
    add_json_option(parser)
    parser.set_defaults(func=list_presets)


def list_presets(arguments: argparse.Namespace) -> int:
    """List the names, or print one preset with what it extends laid under it."""
    import yaml

    from namd.methods.registry import METHODS
    from namd.pipeline.run_configuration import method_of

    if arguments.name is None:
        names = sorted({name for method in METHODS.values() for name in method.presets})
        answer(arguments, {"presets": names}, "\n".join(names))
        return 0
    mapping = method_of({}, None).preset(arguments.name)
    answer(arguments, mapping, yaml.safe_dump(mapping, sort_keys=False).rstrip())
    return 0
