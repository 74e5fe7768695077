"""Stage `regressor`: a U-Net that predicts the change, and its drawer."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.losses.reconstruction import reconstruction_loss
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.regression.settings import RegressionSettings
from namd.methods.shared.crop_set import read_split
from namd.methods.shared.pair_set import PairBatch, PairSet
from namd.models.initialisation import initialised_from
from namd.train.fit import fit
from namd.train.loop import TrainState, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "regressor"
BATCH = 64


class Regression(nn.Module):
    """x2^ = x1 + U(x1), one image of the same size.

    The last convolution starts at zero, so that an untrained network copies the baseline.
    """

    def __init__(self, network: UNet2DModel) -> None:
        super().__init__()
        self.network = network

    def predict(self, baseline: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """Return the follow-up; values may leave [-1, 1]."""
        return baseline + self.network(baseline, timestep=0).sample

    def forward(self, batch: PairBatch) -> StepOutput:
        """Return L = |x2^ - x2|, averaged over pixels."""
        loss = reconstruction_loss(self.predict(batch.baseline), batch.followup)
        return StepOutput(loss, {"l1": loss.detach()})


def build_network(settings: RegressionSettings, size: int) -> UNet2DModel:
    """Return the U-Net: residual blocks and group norm, no attention, zero output at first."""
    levels = len(settings.block_out_channels)
    network = UNet2DModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        block_out_channels=tuple(settings.block_out_channels),
        layers_per_block=settings.layers_per_block,
        norm_num_groups=settings.norm_num_groups,
        add_attention=False,
    )
    nn.init.zeros_(network.conv_out.weight)
    nn.init.zeros_(network.conv_out.bias)
    return network


def run(context: StageContext) -> Iterator[Step]:
    """Train on train pairs, keep what validates best; writes the network in diffusers' format."""
    settings, seed = context.settings.regression, context.settings.train_seed
    pairs, held_out = (
        PairSet(read_split(context.cohort, split), context.settings.image)
        for split in ("train", "validation")
    )
    with initialised_from(NAME, seed):
        objective = Regression(build_network(settings, context.settings.image.size))
    objective.to(device=context.world.device).to(memory_format=torch.channels_last)
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(len(pairs)),
        context.world,
        context.settings.precision,
        seed,
    )
    validate = _validator(context, objective, held_out)
    for step in fit(state, _batches(context, pairs), validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    objective.network.save_pretrained(context.out / "unet")


def _batches(context: StageContext, pairs: PairSet) -> Callable[[int], PairBatch]:
    settings, seed = context.settings.regression, context.settings.train_seed
    order = CaseOrder(NAME, seed, len(pairs), settings.batch_size)
    part = share_of(settings.batch_size, context.world.rank, context.world.size)

    def batch(step: int) -> PairBatch:
        index = order.at(step)
        turns = pairs.turns(NAME, seed, step, len(index))
        return pairs.batch(index[part], turns[part], context.world.device)

    return batch


def _validator(
    context: StageContext, objective: Regression, pairs: PairSet
) -> Callable[[], dict[str, float]]:
    def validate() -> dict[str, float]:
        absolute, squared = 0.0, 0.0
        for first in range(0, len(pairs), BATCH):
            index = np.arange(first, min(first + BATCH, len(pairs)))
            batch = pairs.batch(index, device=context.world.device)
            with autocast(context.settings.precision, context.world.device):
                error = (objective.predict(batch.baseline) - batch.followup).float()
            absolute += float(error.abs().mean()) * len(index)
            squared += float(error.square().mean()) * len(index)
        mean = squared / len(pairs)
        return {
            "validation_loss": absolute / len(pairs),
            "validation_psnr": float(10 * np.log10(4 / max(mean, 1e-12))),
        }

    return validate


class RegressionDrawer:
    """Predicts the follow-up; there is one draw."""

    batch_size = 64

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        self.device = context.world.device
        self.precision = context.settings.precision
        network = UNet2DModel.from_pretrained(context.inputs["regressor"] / "unet")
        self.objective = Regression(network).eval().requires_grad_(False)
        self.objective.to(device=self.device).to(memory_format=torch.channels_last)
        crops = centre_cut(np.asarray(cohort.baseline), context.settings.image.size)
        self.baseline = torch.from_numpy(to_unit(crops))[:, None]

    def __len__(self) -> int:
        return len(self.baseline)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:  # noqa: ARG002
        """Return the prediction, the same for every index."""
        before = self.baseline[torch.from_numpy(cases)].to(self.device)
        with autocast(self.precision, self.device):
            return self.objective.predict(before).float().clamp(-1, 1)
