"""The picture of a finished run: cases of the evaluated split with their draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from analysis.draws_figure import DrawnCase
    from namd.data.cohort import Cohort
    from namd.pipeline.run import RunResult
    from namd.pipeline.run_configuration import RunConfiguration
    from namd.pipeline.store import Artifact

CASES_PER_LABEL = 3


def write_picture(
    result: "RunResult", configuration: "RunConfiguration", cohort: Path, path: Path
) -> None:
    """Write the picture of a finished run; its folder is made. Raises as `draw_picture` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_picture(result.artifacts, configuration, cohort, path)


def draw_picture(
    artifacts: Mapping[str, "Artifact"],
    configuration: "RunConfiguration",
    cohort: Path,
    path: Path,
) -> None:
    """Write baseline, follow-up, draws and their spread for a few malignant and benign cases.

    The cases are the first by a hash of their ids, not chosen by hand.

    Args:
        artifacts: Of one run or trial, by label; its draws are read.
        configuration: How it was made.
        cohort: The cohort's folder.
        path: A PNG.

    Raises:
        InputError: There are no draws.
    """
    import numpy as np
    import pandas as pd
    from safetensors.numpy import load_file

    from analysis.draws_figure import draws_figure
    from namd.config.errors import InputError
    from namd.data.cohort import Cohort

    config: Any = configuration.config
    split, size = config.evaluate.split, config.image.size
    folders = _draws(artifacts, configuration)
    if not folders:
        raise InputError(f"{path}: this run has no draws to show")
    images = np.stack([load_file(folder / "images.safetensors")["images"] for folder in folders])
    case_ids = pd.read_parquet(folders[0] / "cases.parquet")["case_id"].tolist()
    whole = Cohort.read(cohort, splits=(split,))
    place = {case: row for row, case in enumerate(whole.table["case_id"])}
    cohort_cases = whole.select(np.array([place[case] for case in case_ids]))
    shown = [_drawn(cohort_cases, row, images, size) for row in chosen_cases(cohort_cases.table)]
    spacing = float(cohort_cases.table["spacing_mm"].iloc[0])
    card = cohort_cases.card
    draws_figure(
        shown,
        path,
        rendered=bool(card.get("rendered")),
        simulated=bool(card.get("simulation")),
        size_mm=size * spacing,
    )


def _draws(artifacts: Mapping[str, "Artifact"], configuration: "RunConfiguration") -> list[Path]:
    """Return the payloads of the evaluated split's draws, in order of their index."""
    split = configuration.config.evaluate.split
    labels = [
        stage.label
        for stage in configuration.stages()
        if stage.role == "draw" and stage.split == split
    ]
    return [artifacts[label].payload for label in labels if label in artifacts]


def _drawn(cases: "Cohort", row: int, images: "np.ndarray[Any, Any]", size: int) -> "DrawnCase":
    """Return what is shown of one case; images are (K, N, size, size)."""
    import numpy as np

    from analysis.draws_figure import DrawnCase
    from namd.data.intensity import to_unit
    from namd.data.rotation import centre_cut

    line = cases.table.iloc[row]
    label = "malignant" if line["label"] == 1 else "benign"
    diameter = line["SCT_LONG_DIA"]
    return DrawnCase(
        f"{label}\n{diameter:.0f} mm",
        to_unit(centre_cut(cases.baseline[row], size)),
        to_unit(centre_cut(np.asarray(cases.followup)[row], size)),
        images[:, row].astype(np.float32),
    )


def chosen_cases(table: "pd.DataFrame") -> list[int]:
    """Return row numbers of a few malignant, then a few benign cases with a follow-up."""
    from namd.config.seeding import derive_seed

    ids = table["case_id"].tolist()
    order = sorted(range(len(ids)), key=lambda row: derive_seed("picture", ids[row]))
    chosen: list[int] = []
    for label in (1, 0):
        chosen += [row for row in order if table["label"].iloc[row] == label][:CASES_PER_LABEL]
    return chosen
