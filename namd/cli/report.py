"""`namd report`: a study's table, figures and HTML from its ledger and the stored scores."""

import argparse
from pathlib import Path

from namd.cli.output import add_json_option, answer, terminal_width
from namd.cli.study_inputs import add_store_option, open_ledger
from namd.config.places import local_path, place


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
    """Write the report. Raises InputError if there is no such store or study."""
    from analysis.terminal_text import to_text
    from namd.api import study_report

    ledger = open_ledger(arguments)
    folder = arguments.out or Path("reports") / ledger.name
    page, report = study_report.write_study_report(
        ledger.url, ledger.name, folder, arguments.cohort
    )
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    text = f"{to_text(report, terminal_width())}\n{page}"
    answer(arguments, {"html": str(page), "files": files}, text)
    return 0
