"""Pairs of crops, baseline and follow-up, in memory, for methods that learn on images."""

from dataclasses import dataclass

import numpy as np
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
    """

    baseline: Float[Tensor, "B 1 H W"]
    followup: Float[Tensor, "B 1 H W"]


class PairSet:
    """All pairs of one split at every rotation angle the cohort allows.

    Cases without a follow-up are left out.

    Args:
        cohort: The split's cases.
        image: Size and rotations.

    Attributes:
        case_ids: Ids of the pairs' cases.
        angles: In degrees, 0 first.
    """

    def __init__(self, cohort: Cohort, image: ImageSettings) -> None:
        paired = np.flatnonzero(np.asarray(cohort.has_followup))
        baseline = np.asarray(cohort.baseline)[paired]
        followup = np.asarray(cohort.followup)[paired]
        self.case_ids = cohort.table["case_id"].to_numpy()[paired]
        self.angles = angles_for(baseline.shape[-1], image.size, image.rotations)
        self.baseline = np.stack([rotated_crops(baseline, a, image.size) for a in self.angles])
        self.followup = np.stack([rotated_crops(followup, a, image.size) for a in self.angles])

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
        return PairBatch(before, after)

    def turns(self, purpose: str, seed: int, step: int, count: int) -> np.ndarray:
        """Return a random angle number for each of `count` pairs of a step."""
        return generator("rotation", purpose, seed, step).integers(len(self.angles), size=count)
