"""Its one stage and its drawer."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file
from torch import Tensor

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from tests.throwaway.mean_change.bodies import changes

KEPT = 16


def run(context: StageContext) -> Iterator[Step]:
    """Write some of the training pairs' changes, chosen by `train_seed`."""
    found = changes(read_split(context.cohort, "train"), context.settings.image.size)
    order = generator("borrowed-change", context.settings.train_seed).permutation(len(found))
    kept = found[order[:KEPT]].astype(np.float32)
    save_file({"changes": kept}, context.out / "changes.safetensors")
    yield Step(1, 1, {"mean_change": float(np.abs(kept).mean())})


class BorrowedChangeDrawer:
    """Adds a change that depends on draw seed, case and draw index alone."""

    batch_size = 32

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        self.device = context.world.device
        self.changes = load_file(context.inputs["change"] / "changes.safetensors")["changes"]
        self.share, self.seed = context.settings.change.share, context.settings.draw_seed
        self.case_ids = cohort.table["case_id"].tolist()
        self.baseline = to_unit(
            centre_cut(np.asarray(cohort.baseline), context.settings.image.size)
        )

    def __len__(self) -> int:
        return len(self.case_ids)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return draw `index` of these cases."""
        chosen = [
            generator("borrow", self.seed, self.case_ids[case], index).integers(len(self.changes))
            for case in cases
        ]
        images = torch.from_numpy(self.baseline[cases] + self.share * self.changes[chosen])
        return images[:, None].float().clamp(-1, 1)
