"""Possible follow-ups of one patient's nodule, from a DICOM series, a record and a finished run.

Research use only; not for clinical use.
"""

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from namd.config.errors import InputError
from namd.statistics.notices import RESEARCH_ONLY, SIMULATED_RUN

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from namd.data.ehr import PatientRecord
    from namd.pipeline.finished_run import FinishedRun
    from namd.pipeline.prediction import Prediction as Drawn
    from namd.pipeline.run_configuration import RunConfiguration
    from namd.pipeline.store import Store

NUM_DRAWS = 20
FILES = ("draws.npz", "prediction.png", "prediction.json")


@dataclass(frozen=True)
class Prediction:
    """What a run's model draws for one nodule, and what its judge says of the draws.

    Attributes:
        run: Key of the run.
        simulated: Whether the run learned from simulated follow-ups.
        spacing_mm: In-plane spacing of the images.
        warnings: What a reader must know, one line each.
    """

    run: str
    simulated: bool
    spacing_mm: float
    warnings: tuple[str, ...]
    _drawn: "Drawn"

    @property
    def baseline_hu(self) -> "npt.NDArray[np.int16]":
        """The crop that the model saw, (H, W) in HU."""
        from namd.data.intensity import to_hu

        return to_hu(self._drawn.baseline)

    @property
    def draws_hu(self) -> "npt.NDArray[np.int16]":
        """The draws, (K, H, W) in HU."""
        from namd.data.intensity import to_hu

        return to_hu(self._drawn.draws)

    @property
    def probabilities(self) -> "npt.NDArray[np.float64]":
        """The judge's probability of malignancy one year on, per draw, (K,)."""
        return self._drawn.probabilities

    def to_mapping(self) -> dict[str, Any]:
        """Return probabilities, their mean, spread and 95% interval, and what they rest on."""
        return {
            **self._drawn.to_mapping(),
            "warnings": list(self.warnings),
            "notice": RESEARCH_ONLY,
            "run": self.run,
            "simulated": self.simulated,
            "spacing_mm": self.spacing_mm,
        }

    @property
    def banner(self) -> list[str]:
        """Lines to read before any number of it."""
        return [*([SIMULATED_RUN] if self.simulated else []), RESEARCH_ONLY]

    def write(self, out: str | Path) -> list[str]:
        """Write `draws.npz`, `prediction.png` and `prediction.json` to a new folder, all or none.

        Returns:
            Their paths.

        Raises:
            InputError: The folder holds something, or it cannot be written.
        """
        folder = Path(out)
        refuse_occupied(folder)
        target = folder.absolute()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as draft:
                self._write_draft(Path(draft))
                target.mkdir(exist_ok=True)
                for name in FILES:
                    (Path(draft) / name).rename(target / name)
        except OSError as error:
            raise InputError(
                f"--out {folder}: cannot be written ({error.strerror}); name another place"
            ) from error
        return [str(folder / name) for name in FILES]

    def _write_draft(self, draft: Path) -> None:
        import numpy as np

        from analysis.prediction_figure import prediction_figure
        from namd.data.intensity import to_hu

        drawn = self._drawn
        np.savez_compressed(
            draft / "draws.npz",
            baseline_hu=self.baseline_hu,
            draws_hu=self.draws_hu,
            mean_hu=to_hu(drawn.draws.mean(0)),
            variance=drawn.draws.var(0),
            probabilities=drawn.probabilities,
            spacing_mm=self.spacing_mm,
        )
        prediction_figure(
            drawn.baseline,
            drawn.draws,
            drawn.probabilities,
            draft / "prediction.png",
            size_mm=drawn.baseline.shape[-1] * self.spacing_mm,
            simulated=self.simulated,
        )
        value = {**self.to_mapping(), "files": list(FILES)}
        (draft / "prediction.json").write_text(json.dumps(value, indent=1) + "\n")

    def __repr__(self) -> str:
        value = self.to_mapping()
        return "\n".join([*self.banner, f"Prediction({_interval(value)})"])

    def _repr_html_(self) -> str:
        from namd.api.frames import card_html

        value = self.to_mapping()
        facts = {
            "probability of malignancy": _interval(value),
            "record": value["report_text"],
            "missing": ", ".join(value["missing"]) or "nothing",
            "run": self.run[:12],
        }
        facts |= {f"warning {n}": line for n, line in enumerate(self.warnings, start=1)}
        return card_html("Prediction", self.banner, facts)


def predict(
    store: "Store",
    run: "FinishedRun",
    dicom: Path,
    centre: Sequence[float],
    record: "PatientRecord",
    *,
    draws: int = NUM_DRAWS,
    cohort: Path | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Draw possible follow-ups of one nodule and judge them.

    Args:
        store: Holds the run's artifacts.
        run: Whose model draws.
        dicom: A folder with the files of one axial CT series.
        centre: Of the nodule, x, y, z in patient mm as ImagePositionPatient counts.
        record: The patient's record (`namd.data.ehr.read_record`).
        draws: K, 1 or more; a method whose draws do not differ draws once, and that is warned of.
        cohort: What the run was trained on; needed only if its record lacks the spacing.
        warn: Called with each warning before the model draws.
        progress: Called with (draws done, K).

    Raises:
        InputError: The run cannot draw, or the series is not one complete CT of known geometry.
    """
    from namd.pipeline.finished_run import require_drawable

    require_centre(centre)
    require_drawable(store, run)
    spacing_mm = _spacing(run, cohort)
    from namd.data.sources.dicom import read_crop

    crop = read_crop(dicom, list(centre), spacing_mm, run.image_size)
    warnings = [SIMULATED_RUN, *crop.warnings] if run.simulated else list(crop.warnings)
    if record.missing:
        warnings.append(f"the record lacks {', '.join(record.missing)}: left out of the report")
    draws, once = distinct_draws(run.configuration, draws)
    warnings += once
    if warn is not None:
        for line in warnings:
            warn(line)
    from namd.pipeline import prediction

    drawn = prediction.predict(store, run, crop.hu, crop.spacing_mm, record, draws, progress)
    return Prediction(run.key, run.simulated, crop.spacing_mm, tuple(warnings), drawn)


def distinct_draws(configuration: "RunConfiguration", draws: int) -> tuple[int, tuple[str, ...]]:
    """Return how many draws of a run differ, and what to say if these are fewer than asked for.

    Equal draws would be told as an interval of no width, which reads as certainty.
    """
    if draws <= 1 or configuration.method.draws_differ(configuration.config):
        return draws, ()
    name = configuration.method.name
    return 1, (
        f"method {name} has one outcome under this run's configuration: 1 draw, not {draws}",
    )


def require_centre(centre: Sequence[float]) -> None:
    """Refuse a centre that is not three finite numbers. Raises InputError."""
    if len(centre) != 3 or not all(map(math.isfinite, centre)):
        raise InputError("--centre: give three numbers x,y,z in patient mm, such as -52.5,14,-120")


def refuse_occupied(folder: Path) -> None:
    """Refuse a folder that holds something already. Raises InputError."""
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


def _interval(value: dict[str, Any]) -> str:
    return (
        f"mean {value['mean']:.3f}, 95% of {len(value['probabilities'])} draws in "
        f"{value['low']:.3f}-{value['high']:.3f}"
    )
