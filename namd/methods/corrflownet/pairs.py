"""Stage `registration`, and the pairs that every training of CorrFlowNet reads."""

from collections.abc import Iterator

import numpy as np
from safetensors.numpy import load_file, save_file

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.methods.base import StageContext, Step
from namd.methods.corrflownet.registration import (
    Motion,
    background_correlation,
    background_weights,
    registered,
)
from namd.methods.shared.crop_set import read_split

SPLITS = ("train", "validation")
STAGE = "registration"


def run(context: StageContext) -> Iterator[Step]:
    """Move every follow-up onto its baseline.

    Writes, per split, `<split>.safetensors`: `followup` (int16, (N, S, S), of the cases that have
    one, in the cohort's order) and `motion` (N, 3: degrees, rows, columns).
    """
    search = context.settings.registration
    for number, split in enumerate(SPLITS):
        cohort = read_pairs(context, split)
        before, after = np.asarray(cohort.baseline), np.asarray(cohort.followup)
        moved, motions = np.empty_like(after), []
        gains = np.zeros(len(cohort))
        weights = background_weights(cohort.size, search.nodule_share, search.maximum_shift)
        for case in range(len(cohort)):
            moved[case], motion = registered(before[case], after[case], search)
            motions.append(motion)
            fixed = to_unit(before[case])
            gains[case] = background_correlation(
                fixed, to_unit(moved[case]), weights
            ) - background_correlation(fixed, to_unit(after[case]), weights)
        found = {"followup": moved, "motion": _as_rows(motions)}
        save_file(found, context.out / f"{split}.safetensors")
        still = [motion == Motion() for motion in motions]
        metrics = {
            f"{split}_moved_share": 1 - float(np.mean(still)) if still else 0.0,
            f"{split}_correlation_gain": float(gains.mean()) if still else 0.0,
        }
        yield Step(number + 1, len(SPLITS), metrics)


def read_pairs(context: StageContext, split: str) -> Cohort:
    """Return the cases that have a follow-up; it is registered if the run registers them."""
    cohort = read_split(context.cohort, split)
    cohort = cohort.select(np.flatnonzero(np.asarray(cohort.has_followup)))
    if STAGE in context.stage.upstream:
        moved = load_file(context.inputs[STAGE] / f"{split}.safetensors")["followup"]
        cohort.followup = moved
    return cohort


def _as_rows(motions: list[Motion]) -> np.ndarray:
    rows = [(motion.degrees, *motion.shift) for motion in motions]
    return np.array(rows, np.float32).reshape(-1, 3)
