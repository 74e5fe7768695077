"""Copies of train crops in a finished run: in one line, and the nearest pairs as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from analysis.copies_figure import Pair
    from namd.pipeline.run_configuration import RunConfiguration
    from namd.pipeline.store import Artifact

SHOWN_PAIRS = 6


def copies_line(row: Mapping[str, Any]) -> str | None:
    """Return in one line what a stored row of the table says of copies; None if nothing."""
    found = row.get("nearest_train")
    if not isinstance(found, Mapping):
        return None
    copies, distance, real = found["copies"], found["distance"], found["real_distance"]
    bounds = "" if copies["low"] is None else f" [{copies['low']:.1%}, {copies['high']:.1%}]"
    return (
        f"{copies['value']:.1%}{bounds} of draws as near a train crop as the nearest 1% of "
        f"{found['real_cases']} real follow-ups; mean distance {distance['value']:.3f}, of real "
        f"ones {real['value']:.3f}"
    )


def draw_copies(
    artifacts: Mapping[str, "Artifact"],
    configuration: "RunConfiguration",
    cohort: Path,
    path: Path,
) -> None:
    """Write the draws that are nearest to a train crop, and the nearest real follow-ups beside.

    Of each patient the nearest image alone is shown, so that several patients are seen.

    Args:
        artifacts: Of one run or trial, by label.
        configuration: How it was made.
        cohort: The cohort's folder.
        path: A PNG.

    Raises InputError if the run did not measure copies.
    """
    import numpy as np
    import pandas as pd

    from analysis.copies_figure import copies_figure
    from namd.config.errors import InputError
    from namd.evaluate.copies import DISTANCES_FILE, nearest_hundredth
    from namd.evaluate.scores import DRAWN

    stages = {s.label: s for s in configuration.stages() if s.label in artifacts}
    payloads = {k: artifacts[k].payload for k, stage in stages.items() if stage.role == "copies"}
    if not payloads:
        raise InputError(
            f"{path}: this run did not compare its draws with train crops; set evaluate.copies=true"
        )
    frame = pd.concat([pd.read_parquet(payload / DISTANCES_FILE) for payload in payloads.values()])
    real = frame[(frame["row"] == "real_followup") & frame["distance"].notna()]
    if real.empty:
        raise InputError(f"{path}: no evaluated case has a follow-up to compare with")
    draws = {s.index: artifacts[k].payload for k, s in stages.items() if s.role == "draw"}
    crops = _Crops(configuration, cohort, {k: v for k, v in draws.items() if k is not None})
    distances = real["distance"].to_numpy(float)
    path.parent.mkdir(parents=True, exist_ok=True)
    copies_figure(
        crops.nearest_pairs(frame[frame["row"] == DRAWN]),
        crops.nearest_pairs(real),
        path,
        threshold=float(nearest_hundredth(distances, np.ones((len(distances), 1)))[0]),
        simulated=crops.simulated,
    )


class _Crops:
    """The images of a run that a line of distances names.

    Attributes:
        simulated: Whether a program made the follow-ups.
    """

    def __init__(
        self, configuration: "RunConfiguration", cohort: Path, draws: Mapping[int, Path]
    ) -> None:
        from namd.data.cohort import Cohort

        config: Any = configuration.config
        self._size, self._draws = config.image.size, draws
        self._cohort = Cohort.read(cohort)
        self._place = {case: n for n, case in enumerate(self._cohort.table["case_id"])}
        self.simulated = bool(self._cohort.card.get("simulation"))

    def nearest_pairs(self, frame: "pd.DataFrame") -> "list[Pair]":
        """Return the nearest pairs of some distances, one a patient."""
        near = frame.dropna(subset="distance").sort_values(["distance", "case_id", "k"])
        whose = near["case_id"].map(self._cohort.table.set_index("case_id")["patient_id"])
        return [
            self._pair(line)
            for line in near[~whose.duplicated()].head(SHOWN_PAIRS).to_dict("records")
        ]

    def _pair(self, line: Mapping[str, Any]) -> "Pair":
        """Return an image, its nearest train crop as it was turned, and its own baseline."""
        from analysis.copies_figure import Pair
        from namd.evaluate.scores import DRAWN

        case = str(line["case_id"])
        drawn = line["row"] == DRAWN
        return Pair(
            float(line["distance"]),
            self._draw(case, int(line["k"])) if drawn else self._crop(case, "followup"),
            self._crop(str(line["train_case"]), str(line["train_time"]), int(line["angle"])),
            self._crop(case, "baseline"),
        )

    def _crop(self, case: str, time: str, angle: int = 0) -> "np.ndarray[Any, Any]":
        from namd.data.intensity import to_unit
        from namd.data.rotation import rotated_crops

        return to_unit(
            rotated_crops(self._cohort.stacks[time][self._place[case]], angle, self._size)
        )

    def _draw(self, case: str, k: int) -> "np.ndarray[Any, Any]":
        import numpy as np
        import pandas as pd
        from safetensors.numpy import load_file

        folder = self._draws[k]
        place = pd.read_parquet(folder / "cases.parquet")["case_id"].tolist().index(case)
        return load_file(folder / "images.safetensors")["images"][place].astype(np.float32)
