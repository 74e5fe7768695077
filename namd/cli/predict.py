"""`namd predict`: possible follow-ups of one patient's nodule, from a DICOM series and a record.

Research use only: not for clinical decisions.
"""

import argparse
from pathlib import Path
from typing import Any

from namd.api import predictions
from namd.api.predictions import NUM_DRAWS
from namd.cli.output import add_json_option, answer, echo, require_writable
from namd.cli.store import add_store_option, open_named_store
from namd.config.errors import InputError
from namd.config.places import local_path
from namd.statistics.notices import RESEARCH_ONLY, SIMULATED_RUN

SUMMARY = "draw possible follow-ups of one nodule from a DICOM series and a record"
NO_SERIES = "--dicom: no such folder; name one that holds the files of one CT series"
"""Folders of scans are often named after the patient: the path is not repeated."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `namd predict`."""
    parser = subparsers.add_parser(
        "predict", help=SUMMARY, description=f"{SUMMARY}. {RESEARCH_ONLY}"
    )
    parser.add_argument("--run", required=True, metavar="KEY", help="a finished run in the store")
    parser.add_argument(
        "--dicom",
        required=True,
        type=_series_folder,
        metavar="DIR",
        help="the files of one axial CT series",
    )
    parser.add_argument(
        "--centre",
        required=True,
        metavar="x,y,z",
        help="of the nodule, in patient mm as ImagePositionPatient counts",
    )
    parser.add_argument(
        "--ehr", required=True, type=local_path, metavar="F.json", help="NLST names and codes"
    )
    parser.add_argument(
        "--draws", type=int, default=NUM_DRAWS, metavar="K", help=f"default {NUM_DRAWS}"
    )
    parser.add_argument("--out", required=True, type=local_path, metavar="DIR", help="is made")
    parser.add_argument(
        "--cohort",
        type=local_path,
        metavar="DIR",
        help="what the run was trained on; needed only where its record lacks the spacing",
    )
    add_store_option(parser)
    add_json_option(parser)
    parser.set_defaults(func=run)


def _series_folder(text: str) -> Path:
    """Return the folder of a series; an impossible path is refused without repeating it."""
    try:
        return local_path(text)
    except InputError:
        raise InputError(NO_SERIES) from None


def run(arguments: argparse.Namespace) -> int:
    """Predict. Raises InputError for a series, a record or a run that cannot be used.

    Cheap checks come first: importing torch alone takes many seconds.
    """
    centre = _centre(arguments.centre)
    if arguments.draws < 1:
        raise InputError(f"--draws {arguments.draws}: give 1 or more")
    predictions.refuse_occupied(arguments.out)
    require_writable("--out", arguments.out)
    if not _is_folder(arguments.dicom):
        raise InputError(NO_SERIES)
    if arguments.cohort is not None and not _is_folder(arguments.cohort):
        raise InputError(
            f"--cohort {arguments.cohort}: no such folder; name one that holds a cohort"
        )
    from namd.data.ehr import read_record
    from namd.pipeline.finished_run import finished_run

    record = read_record(arguments.ehr)
    store = open_named_store(arguments)
    prediction = predictions.predict(
        store,
        finished_run(store, arguments.run),
        arguments.dicom,
        centre,
        record,
        draws=arguments.draws,
        cohort=arguments.cohort,
        warn=lambda line: echo(f"warning: {line}"),
        progress=lambda done, total: echo(f"draw {done} of {total}"),
    )
    value = prediction.to_mapping()
    value["files"] = prediction.write(arguments.out)
    answer(arguments, value, _as_text(value))
    return 0


def _centre(text: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    predictions.require_centre(numbers)
    return numbers


def _is_folder(path: Path) -> bool:
    """Return whether a folder can be reached; a path too long or not permitted is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _as_text(value: dict[str, Any]) -> str:
    spread = "" if value["std"] is None else f", standard deviation {value['std']:.3f}"
    lines = [
        RESEARCH_ONLY,
        *([SIMULATED_RUN] if value["simulated"] else []),
        f"record  {value['report_text']}",
        f"missing {', '.join(value['missing']) or 'nothing'}",
        f"probability of malignancy one year on, by the judge, over {len(value['probabilities'])} "
        f"draws: mean {value['mean']:.3f}{spread}, 95% of draws in "
        f"{value['low']:.3f}-{value['high']:.3f}",
        *(f"file    {path}" for path in value["files"]),
    ]
    return "\n".join(lines)
