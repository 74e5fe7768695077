"""One patient's possible follow-ups, drawn by the artifacts of a finished run."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from namd.config.errors import InputError
from namd.config.fingerprint import fingerprint
from namd.config.threads import fixed_threads
from namd.data import schema
from namd.data.cohort import Cohort
from namd.data.ehr import PatientRecord
from namd.data.intensity import to_unit
from namd.data.report import report_text
from namd.evaluate.scores import judged
from namd.methods.base import Stage, StageContext, num_threads
from namd.methods.shared.stages import JUDGE
from namd.models.judge import load_judge
from namd.pipeline.finished_run import FinishedRun, draw_stage, find_artifact
from namd.pipeline.store import Store
from namd.sample.draws import Drawer, ReportReader, draw
from namd.train.world import current_world

INTERVAL = 0.95


@dataclass(frozen=True)
class Prediction:
    """What a run's model draws for one case, and what its judge says of it.

    Attributes:
        baseline: (H, W) in [-1, 1].
        draws: (K, H, W) in [-1, 1].
        probabilities: Of malignancy, by the judge, per draw.
        report_text: The record as the model read it.
        missing: Features of the record that are not known.
    """

    baseline: npt.NDArray[np.float32]
    draws: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]
    report_text: str
    missing: tuple[str, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Return the probabilities, their mean, spread and 95% interval over draws."""
        low, high = np.quantile(self.probabilities, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        several = len(self.probabilities) > 1
        return {
            "probabilities": [float(value) for value in self.probabilities],
            "mean": float(self.probabilities.mean()),
            "std": float(self.probabilities.std(ddof=1)) if several else None,
            "low": float(low),
            "high": float(high),
            "report_text": self.report_text,
            "missing": list(self.missing),
        }


def predict(
    store: Store,
    run: FinishedRun,
    hu: npt.NDArray[np.int16],
    spacing_mm: float,
    record: PatientRecord,
    num_draws: int,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Draw follow-ups of one case and judge them.

    The noise depends on the run's draw seed, the case's own content and the draw index, so that
    the same question has the same answer.

    Args:
        store: Holds the run's artifacts.
        run: Whose model draws.
        hu: The baseline crop, (S, S), in the run's spacing.
        spacing_mm: That spacing.
        record: The patient's EHR.
        num_draws: K.
        progress: Called with (draws done, K).

    Raises:
        InputError: An artifact of the run is gone, or its method cannot draw.
    """
    if num_draws < 1:
        raise InputError(f"--draws is 1 or more, not {num_draws}")
    with fixed_threads(num_threads(run.configuration.config)):
        return _predicted(store, run, _case(hu, spacing_mm, record), record, num_draws, progress)


def _predicted(
    store: Store,
    run: FinishedRun,
    case: Cohort,
    record: PatientRecord,
    num_draws: int,
    progress: Callable[[int, int], None] | None,
) -> Prediction:
    stage = draw_stage(run)
    context = _context(store, run, stage)
    module, _, attribute = str(stage.constants["drawer"]).partition(":")
    drawer: Drawer = getattr(importlib.import_module(module), attribute)(
        context, context.cohort.view(case)
    )
    drawn = []
    for index in range(num_draws):
        drawn.append(draw(drawer, index))
        if progress is not None:
            progress(index + 1, num_draws)
    images = torch.cat(drawn)
    judge = load_judge(find_artifact(store, run, JUDGE).payload, context.world.device)
    logits, _ = judged(judge, images, context.world.device)
    return Prediction(
        baseline=to_unit(case.baseline[0]),
        draws=images[:, 0].numpy(),
        probabilities=torch.sigmoid(logits.double()).numpy(),
        report_text=_report(drawer, record),
        missing=record.missing,
    )


def _case(hu: npt.NDArray[np.int16], spacing_mm: float, record: PatientRecord) -> Cohort:
    """Return a cohort of this case alone, named by its content."""
    content = {"hu": hu.tolist(), "spacing_mm": spacing_mm, "record": record.values}
    name = f"prediction-{fingerprint(content)[:16]}"
    columns: dict[str, Any] = dict.fromkeys(schema.COLUMN_TYPES, np.nan) | record.values
    columns |= dict.fromkeys(schema.IDENTIFIERS, name)
    columns |= {"split": "test", "spacing_mm": spacing_mm}
    return Cohort(pd.DataFrame([columns]), hu[None].astype(np.int16))


def _context(store: Store, run: FinishedRun, stage: Stage) -> StageContext:
    """Return what the drawer of a draw stage reads; it writes nothing."""
    inputs = {name: find_artifact(store, run, name).payload for name in stage.upstream}
    nowhere = store.backend.folder / "cache"
    return StageContext(
        stage=stage,
        config=run.configuration.config,
        cohort_path=nowhere,
        artifacts=inputs,
        outputs={},
        checkpoints=nowhere,
        world=current_world(),
        warn=lambda _line: None,
    )


def _report(drawer: Drawer, record: PatientRecord) -> str:
    """Return the report that the model read; of one that reads none, the whole record's."""
    if isinstance(drawer, ReportReader):
        return drawer.report(record.values)
    return report_text(record.values)
