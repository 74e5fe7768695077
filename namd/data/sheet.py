"""A contact sheet: what baselines and follow-ups of a cohort look like, beside their labels."""

import io
import uuid
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from namd.config.errors import InputError
from namd.config.seeding import derive_seed
from namd.data.card import law_of, simulated_columns
from namd.data.cohort import Cohort
from namd.data.intensity import HIGH_HU, LOW_HU
from namd.data.schema import CODES, MALIGNANT

PAIRS_PER_ROW = 6
CELL_INCHES = 1.1
COLOURS = {"malignant": "#c0392b", "benign": "#2c6fbb", "unknown": "#666666"}


def write_sheet(cohort: Cohort, path: str | Path, num: int = 24) -> Path:
    """Write a PNG of `num` cases, half of them malignant where there are enough.

    Cases are chosen by the hash of their id, so the same cohort gives the same sheet.

    Raises:
        InputError: `num` is not positive, the cohort empty or the path cannot be written.
    """
    path = Path(path)
    if num < 1:
        raise InputError(f"--num {num}: a sheet shows at least 1 case")
    if not len(cohort):
        raise InputError("the cohort has no case to show")
    rows = _choose(cohort, num)
    columns = min(PAIRS_PER_ROW, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(
        figsize=(2 * columns * CELL_INCHES, lines * (CELL_INCHES + 0.35) + 0.5), dpi=150
    )
    axes = figure.subplots(lines, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for place, row in enumerate(rows):
        line, column = divmod(place, columns)
        _draw_case(cohort, int(row), axes[line, 2 * column], axes[line, 2 * column + 1])
    figure.suptitle(_title(cohort), fontsize=8)
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - 0.6 / figure.get_figheight(), 0.04, 0.28)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(picture.getvalue())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def _choose(cohort: Cohort, num: int) -> npt.NDArray[np.intp]:
    ids = cohort.table["case_id"]
    order = np.array(sorted(range(len(ids)), key=lambda i: derive_seed("sheet", str(ids.iloc[i]))))
    malignant = (cohort.table["label"] == MALIGNANT).to_numpy()[order]
    first, others = order[malignant], order[~malignant]
    half = min(len(first), max(num // 2, num - len(others)))
    return np.concatenate([first[:half], others[: num - half]])


def _draw_case(cohort: Cohort, row: int, left: Axes, right: Axes) -> None:
    case = cohort.table.iloc[row]
    label = CODES["label"].get(case["label"], "unknown")
    _draw_crop(left, cohort.baseline[row])
    mask = cohort.stacks["mask"][row]
    if mask.any():
        left.contour(mask, levels=[0.5], colors=COLOURS[label], linewidths=0.4)
    left.set_title(f"{case['case_id']}\n{label} {_mm(case['SCT_LONG_DIA'])}", fontsize=5, pad=2)
    if cohort.stacks["followup"][row].any():
        _draw_crop(right, cohort.stacks["followup"][row])
        after = f"{case['months']:.0f} months on\n{_mm(case['followup_SCT_LONG_DIA'])}"
        right.set_title(after, fontsize=5, pad=2, color=COLOURS[label])
    else:
        right.text(0.5, 0.5, "no follow-up", fontsize=5, ha="center", va="center")


def _draw_crop(axis: Axes, crop: npt.NDArray[np.int16]) -> None:
    axis.imshow(crop, cmap="gray", vmin=LOW_HU, vmax=HIGH_HU, interpolation="nearest")


def _title(cohort: Cohort) -> str:
    drawn = "followup" in simulated_columns(cohort.card)
    own = drawn and (cohort.card.get("values") or {}).get("followup", {}).get("kept", 0)
    simulated = "follow-ups simulated" if drawn else "follow-ups real"
    if own:
        simulated = "follow-ups in part simulated"
    if cohort.has_followup is None or not cohort.has_followup.any():
        simulated = "no follow-ups"
    elif drawn and law_of(cohort.card):
        simulated += f" (law {law_of(cohort.card)})"
    side_mm = cohort.size * cohort.spacing_mm
    return (
        f"{cohort.card.get('source', 'cohort')}: {simulated}; {side_mm:g} mm a side, "
        f"{LOW_HU}...{HIGH_HU} HU; pairs of baseline (contour) and follow-up. Research use only."
    )


def _mm(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.0f} mm"
