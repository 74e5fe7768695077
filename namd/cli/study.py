"""`namd study`: plan, run, follow, stop and read studies.

Only the words of the commands are declared here; each is done in a module of its own, imported
when it is called, so that `namd --help` stays quick and `namd study status` needs no Ray.
"""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

from namd.cli.output import add_json_option, answer
from namd.cli.study_inputs import add_store_option
from namd.config.places import place

Command = Callable[[argparse.Namespace], int]
Commands = Any  # argparse's own type for this is private

FILE_HELP = "the study file; or the name of a study that the store has already seen"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `study` and its commands; each sets `func`, from parsed arguments to exit code."""
    parser = subparsers.add_parser("study", help="plan, run and follow searches and ablations")
    commands = parser.add_subparsers(dest="study_command", metavar="COMMAND", required=True)
    _add_plan(commands)
    _add_run(commands)
    _add_following(commands)
    _add_reading(commands)
    _add_writing(commands)
    for command in commands.choices.values():
        add_json_option(command)


def schema_command(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of study files, for editors."""
    import json

    from namd.study.json_schema import json_schema

    schema = json_schema()
    answer(arguments, schema, json.dumps(schema, indent=1))
    return 0


def _add_plan(commands: Commands) -> None:
    plan = commands.add_parser("plan", help="say what will be run and what it costs; run nothing")
    plan.add_argument("file", type=place, metavar="FILE", help=FILE_HELP)
    _add_places(plan)
    plan.add_argument(
        "--no-calibration",
        dest="calibration",
        action="store_false",
        help="leave costs without earlier runs unknown instead of measuring them by short runs",
    )
    plan.set_defaults(func=_later("study_plan", "plan_command"))


def _add_run(commands: Commands) -> None:
    run = commands.add_parser("run", help="run a study to its end, or continue it")
    run.add_argument("file", type=place, metavar="FILE", help=FILE_HELP)
    _add_places(run)
    run.add_argument(
        "--resume", action="store_true", help="continue a study that was begun, or extend it"
    )
    run.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    run.add_argument(
        "--warm-from",
        action="append",
        default=[],
        metavar="NAME",
        help="a study of the same store whose trials a new search knows; may be repeated",
    )
    run.add_argument(
        "--wandb",
        choices=("off", "offline", "online"),
        help="Weights & Biases files (default: $WANDB_MODE, else offline, beside the ledger)",
    )
    run.set_defaults(func=_later("study_run", "run_command"))


def _add_following(commands: Commands) -> None:
    status = commands.add_parser("status", help="say how a study stands")
    _add_name(status)
    status.set_defaults(func=_later("study_status", "status_command"))
    watch = commands.add_parser("watch", help="follow a study until its driver ends")
    _add_name(watch)
    watch.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="S", help="seconds between two looks"
    )
    watch.set_defaults(func=_later("study_status", "watch_command"))
    found = commands.add_parser("list", help="list the studies of a store")
    add_store_option(found)
    found.set_defaults(func=_later("study_status", "list_command"))


def _add_reading(commands: Commands) -> None:
    logs = commands.add_parser("logs", help="print everything known about one trial")
    _add_name(logs)
    logs.add_argument(
        "trial",
        metavar="TRIAL",
        help="as status names it: ARM/SEED such as full/0, p3/0 in a search, or the id's beginning",
    )
    logs.add_argument(
        "--lines", type=_count, default=5, metavar="N", help="last lines of metrics (default 5)"
    )
    logs.set_defaults(func=_later("study_trials", "logs_command"))
    best = commands.add_parser("best", help="print the best configuration as a run.yaml")
    _add_name(best)
    best.add_argument("--proposal", type=int, metavar="N", help="of a search: this one instead")
    best.add_argument("--arm", metavar="ARM", help="of an ablation: this one instead")
    best.add_argument("--seed", type=int, metavar="N", help="training seed (default: the first)")
    best.set_defaults(func=_later("study_trials", "best_command"))
    schema = commands.add_parser("schema", help="print the JSON Schema of study files")
    schema.set_defaults(func=schema_command)


def _add_writing(commands: Commands) -> None:
    stop = commands.add_parser("stop", help="ask a running study to stop where it can be resumed")
    _add_name(stop)
    stop.add_argument(
        "--timeout",
        type=_seconds,
        default=120.0,
        metavar="S",
        help="how long to wait until it has stopped (default 120; 0: do not wait)",
    )
    stop.set_defaults(func=_later("study_stop", "stop_command"))
    retry = commands.add_parser("retry", help="let failed trials be run again")
    _add_name(retry)
    retry.add_argument("--failed", action="store_true", required=True, help="all failed trials")
    retry.set_defaults(func=_later("study_stop", "retry_command"))
    repair = commands.add_parser(
        "repair", help="set damaged records of a study aside and say what is lost"
    )
    _add_name(repair)
    repair.add_argument("--dry-run", action="store_true", help="only say what is damaged")
    repair.set_defaults(func=_later("study_repair", "repair_command"))
    publish = commands.add_parser("publish", help="write a study elsewhere, from its ledger")
    _add_name(publish)
    publish.add_argument("--wandb", action="store_true", required=True, help="to W&B files")
    publish.add_argument(
        "--online", action="store_true", help="send them, with your W&B key (default: offline)"
    )
    publish.set_defaults(func=_later("study_run", "publish_command"))


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=place, metavar="NAME", help="the study's name, or its file")
    add_store_option(parser)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cohort",
        type=place,
        metavar="DIR",
        help="folder of a cohort, or `phantom[:CASES]` (default: the study file's)",
    )
    add_store_option(parser)
    parser.add_argument(
        "--address",
        metavar="A",
        help="`local`: Ray on this machine (default); `auto` or a URL: a running cluster",
    )


def _later(module: str, name: str) -> Command:
    """Return a command that is imported when it is called."""

    def run(arguments: argparse.Namespace) -> int:
        command: Command = getattr(importlib.import_module(f"namd.cli.{module}"), name)
        return command(arguments)

    return run


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: seconds are 0 or more")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"{text}: a count is 0 or more")
    return count
