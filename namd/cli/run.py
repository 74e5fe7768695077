"""`namd run`: one configuration through all its stages to a score table."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.cli.output import (
    add_json_option,
    answer,
    columns,
    echo,
    require_writable,
    score_table,
)
from namd.cli.store import add_store_option, open_named_store, view_named_store
from namd.config.errors import InputError
from namd.config.places import local_path, place
from namd.data import named_cohort

if TYPE_CHECKING:
    from namd.pipeline.reporting import Reporter
    from namd.pipeline.run import RunResult
    from namd.pipeline.run_configuration import RunConfiguration
    from namd.pipeline.store import Store

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser("run", help="carry one configuration to a score table")
    parser.add_argument("--method", metavar="M", help="a row of Table 1 (default: namd)")
    parser.add_argument("--preset", metavar="P", help="where the configuration starts from")
    parser.add_argument("--config", type=local_path, metavar="F", help="YAML laid over the preset")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="K=V",
        help="one value, such as vae.alignment.weight=0; may be repeated",
    )
    parser.add_argument(
        "--cohort",
        required=True,
        type=place,
        metavar="DIR",
        help="folder of a cohort, or `phantom[:CASES]`: rendered once, beside the artifacts",
    )
    parser.add_argument(
        "--picture", type=local_path, metavar="F.png", help="also write a picture of drawn cases"
    )
    parser.add_argument(
        "--copies",
        type=local_path,
        metavar="F.png",
        help="also write a picture of the draws that are nearest to a train crop",
    )
    parser.add_argument("--plan", action="store_true", help="say what would be built, and stop")
    add_store_option(parser)
    add_json_option(parser)
    parser.set_defaults(func=run_command)


def run_command(arguments: argparse.Namespace) -> int:
    """Run or plan. Raises InputError and StageError; SIGTERM and Ctrl-C leave resumable work."""
    from namd.cli.named_cohorts import find_cohort
    from namd.pipeline.run_configuration import resolve
    from namd.pipeline.run_plan import require_weights

    if arguments.preset is None and arguments.config is None:
        raise InputError("no configuration: name one with --preset or --config (see namd presets)")
    for option in ("picture", "copies"):
        _require_picture(f"--{option}", getattr(arguments, option))
    configuration = resolve(arguments.preset, arguments.config, _overrides(arguments))
    _require_copies(arguments.copies, configuration)
    if not arguments.plan:
        require_weights(configuration)
    store = (
        view_named_store(arguments) if arguments.plan else open_named_store(arguments, create=True)
    )
    cohort = find_cohort(
        arguments.cohort, store.backend.folder, configuration.demands(), build=not arguments.plan
    )
    announce_weights(configuration)
    if arguments.plan:
        return _plan(arguments, configuration, cohort, store)
    result = run_shown(configuration, cohort, store)
    text = f"{result.table.text or score_table(result.rows)}\nrun {result.run}"
    if arguments.picture is not None:
        from namd.api.draws_picture import write_picture

        write_picture(result, configuration, cohort, arguments.picture)
        text += f"\npicture {arguments.picture}"
    if arguments.copies is not None:
        from namd.api.copies import draw_copies

        draw_copies(result.artifacts, configuration, cohort, arguments.copies)
        text += f"\nnearest train crops {arguments.copies}"
    answer(arguments, result.to_mapping(), text)
    return 0


def _overrides(arguments: argparse.Namespace) -> list[str]:
    method = [] if arguments.method is None else [f"method={arguments.method}"]
    return [*method, *arguments.set]


def _require_picture(option: str, path: Path | None) -> None:
    """Refuse a picture that could not be written once the run is over. Raises InputError."""
    if path is None:
        return
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(
            f"{option} {path}: its suffix names its kind, one of {', '.join(PICTURE_SUFFIXES)}"
        )
    require_writable(option, path)


def _require_copies(path: Path | None, configuration: "RunConfiguration") -> None:
    """Refuse a picture of copies that the run would not look for. Raises InputError."""
    config: Any = configuration.config
    if path is not None and not config.evaluate.copies:
        raise InputError(
            f"--copies {path}: evaluate.copies is false, so that no draw is compared with train "
            "crops; leave it at true"
        )


def run_shown(configuration: "RunConfiguration", cohort: Path, store: "Store") -> "RunResult":
    """Run with progress on stderr; Ctrl-C and SIGTERM let the body write a checkpoint first."""
    from namd.pipeline.interruption import interruptible, stop_reason
    from namd.pipeline.run import run

    with interruptible(), reporter(store) as shown:
        try:
            return run(configuration, cohort, store, shown)
        except SystemExit:
            echo(f"{stop_reason()}; the same command continues from the last checkpoint")
            raise


def announce_weights(configuration: "RunConfiguration") -> None:
    """Say which pretrained weights this run uses, and what it does without those it lacks."""
    from namd.config.parsing import to_mapping
    from namd.models.weights import describe

    mapping: dict[str, Any] = to_mapping(configuration.config)
    for status in describe(mapping):
        echo(status.announcement)


@contextmanager
def reporter(store: "Store") -> "Iterator[Reporter]":
    """Yield bars where a person watches, plain lines otherwise."""
    from namd.cli.progress import PlainReporter, RichReporter, is_terminal
    from namd.pipeline.estimate import estimator

    estimate = estimator(store)
    if not is_terminal():
        yield PlainReporter(estimate)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        yield RichReporter(estimate, bars)


def _plan(
    arguments: argparse.Namespace, configuration: "RunConfiguration", cohort: Path, store: "Store"
) -> int:
    from namd.cli.progress import forecast
    from namd.pipeline.run_plan import make_run_plan

    plan = make_run_plan(configuration, cohort, store)
    rows = [[stage.stage.label, stage.key[:12], stage.state] for stage in plan.stages]
    text = columns(["stage", "key", "state"], rows)
    if plan.num_missing:
        missing = [stage.stage for stage in plan.stages if not stage.cached]
        expected = forecast(missing, plan.seconds)
        text += f"\n{plan.num_missing} of {len(rows)} to build; {expected}"
    for status in plan.missing_weights:
        text += f"\nmissing: {status.refusal}"
    if plan.missing_weights:
        text += (
            "\nkeys are provisional: they hold the digests of these weights; a run is refused "
            "until they are there"
        )
    if not plan.cohort_built:
        text += f"\n{named_cohort.not_built(cohort)}"
    answer(arguments, plan.to_mapping(), text)
    return 0
