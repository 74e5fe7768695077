"""`namd demo`: the whole path on this machine, on the phantom cohort."""

import argparse
from pathlib import Path

from namd.cli.output import add_json_option, answer, score_table, tell

PRESET = "small"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "demo", help="phantom cohort and one NAMD run, with a table and a picture"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: runs/demo"
    )
    add_json_option(parser)
    parser.set_defaults(func=demo)


def demo(arguments: argparse.Namespace) -> int:
    """Build the phantom cohort, carry preset `small` through it, write table and picture.

    A second call finds everything in the store and trains nothing.
    """
    from namd.cli.picture import write_picture
    from namd.cli.run import PHANTOM, announce_weights, find_cohort, run_shown
    from namd.pipeline.run_configuration import resolve
    from namd.pipeline.store import open_store

    configuration = resolve(PRESET)
    store = open_store(str(arguments.out / "store"))
    tell(f"NAMD, preset {PRESET}, on the phantom cohort: everything here is simulated")
    cohort = find_cohort(PHANTOM, arguments.out / "store")
    announce_weights(configuration)
    result = run_shown(configuration, cohort, store)
    picture = arguments.out / "draws.png"
    write_picture(result, configuration, cohort, picture)
    text = (
        f"{result.table.text or score_table(result.rows)}\n\nrun {result.run}\npicture {picture}\n"
        f"Preset {PRESET} shows the path; its numbers mean nothing. Research use only."
    )
    answer(arguments, result.to_mapping() | {"picture": str(picture)}, text)
    return 0
