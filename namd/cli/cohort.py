"""`namd cohort`: build a cohort, check it, read its card, look at it.

Everything heavy is imported inside the commands, so that `namd --help` stays quick.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from namd.cli.cohort_summary import origin_lines, summarise, summary_text
from namd.cli.output import add_json_option, answer, echo, require_writable
from namd.config.errors import plain_text
from namd.config.places import local_path

if TYPE_CHECKING:
    from namd.data.building import Progress, Stages
    from namd.data.cohort import Cohort
    from namd.data.simulation.settings import SimulationSettings

REFUSED = 2
SHEET_SUFFIX = ".png"
LAWS = ("marked", "sober", "nlst", "doubling-time")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `cohort` and its commands; each sets `func`, from parsed arguments to exit code."""
    parser = subparsers.add_parser("cohort", help="build, check, describe and show cohorts")
    commands = parser.add_subparsers(dest="cohort_command", metavar="COMMAND", required=True)
    _add_build(commands)
    check = commands.add_parser("check", help="refuse leaks, unknown codes and broken crops")
    check.add_argument("folder", type=local_path, metavar="DIR")
    check.set_defaults(func=check_cohort)
    card = commands.add_parser("card", help="say what is real and what is simulated")
    card.add_argument("folder", type=local_path, metavar="DIR")
    card.set_defaults(func=print_card)
    show = commands.add_parser("show", help="write a contact sheet (PNG)")
    show.add_argument("folder", type=local_path, metavar="DIR")
    show.add_argument("--out", type=local_path, required=True, metavar="SHEET.png")
    show.add_argument("--num", type=int, default=24, metavar="N", help="cases (default 24)")
    show.set_defaults(func=show_cohort)
    for command in (check, card, show):
        add_json_option(command)


def build_crops(arguments: argparse.Namespace) -> int:
    """Build a cohort from an npz of crops and a CSV. Raises InputError."""
    from namd.config.errors import InputError
    from namd.config.parsing import parse
    from namd.data.building import build_crops as build
    from namd.data.cohort import refuse_occupied
    from namd.data.settings import CropSettings
    from namd.data.sources import columns

    refuse_occupied(arguments.out)
    require_writable("--out", arguments.out)
    _refuse_idle_simulation_options(arguments)
    if not arguments.source_name.isprintable():
        raise InputError(f"--source-name {arguments.source_name!r}: holds a control character")
    replace = _replaced(arguments)
    mapping = columns.read_mapping(arguments.columns) if arguments.columns else {}
    if arguments.split_column is not None:
        mapping = _with_split(mapping, arguments)
    chosen = {
        "size": arguments.size,
        "spacing_mm": arguments.spacing,
        "leave_out_short": arguments.leave_out_short,
    }
    settings = parse(CropSettings, {k: v for k, v in chosen.items() if v is not None}, "crops")
    law = _simulation_settings(arguments) if arguments.simulate_followup else None
    files = columns.CropFiles(
        images=arguments.images,
        table=arguments.table,
        columns=mapping,
        source=arguments.source_name,
        citation=arguments.citation,
        licence=arguments.licence,
    )
    with build_progress() as stages:
        cohort = build(files, arguments.seed, settings, law, replace, stages)
    return _finish(cohort, arguments)


def build_phantom(arguments: argparse.Namespace) -> int:
    """Build the embedded cohort: rendered crops, simulated follow-ups. Raises InputError."""
    from namd.data.building import build_phantom as build
    from namd.data.cohort import refuse_occupied

    refuse_occupied(arguments.out)
    require_writable("--out", arguments.out)
    law = _simulation_settings(arguments, rendered=True)
    with build_progress() as stages:
        cohort = build(arguments.seed, law, arguments.cases, arguments.size, stages)
    return _finish(cohort, arguments)


def check_cohort(arguments: argparse.Namespace) -> int:
    """Print whether a cohort may be used: 0 if it may, 2 with its problems where not."""
    from namd.data.checks import check_folder, mask_warnings, spelling_warnings

    cohort, problems = check_folder(arguments.folder)
    warnings = []
    if cohort is not None:
        warnings = [*mask_warnings(cohort), *spelling_warnings(cohort.table)]
    summary = {
        **summarise(cohort),
        "ok": not problems,
        "problems": problems,
        "warnings": warnings,
    }
    for problem in problems:
        echo(f"problem: {problem}")
    for warning in warnings:
        echo(f"warning: {warning}")
    verdict = "sound" if not problems else f"refused; problems: {len(problems)}"
    answer(arguments, summary, f"{arguments.folder}: {verdict}\n{summary_text(summary)}")
    return REFUSED if problems else 0


def print_card(arguments: argparse.Namespace) -> int:
    """Print the data card as Markdown, or as it is stored."""
    from namd.data.card import card_text
    from namd.data.cohort import read_card

    card = read_card(arguments.folder)
    answer(arguments, card, card_text(card).rstrip())
    return 0


def show_cohort(arguments: argparse.Namespace) -> int:
    """Write the contact sheet. Raises InputError, before the cohort is read where it can."""
    from namd.config.errors import InputError

    if arguments.num < 1:
        raise InputError(f"--num {arguments.num}: a sheet shows at least 1 case")
    if arguments.out.suffix.lower() != SHEET_SUFFIX:
        raise InputError(
            f"--out {arguments.out}: a sheet is a PNG; name it "
            f"{arguments.out.with_suffix(SHEET_SUFFIX) if arguments.out.name else 'sheet.png'}"
        )
    require_writable("--out", arguments.out)
    from namd.data.cohort import Cohort
    from namd.data.sheet import write_sheet

    cohort = Cohort.read(arguments.folder)
    path = write_sheet(cohort, arguments.out, arguments.num)
    shown = min(arguments.num, len(cohort))
    answer(arguments, {"sheet": str(path), "cases": shown}, f"{path}: {shown} cases")
    return 0


def _add_build(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    build = commands.add_parser("build", help="build a cohort folder")
    sources = build.add_subparsers(dest="source", metavar="SOURCE", required=True)
    crops = sources.add_parser("crops", help="from an npz of HU crops and a CSV")
    crops.add_argument("--images", type=local_path, required=True, metavar="F.npz")
    crops.add_argument("--table", type=local_path, required=True, metavar="F.csv")
    crops.add_argument(
        "--columns", type=local_path, metavar="MAP.yaml", help="our words: CSV columns"
    )
    crops.add_argument("--split-column", metavar="NAME", help="your split (default: split, if any)")
    crops.add_argument(
        "--simulate-followup", action="store_true", help="draw what the files lack, of known truth"
    )
    crops.add_argument(
        "--replace",
        nargs="*",
        metavar="COLUMN",
        help="draw these too, although the files have them (alone: everything simulated)",
    )
    crops.add_argument("--size", type=int, metavar="PX", help="stored crop (default 92, or 64)")
    crops.add_argument(
        "--leave-out-short",
        action="store_true",
        help="leave out, by name, cases whose crop ends before the stored one",
    )
    crops.add_argument("--spacing", type=float, metavar="MM", help="in plane (default 0.5)")
    crops.add_argument("--source-name", type=plain_text, default="crops", metavar="NAME")
    crops.add_argument("--citation", type=plain_text, default="", metavar="TEXT")
    crops.add_argument("--licence", type=plain_text, default="", metavar="TEXT")
    crops.set_defaults(func=build_crops)
    phantom = sources.add_parser("phantom", help="rendered from real contours; needs no data")
    phantom.add_argument("--cases", type=int, metavar="N", help="at most, replicates counted")
    phantom.add_argument("--size", type=int, metavar="PX", help="stored crop (default 92)")
    phantom.set_defaults(func=build_phantom)
    for source in (crops, phantom):
        source.add_argument("--law", choices=LAWS, help="of growth (default marked)")
        source.add_argument("--replicates", type=int, metavar="R", help="fresh draws a nodule")
        source.add_argument(
            "--settings",
            nargs="+",
            action="extend",
            default=[],
            metavar="K=V",
            help="of the simulation, such as signs.strength=0.5",
        )
        source.add_argument("--seed", type=int, required=True, metavar="N")
        source.add_argument("--out", type=local_path, required=True, metavar="DIR")
        add_json_option(source)


def _refuse_idle_simulation_options(arguments: argparse.Namespace) -> None:
    from namd.config.errors import InputError

    given = [f"--{name}" for name in ("law", "replicates", "settings") if getattr(arguments, name)]
    given += ["--replace"] if arguments.replace is not None else []
    if given and not arguments.simulate_followup:
        raise InputError(f"{', '.join(given)}: without effect; add --simulate-followup")


def _replaced(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return what is drawn although it is known: with a bare `--replace` all that can be."""
    from namd.data.simulation.known import SIMULATED, require_columns

    if arguments.replace is None:
        return ()
    require_columns(arguments.replace)
    return tuple(arguments.replace) or SIMULATED


def _with_split(
    mapping: dict[str, str | None], arguments: argparse.Namespace
) -> dict[str, str | None]:
    from namd.config.errors import InputError

    if "split" in mapping and mapping["split"] != arguments.split_column:
        raise InputError(
            f"--split-column {arguments.split_column}: {arguments.columns} maps split to "
            f"{mapping['split'] or 'null'}; name it in one place"
        )
    return {**mapping, "split": arguments.split_column}


def _simulation_settings(
    arguments: argparse.Namespace, *, rendered: bool = False
) -> "SimulationSettings":
    from namd.data.building import simulation_settings

    return simulation_settings(
        arguments.law or "marked", arguments.replicates, arguments.settings, rendered=rendered
    )


def _finish(cohort: "Cohort", arguments: argparse.Namespace) -> int:
    """Refuse or write a built cohort and say what it is."""
    from namd.data.building import finish
    from namd.data.checks import RefusedCohortError

    try:
        findings = finish(cohort, arguments.seed)
    except RefusedCohortError as error:
        for problem in error.problems[1:]:
            echo(f"problem: {problem}")
        raise
    for warning in findings.unusable:
        echo(f"warning: {warning}; `namd cohort check` refuses this cohort")
    for warning in findings.warnings:
        echo(f"warning: {warning}")
    cohort.write(arguments.out)
    summary = {
        "out": str(arguments.out),
        "fingerprint": cohort.card["fingerprint"],
        **summarise(cohort),
        "split_column": cohort.card.get("split_column"),
        "values": cohort.card.get("values") or {},
        "unused": cohort.card.get("unused") or {},
        "left_out": dict(cohort.card.get("excluded") or {}),
        "left_out_cases": cohort.card.get("excluded_cases") or {},
        "warnings": [*findings.unusable, *findings.warnings],
    }
    lines = [f"{arguments.out}: built", summary_text(summary), *origin_lines(cohort.card)]
    answer(arguments, summary, "\n".join(lines))
    return 0


@contextmanager
def build_progress() -> "Iterator[Stages]":
    """Yield what makes a stage's progress callback: rich on a terminal, else lines on stderr."""
    if not sys.stderr.isatty():
        yield _plain_stage
        return
    from rich.console import Console
    from rich.progress import Progress as RichProgress

    with ExitStack() as opened:
        bars = RichProgress(console=Console(stderr=True))

        def rich_stage(name: str) -> "Progress":
            if not bars.tasks:
                opened.enter_context(bars)
            task = bars.add_task(name, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield rich_stage


def _plain_stage(name: str) -> "Progress":
    """Return a callback that writes a line at every tenth of the work."""
    printed = -1

    def report(done: int, total: int) -> None:
        nonlocal printed
        tenth = 10 * done // max(total, 1)
        if tenth > printed:
            printed = tenth
            echo(f"{name}: {done} of {total}")

    return report
