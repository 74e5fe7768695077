"""Its one stage and its drawer."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from torch import Tensor

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split


def changes(cohort: Cohort, size: int) -> np.ndarray:
    """Follow-up minus baseline of every pair, (N, S, S) in units of [-1, 1]."""
    paired = np.flatnonzero(np.asarray(cohort.has_followup))
    later = to_unit(centre_cut(np.asarray(cohort.followup)[paired], size))
    return later - to_unit(centre_cut(np.asarray(cohort.baseline)[paired], size))


def run(context: StageContext) -> Iterator[Step]:
    """Write the mean change. A model that learns would start from `train_seed`."""
    found = changes(read_split(context.cohort, "train"), context.settings.image.size)
    save_file({"change": found.mean(0).astype(np.float32)}, context.out / "change.safetensors")
    yield Step(1, 1, {"mean_change": float(np.abs(found).mean())})


class MeanChangeDrawer:
    """Adds the change; every draw is the same."""

    batch_size = 32

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        self.device = context.world.device
        self.change = load_file(context.inputs["change"] / "change.safetensors")["change"]
        self.share = context.settings.change.share
        self.baseline = to_unit(
            centre_cut(np.asarray(cohort.baseline), context.settings.image.size)
        )

    def __len__(self) -> int:
        return len(self.baseline)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return the same images for every index."""
        images = torch.from_numpy(self.baseline[cases] + self.share * self.change)
        return images[:, None].float().clamp(-1, 1)
