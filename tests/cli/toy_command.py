"""`namd run` of a toy method, and `namd methods` with much to show, as processes of their own."""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

import toy_run

from namd.cli import main as front
from namd.cli.output import answer
from namd.cli.run import run_shown
from namd.pipeline import run as runs
from namd.pipeline.store import open_store

LINES = 20_000


def add_parser(subparsers) -> None:
    run = subparsers.add_parser("run")
    run.add_argument("store")
    run.add_argument("--pause", default="0.1")
    run.add_argument("--json", action="store_true")
    run.set_defaults(func=run_command)
    methods = subparsers.add_parser("methods")
    methods.add_argument("--then", type=Path)
    methods.set_defaults(func=show)


def run_command(arguments: argparse.Namespace) -> int:
    toy = {"tabulate": toy_run.toy_rows, "world": toy_run.ToyWorld}
    runs.run = partial(runs.run, **toy, cohort_digest=toy_run.cohort_digest)
    store = open_store(arguments.store, toy_run.TIMING)
    configuration = toy_run.configure(f"train.pause_s={arguments.pause}")
    result = run_shown(configuration, Path("cohort"), store)
    answer(argparse.Namespace(json=False), {}, f"run {result.run}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    for number in range(LINES):
        sys.stdout.write(f"line {number}\n")
    arguments.then.touch()
    return 0


if __name__ == "__main__":
    front.COMMANDS = {"run": "__main__", "methods": "__main__"}
    sys.exit(front.main())
