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
from namd.methods.shared.latent_space import LatentSpace, measured_space
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
    """Encode baselines and follow-ups; latents are scaled here, once.

    Writes `<split>.safetensors` (means and log-variances of scaled latents), `<split>.txt`
    (case ids in the same order) and, unless one factor does, how they were scaled.
    """
    vae, scale = load_vae(context.inputs["vae"])
    vae.to(context.world.device)
    space: LatentSpace | None = None
    for number, split in enumerate(SPLITS):
        cohort = read_split(context.cohort, split)
        cohort = cohort.select(np.flatnonzero(np.asarray(cohort.has_followup)))
        posteriors = _encode_split(context, vae, cohort, split)
        # The first split is train: it decides the scaling of both.
        space = space or measured_space(
            context.settings.latents, scale, [turned[0] for turned in posteriors.values()]
        )
        tensors = _scaled(posteriors, space)
        save_file(tensors, context.out / f"{split}.safetensors")
        (context.out / f"{split}.txt").write_text("\n".join(cohort.table["case_id"]))
        space.save(context.out)
        yield Step(number + 1, len(SPLITS), {f"{split}_cases": float(len(cohort))})


def _encode_split(
    context: StageContext, vae: GreyAutoencoder, cohort: Cohort, split: str
) -> dict[str, list[Posterior]]:
    """Return the unscaled posteriors of both time points, one for each angle."""
    image = context.settings.image
    angles = angles_for(cohort.baseline.shape[-1], image.size, image.rotations)
    if split != "train":
        angles = angles[:1]
    return {
        name: [
            encode_crops(vae, rotated_crops(stored, angle, image.size), context) for angle in angles
        ]
        for name, stored in (
            ("baseline", cohort.baseline),
            ("followup", np.asarray(cohort.followup)),
        )
    }


def _scaled(posteriors: dict[str, list[Posterior]], space: LatentSpace) -> dict[str, Tensor]:
    tensors = {}
    for name, turned in posteriors.items():
        scaled = [space.posterior(posterior) for posterior in turned]
        tensors[f"{name}_mean"] = torch.stack([p.mean for p in scaled]).contiguous()
        tensors[f"{name}_logvar"] = torch.stack([p.logvar for p in scaled]).contiguous()
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
