"""`namd predict`: possible follow-ups of one patient's nodule, from a DICOM series and a record.

Research use only: not for clinical decisions.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.cli.output import add_json_option, answer, require_writable, tell
from namd.cli.store import add_store_option, open_named_store
from namd.config.errors import InputError
from namd.config.places import local_path
from namd.statistics.notices import RESEARCH_ONLY, SIMULATED_RUN

if TYPE_CHECKING:
    from namd.pipeline.finished_run import FinishedRun
    from namd.pipeline.prediction import Prediction

SUMMARY = "draw possible follow-ups of one nodule from a DICOM series and a record"
NUM_DRAWS = 20
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

    What is told quickly is asked first: importing torch alone takes many seconds.
    """
    centre = _centre(arguments.centre)
    if arguments.draws < 1:
        raise InputError(f"--draws {arguments.draws}: give 1 or more")
    _refuse_occupied(arguments.out)
    require_writable("--out", arguments.out)
    if not _is_folder(arguments.dicom):
        raise InputError(NO_SERIES)
    if arguments.cohort is not None and not _is_folder(arguments.cohort):
        raise InputError(
            f"--cohort {arguments.cohort}: no such folder; name one that holds a cohort"
        )
    from namd.data.ehr import read_record
    from namd.pipeline.finished_run import finished_run, require_drawable

    record = read_record(arguments.ehr)
    store = open_named_store(arguments)
    finished = finished_run(store, arguments.run)
    require_drawable(store, finished)
    spacing_mm = _spacing(finished, arguments.cohort)
    from namd.data.sources.dicom import read_crop

    crop = read_crop(arguments.dicom, centre, spacing_mm, finished.image_size)
    warnings = [SIMULATED_RUN, *crop.warnings] if finished.simulated else list(crop.warnings)
    if record.missing:
        warnings.append(f"the record lacks {', '.join(record.missing)}: left out of the report")
    for warning in warnings:
        tell(f"warning: {warning}")
    from namd.pipeline.prediction import predict

    prediction = predict(
        store,
        finished,
        crop.hu,
        crop.spacing_mm,
        record,
        arguments.draws,
        lambda done, total: tell(f"draw {done} of {total}"),
    )
    value = {
        **prediction.to_mapping(),
        "warnings": warnings,
        "notice": RESEARCH_ONLY,
        "run": finished.key,
        "simulated": finished.simulated,
        "spacing_mm": crop.spacing_mm,
    }
    value["files"] = _write(arguments.out, prediction, value)
    answer(arguments, value, _as_text(value))
    return 0


def _centre(text: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise InputError("--centre: give three numbers x,y,z in patient mm, such as -52.5,14,-120")
    return numbers


def _is_folder(path: Path) -> bool:
    """Return whether a folder can be reached; a path too long or not permitted is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _refuse_occupied(folder: Path) -> None:
    try:
        occupied = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise InputError(
            f"--out: cannot be written ({error.strerror}); name another place"
        ) from None
    if occupied:
        raise InputError(f"{folder}: exists and is not empty; --out names a new folder")


def _spacing(run: "FinishedRun", cohort: Path | None) -> float:
    from namd.data.cohort import read_card

    if run.spacing_mm is not None:
        return run.spacing_mm
    if cohort is None:
        raise InputError(
            f"--run {run.key[:12]}: its record does not say the spacing of its crops; name its "
            "cohort with --cohort"
        )
    return float(read_card(cohort)["spacing_mm"])


def _write(folder: Path, prediction: "Prediction", value: dict[str, Any]) -> list[str]:
    """Write the picture, the crops and the numbers, all or none; return the files.

    Raises InputError if they cannot be written, such as on a full disk.
    """
    place = folder.absolute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as draft:
            names = _write_draft(Path(draft), prediction, value)
            place.mkdir(exist_ok=True)
            for name in names:
                (Path(draft) / name).rename(place / name)
    except OSError as error:
        raise InputError(
            f"--out {folder}: cannot be written ({error.strerror}); name another place"
        ) from error
    return [str(folder / name) for name in names]


def _write_draft(draft: Path, prediction: "Prediction", value: dict[str, Any]) -> list[str]:
    """Write the files of a prediction into a folder; return their names."""
    import numpy as np

    from analysis.prediction_figure import prediction_figure
    from namd.data.intensity import to_hu

    names = ["draws.npz", "prediction.png", "prediction.json"]
    crops, picture, numbers = (draft / name for name in names)
    np.savez_compressed(
        crops,
        baseline_hu=to_hu(prediction.baseline),
        draws_hu=to_hu(prediction.draws),
        mean_hu=to_hu(prediction.draws.mean(0)),
        variance=prediction.draws.var(0),
        probabilities=prediction.probabilities,
        spacing_mm=value["spacing_mm"],
    )
    prediction_figure(
        prediction.baseline,
        prediction.draws,
        prediction.probabilities,
        picture,
        size_mm=prediction.baseline.shape[-1] * float(value["spacing_mm"]),
        simulated=bool(value["simulated"]),
    )
    numbers.write_text(json.dumps(value | {"files": names}, indent=1) + "\n")
    return names


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
