"""`namd report`: a study's table, figures and HTML from its ledger and the stored scores."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from namd.cli.output import add_json_option, answer, terminal_width
from namd.cli.study_inputs import add_store_option, open_ledger, readable
from namd.cli.whole_files import filled_whole
from namd.config.places import local_path, place

if TYPE_CHECKING:
    from namd.ledger.view import StudyView
    from namd.storage.base import Storage


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "report", help="table, figures and an HTML page of a study, finished or not"
    )
    parser.add_argument("name", type=place, metavar="NAME", help="the study, or its file")
    parser.add_argument(
        "--out",
        type=local_path,
        metavar="DIR",
        help="default: reports/NAME; files there are replaced",
    )
    parser.add_argument(
        "--cohort",
        type=local_path,
        metavar="DIR",
        help="where the cases lie, if the ledger is wrong",
    )
    add_store_option(parser)
    add_json_option(parser)
    parser.set_defaults(func=report_command)


def report_command(arguments: argparse.Namespace) -> int:
    """Write the report. Raises InputError where there is no such store or study."""
    ledger = open_ledger(arguments)
    folder = arguments.out or Path("reports") / ledger.name
    page, text = write_study_report(ledger.url, ledger.name, folder, arguments.cohort)
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    answer(arguments, {"html": str(page), "files": files}, f"{text}\n{page}")
    return 0


def write_study_report(
    store: str,
    name: str,
    folder: Path,
    cohort: Path | None = None,
    pictures: Mapping[str, Path] | None = None,
    warnings: tuple[str, ...] = (),
) -> tuple[Path, str]:
    """Write a study's report under a folder; return the HTML's path and the table as text.

    Raises InputError where store or folder cannot be used.
    """
    from analysis.study_report import make_report, write_report
    from analysis.terminal_text import to_text
    from namd.ledger.view import read_view
    from namd.storage.opening import open_storage

    with readable(store):
        storage = open_storage(store)
        view = read_view(storage, name)
        importance, more = _importance(storage, view)
        report = make_report(storage, view, cohort, importance, (*warnings, *more))
    with filled_whole(folder) as partial:
        page = write_report(report, partial, pictures)
    return folder / page.name, to_text(report, terminal_width())


def _importance(
    storage: "Storage", view: "StudyView"
) -> tuple[dict[str, dict[str, float]], tuple[str, ...]]:
    """Return each objective's PED-ANOVA importances, and why there are none if something is lost.

    Empty for ablations and short searches.
    """
    if not view.specification.get("search"):
        return {}, ()
    from namd.ledger.reading import read_events
    from namd.study.optuna_view import importances
    from namd.study.spec import parse_study
    from namd.study.state import ProposalLost, StudyState

    state = StudyState(parse_study(view.specification))
    try:
        for event in read_events(storage, view.study):
            state.fold(event)
    except ProposalLost as error:
        return {}, (f"importances are left out: {error}",)
    return importances(state), ()
