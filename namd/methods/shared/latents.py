"""Stage `latents`: the posterior of every train and validation crop, once per rotation angle."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import angles_for, rotated_crops
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from namd.models.vae import GreyAutoencoder, Posterior, load_vae
from namd.train.loop import autocast

SPLITS = ("train", "validation")
BATCH = 64


class PairedLatents:
    """The `latents` artifact of one split: scaled posteriors of both time points.

    Attributes:
        case_ids: Of the cases that have a follow-up.
        baseline: Posterior means and log-variances, (A, N, C, h, w), A rotation angles.
        followup: Likewise.
    """

    def __init__(self, tensors: dict[str, Tensor], case_ids: np.ndarray) -> None:
        self.case_ids = case_ids
        self.baseline = Posterior(tensors["baseline_mean"], tensors["baseline_logvar"])
        self.followup = Posterior(tensors["followup_mean"], tensors["followup_logvar"])

    @property
    def num_angles(self) -> int:
        """Rotation angles held."""
        return int(self.baseline.mean.shape[0])

    def __len__(self) -> int:
        return len(self.case_ids)


def load_latents(folder: Path, split: str) -> PairedLatents:
    """Read one split of a `latents` artifact."""
    ids = np.array((folder / f"{split}.txt").read_text().split("\n"))
    return PairedLatents(load_file(folder / f"{split}.safetensors"), ids)


def run(context: StageContext) -> Iterator[Step]:
    """Encode baselines and follow-ups; the scaling factor is applied here, once.

    Writes `<split>.safetensors` (means and log-variances of scaled latents) and `<split>.txt`
    (case ids in the same order).
    """
    vae, scale = load_vae(context.inputs["vae"])
    vae.to(context.world.device)
    for number, split in enumerate(SPLITS):
        cohort = read_split(context.cohort, split)
        cohort = cohort.select(np.flatnonzero(np.asarray(cohort.has_followup)))
        tensors = _encode_split(context, vae, scale, cohort, split)
        save_file(tensors, context.out / f"{split}.safetensors")
        (context.out / f"{split}.txt").write_text("\n".join(cohort.table["case_id"]))
        yield Step(number + 1, len(SPLITS), {f"{split}_cases": float(len(cohort))})


def _encode_split(
    context: StageContext, vae: GreyAutoencoder, scale: float, cohort: Cohort, split: str
) -> dict[str, Tensor]:
    image = context.settings.image
    angles = angles_for(cohort.baseline.shape[-1], image.size, image.rotations)
    if split != "train":
        angles = angles[:1]
    tensors = {}
    for name, stored in (("baseline", cohort.baseline), ("followup", np.asarray(cohort.followup))):
        turned = [
            encode_crops(vae, rotated_crops(stored, angle, image.size), context) for angle in angles
        ]
        shift = 2 * float(np.log(scale))
        tensors[f"{name}_mean"] = torch.stack([p.mean * scale for p in turned]).contiguous()
        tensors[f"{name}_logvar"] = torch.stack([p.logvar + shift for p in turned]).contiguous()
    return tensors


@torch.no_grad()
def encode_crops(vae: GreyAutoencoder, hu: np.ndarray, context: StageContext) -> Posterior:
    """Return the unscaled posterior of int16 crops (N, H, W), on the CPU."""
    parts = []
    for first in range(0, len(hu), BATCH):
        images = torch.from_numpy(to_unit(hu[first : first + BATCH]))[:, None].to(
            context.world.device
        )
        with autocast(context.settings.precision, context.world.device):
            posterior = vae.encode(images)
        parts.append((posterior.mean.float().cpu(), posterior.logvar.float().cpu()))
    means, logvars = zip(*parts, strict=True)
    return Posterior(torch.cat(means), torch.cat(logvars))
