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
    """List the presets with what they are for, or print one with what it extends laid under it."""
    import yaml

    from namd.config.presets import load_preset, preset_description, preset_names

    if arguments.name is None:
        described = {name: preset_description(name) for name in preset_names()}
        value = {"presets": list(described), "descriptions": described}
        widest = max(map(len, described))
        lines = [f"{name.ljust(widest)}  {about}" for name, about in described.items()]
        answer(arguments, value, "\n".join(lines))
        return 0
    mapping = load_preset(arguments.name)
    answer(arguments, mapping, yaml.safe_dump(mapping, sort_keys=False).rstrip())
    return 0
