"""Pairs of crops, baseline and follow-up, in memory, for methods that learn on images."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import angles_for, rotated_crops
from namd.methods.shared.settings import ImageSettings


@dataclass(frozen=True)
class PairBatch:
    """Pairs of images of the same cases.

    Attributes:
        baseline: In [-1, 1].
        followup: In [-1, 1], turned by the baseline's angle.
        labels: 1 malignant, 0 benign, NaN unknown.
        index: Number of each case in the pair set, for what else is known of it.
    """

    baseline: Float[Tensor, "B 1 H W"]
    followup: Float[Tensor, "B 1 H W"]
    labels: Float[Tensor, " B"]
    index: np.ndarray


class PairSet:
    """All pairs of one split at every rotation angle the cohort allows.

    Cases without a follow-up are left out.

    Args:
        cohort: The split's cases.
        image: Size and rotations.
        labelled: Whether labels are read; all are NaN if not.

    Attributes:
        table: One row per pair, as in the cohort.
        case_ids: Ids of the pairs' cases.
        angles: In degrees, 0 first.
    """

    def __init__(self, cohort: Cohort, image: ImageSettings, *, labelled: bool = False) -> None:
        paired = np.flatnonzero(np.asarray(cohort.has_followup))
        baseline = np.asarray(cohort.baseline)[paired]
        followup = np.asarray(cohort.followup)[paired]
        self.table: pd.DataFrame = cohort.table.iloc[paired].reset_index(drop=True)
        self.case_ids = self.table["case_id"].to_numpy()
        self.angles = angles_for(baseline.shape[-1], image.size, image.rotations)
        self.baseline = np.stack([rotated_crops(baseline, a, image.size) for a in self.angles])
        self.followup = np.stack([rotated_crops(followup, a, image.size) for a in self.angles])
        self.labels = np.full(len(self.table), np.nan, np.float32)
        if labelled:
            self.labels = self.table["label"].astype("float32").to_numpy(na_value=np.nan)

    def __len__(self) -> int:
        return len(self.case_ids)

    def batch(
        self, index: np.ndarray, turn: np.ndarray | None = None, device: str = "cpu"
    ) -> PairBatch:
        """Return pairs by number; `turn` picks an angle for each, by default none is turned.

        Both images of a pair take the same angle.
        """
        chosen = np.zeros(len(index), int) if turn is None else turn
        before, after = (
            torch.from_numpy(to_unit(hu[chosen, index]))[:, None].to(device)
            for hu in (self.baseline, self.followup)
        )
        return PairBatch(before, after, torch.from_numpy(self.labels[index]).to(device), index)

    def turns(self, purpose: str, seed: int, step: int, count: int) -> np.ndarray:
        """Return a random angle number for each of `count` pairs of a step."""
        return generator("rotation", purpose, seed, step).integers(len(self.angles), size=count)
