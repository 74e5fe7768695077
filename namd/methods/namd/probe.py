"""Stage `probe`: how well a linear reading of the latents tells malignant from benign.

Fitted on train, measured on validation, by constants that no configuration reaches: a search may
stop a trial on it, because no searched value redefines it, as one redefines every loss [ours].
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from namd.methods.shared.latents import load_latents
from namd.statistics.ranking import auroc

METRIC = "probe_auroc"
INVERSE_REGULARISATION = 0.01
"""Strong: there are about as many latent numbers as malignant cases."""
MAXIMUM_ITERATIONS = 1000


def run(context: StageContext) -> Iterator[Step]:
    """Fit a logistic regression to follow-up latents; write and report its validation AUROC.

    Where a split holds one class only there is nothing to measure: a warning, and no metric.
    """
    read = {split: _labelled(context, split) for split in ("train", "validation")}
    metrics = {}
    if all(len(set(labels.tolist())) == 2 for _, labels in read.values()):
        metrics[METRIC] = probe_auroc(*read["train"], *read["validation"])
    else:
        context.warn("probe: a split holds malignant or benign cases only; nothing to measure")
    _write(context.out, metrics, {split: len(labels) for split, (_, labels) in read.items()})
    yield Step(1, 1, metrics)


def probe_auroc(
    train: np.ndarray, train_labels: np.ndarray, held_out: np.ndarray, labels: np.ndarray
) -> float:
    """Return the AUROC on held-out rows of a logistic regression fitted to others."""
    probe = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAXIMUM_ITERATIONS),
    )
    probe.fit(train, train_labels)
    return float(auroc(labels, probe.decision_function(held_out)))


def _labelled(context: StageContext, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return flat posterior means of the follow-ups (N, D) and their labels, where known."""
    latents = load_latents(context.inputs["latents"], split)
    table = read_split(context.cohort, split).table.set_index("case_id")
    labels = table["label"].reindex(latents.case_ids).astype("float64").to_numpy()
    rows = latents.followup.mean[0].flatten(1).double().numpy()
    known = ~np.isnan(labels)
    return rows[known], labels[known].astype(int)


def _write(folder: Path, metrics: dict[str, float], cases: dict[str, int]) -> None:
    (folder / "probe.json").write_text(json.dumps({**metrics, "cases": cases}, sort_keys=True))
