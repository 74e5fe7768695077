"""One patient's possible follow-ups, drawn by the artifacts of a finished run."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from namd.config.errors import InputError
from namd.config.fingerprint import fingerprint
from namd.data import schema
from namd.data.cohort import Cohort
from namd.data.ehr import PatientRecord
from namd.data.intensity import to_unit
from namd.data.report import report_text
from namd.evaluate.scores import judged
from namd.methods.base import Stage, StageContext, cut
from namd.models.judge import load_judge
from namd.pipeline.run import recorded_runs
from namd.pipeline.run_configuration import RunConfiguration, from_mapping
from namd.pipeline.store import Artifact, Store
from namd.sample.draws import Drawer, draw
from namd.train.world import current_world

INTERVAL = 0.95


@dataclass(frozen=True)
class FinishedRun:
    """A run whose artifacts can draw.

    Attributes:
        key: Its key.
        configuration: How it was made.
        keys: Stage keys by label.
        spacing_mm: Of the crops it was trained on; None where its record does not say.
    """

    key: str
    configuration: RunConfiguration
    keys: Mapping[str, str]
    spacing_mm: float | None

    @property
    def image_size(self) -> int:
        """Pixels per side of the images that its model sees."""
        return int(self.configuration.config.image.size)


@dataclass(frozen=True)
class Prediction:
    """What a run's model draws for one case, and what its judge says of it.

    Attributes:
        baseline: (H, W) in [-1, 1].
        draws: (K, H, W) in [-1, 1].
        probabilities: Of malignancy, by the judge, per draw.
        report_text: What the model was told of the record.
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


def finished_run(store: Store, key: str) -> FinishedRun:
    """Return the recorded run of a key, or of the start of one.

    Raises InputError where no run, or more than one, is meant.
    """
    every = recorded_runs(store)
    runs = {name: run for name, run in every.items() if name.startswith(key)}
    if len(runs) != 1 or not key:
        found = f"{len(runs)} runs" if runs else "no finished run"
        known = ", ".join(name[:12] for name in runs or every) or "none"
        raise InputError(f"--run {key}: {found} of this key in the store; there: {known}")
    ((name, recorded),) = runs.items()
    mapping = {**recorded["config"], "method": recorded["method"]}
    spacing = (recorded.get("crops") or {}).get("spacing_mm")
    return FinishedRun(
        name,
        from_mapping(mapping, recorded.get("preset")),
        {stage["name"]: stage["key"] for stage in recorded["stages"]},
        None if spacing is None else float(spacing),
    )


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
    case = _case(hu, spacing_mm, record)
    stage = _draw_stage(run)
    context = _context(store, run, stage)
    module, _, attribute = str(stage.values["drawer"]).partition(":")
    drawer: Drawer = getattr(importlib.import_module(module), attribute)(context, case)
    drawn = []
    for index in range(num_draws):
        drawn.append(draw(drawer, index))
        if progress is not None:
            progress(index + 1, num_draws)
    images = torch.cat(drawn)
    judge = load_judge(_artifact(store, run, "judge").payload, context.world.device)
    logits, _ = judged(judge, images, context.world.device)
    return Prediction(
        baseline=to_unit(case.baseline[0]),
        draws=images[:, 0].numpy(),
        probabilities=torch.sigmoid(logits.double()).numpy(),
        report_text=_told(context, record),
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


def _draw_stage(run: FinishedRun) -> Stage:
    for stage in run.configuration.stages():
        if "drawer" in stage.values:
            return stage
    raise InputError(f"--run {run.key[:12]}: its method has no model that draws")


def _context(store: Store, run: FinishedRun, stage: Stage) -> StageContext:
    """Return what the drawer of a draw stage reads; it writes nothing."""
    inputs = {name: _artifact(store, run, name).payload for name in stage.upstream}
    return StageContext(
        settings=cut(run.configuration.config, (*stage.reads, *stage.seeds)),
        values=stage.values,
        cohort_path=store.backend.working_folder("cache"),
        inputs=inputs,
        outputs={},
        checkpoints=store.backend.working_folder("cache"),
        world=current_world(),
        warn=lambda _line: None,
    )


def _artifact(store: Store, run: FinishedRun, label: str) -> Artifact:
    key = run.keys.get(label)
    artifact = None if key is None else store.find(label, key)
    if artifact is None:
        raise InputError(
            f"--run {run.key[:12]}: its {label} is no longer in the store; run it again"
        )
    return artifact


def _told(context: StageContext, record: PatientRecord) -> str:
    """Return the report that the model read; of a method that reads none, the whole record's."""
    report = getattr(getattr(context.settings, "finetune", SimpleNamespace()), "report", None)
    if report is None:
        return report_text(record.values)
    return report_text(record.values, report.include, report.perpendicular)
