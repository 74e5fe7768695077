"""Stage `perceptual`: the embedded encoder behind L_LPIPS, trained without labels."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from namd.config.seeding import generator
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import CropSet, read_split
from namd.methods.shared.settings import ImageSettings
from namd.models.initialisation import initialised_from
from namd.models.perceptual import RotationEncoder, quarter_turned, save_encoder
from namd.train.fit import fit
from namd.train.loop import TrainState
from namd.train.order import CaseOrder
from namd.train.settings import TrainingSettings
from namd.train.world import share_of

NAME = "perceptual"


class RotationObjective(nn.Module):
    """Cross-entropy of the number of quarter turns."""

    def __init__(self, encoder: RotationEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: tuple[Tensor, Tensor]) -> StepOutput:
        """Return the loss and the share of turns told right."""
        images, turns = batch
        logits = self.encoder(quarter_turned(images, turns))
        loss = nn.functional.cross_entropy(logits, turns)
        correct = (logits.argmax(1) == turns).float().mean()
        return StepOutput(loss, {"rotation_loss": loss.detach(), "accuracy": correct})


def run(context: StageContext) -> Iterator[Step]:
    """Train the encoder on train crops of both time points; labels are never read."""
    settings = context.settings.perceptual
    crops = CropSet(
        read_split(context.cohort, "train"),
        ImageSettings(context.settings.image.size, "none"),
        features=None,
        labelled=False,
    )
    with initialised_from(NAME, settings.seed):
        objective = RotationObjective(RotationEncoder(settings.channels)).to(context.world.device)
    training = TrainingSettings(
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        keep="last",
    )
    state = TrainState(
        NAME,
        objective,
        training,
        settings.num_steps,
        context.world,
        context.settings.precision,
        settings.seed,
    )
    for step in fit(state, _batches(context, crops, settings.seed), None, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_encoder(objective.encoder, context.out)


def _batches(
    context: StageContext, crops: CropSet, seed: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    order = CaseOrder(NAME, seed, len(crops), context.settings.perceptual.batch_size)
    part = share_of(order.batch_size, context.world.rank, context.world.size)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        turns = generator("quarter-turns", NAME, seed, step).integers(4, size=order.batch_size)
        images = crops.batch(order.at(step)[part], device=context.world.device).images
        return images, torch.from_numpy(turns[part].astype(np.int64)).to(images.device)

    return batch
