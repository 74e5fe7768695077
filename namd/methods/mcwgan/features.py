"""Stage `resnet`: a classifier of real crops, whose last hidden features McWGAN's loss reads."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import ResNet

from namd.config.errors import InputError
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.mcwgan.networks import build_resnet, save_resnet
from namd.methods.shared.crop_set import CropBatch, CropSet, read_split
from namd.models.initialisation import initialised_from
from namd.statistics.ranking import auroc
from namd.train.fit import fit
from namd.train.loop import TrainState, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "resnet"
BATCH = 128


class MalignancyObjective(nn.Module):
    """Binary cross-entropy of malignancy; every label must be known."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: CropBatch) -> StepOutput:
        """Return the mean over crops."""
        logits = self.network(batch.images)[:, 0].float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
        return StepOutput(loss, {"resnet_loss": loss.detach()})


def run(context: StageContext) -> Iterator[Step]:
    """Train on labelled train crops of both time points; keep what validates best."""
    settings, seed = context.settings.resnet, context.settings.train_seed
    crops, known = _labelled(context, "train")
    held_out = _labelled(context, "validation")
    with initialised_from(NAME, seed):
        objective = MalignancyObjective(build_resnet(settings.blocks))
    objective.to(device=context.world.device).to(memory_format=torch.channels_last)
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(len(known)),
        context.world,
        context.settings.precision,
        seed,
    )
    batches = _batches(context, crops, known)
    validate = _validator(context, objective.network, *held_out)
    for step in fit(state, batches, validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_resnet(objective.network, context.out)


def _labelled(context: StageContext, split: str) -> tuple[CropSet, np.ndarray]:
    """Return a split's crops and the numbers of those whose label is known.

    Raises InputError if a class is missing.
    """
    crops = CropSet(read_split(context.cohort, split), context.settings.image, None)
    known = np.flatnonzero(~np.isnan(crops.labels))
    if len(np.unique(crops.labels[known])) < 2:
        raise InputError(
            f"{context.cohort}: split {split} lacks malignant or benign cases, so no ResNet can "
            "be trained; build the cohort with more patients, or set wgan.feature_weight=0"
        )
    return crops, known


def _batches(
    context: StageContext, crops: CropSet, known: np.ndarray
) -> Callable[[int], CropBatch]:
    settings, seed = context.settings.resnet, context.settings.train_seed
    order = CaseOrder(NAME, seed, len(known), settings.batch_size)
    part = share_of(settings.batch_size, context.world.rank, context.world.size)

    def batch(step: int) -> CropBatch:
        turns = crops.turns(NAME, seed, step, settings.batch_size)
        return crops.batch(known[order.at(step)[part]], turns[part], context.world.device)

    return batch


def _validator(
    context: StageContext, network: ResNet, crops: CropSet, known: np.ndarray
) -> Callable[[], dict[str, float]]:
    labels = crops.labels[known]

    def validate() -> dict[str, float]:
        logits = []
        for start in range(0, len(known), BATCH):
            images = crops.batch(known[start : start + BATCH], device=context.world.device).images
            with autocast(context.settings.precision, context.world.device):
                logits.append(network(images)[:, 0].float().cpu())
        together = torch.cat(logits)
        loss = nn.functional.binary_cross_entropy_with_logits(together, torch.from_numpy(labels))
        return {
            "validation_loss": float(loss),
            "validation_auroc": auroc(labels, together.double().numpy()),
        }

    return validate
