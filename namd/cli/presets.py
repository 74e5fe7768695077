"""`namd presets`: the configurations that the package carries."""

import argparse

from namd.cli.output import add_json_option, answer


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("presets", help="list the presets, or print one")
    parser.add_argument("name", nargs="?", metavar="PRESET", help="print this one, whole")
    parser.add_argument("--method", metavar="M", help="whose presets (default: namd)")
    add_json_option(parser)
    parser.set_defaults(func=list_presets)


def list_presets(arguments: argparse.Namespace) -> int:
    """List the presets with what they are for, or print one with what it extends laid under it."""
    import yaml

    from namd.pipeline.run_configuration import method_of

    method = method_of({} if arguments.method is None else {"method": arguments.method})
    if arguments.name is None:
        described = {name: method.describe_preset(name) for name in method.presets}
        value = {"method": method.name, "presets": list(described), "descriptions": described}
        widest = max(map(len, described))
        lines = [f"{name.ljust(widest)}  {about}" for name, about in described.items()]
        answer(arguments, value, "\n".join(lines))
        return 0
    mapping = method.preset(arguments.name)
    answer(arguments, mapping, yaml.safe_dump(mapping, sort_keys=False).rstrip())
    return 0
