"""Stage `judge`: the classifier that scores every row's images, trained on real crops alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import CropBatch, CropSet, read_split
from namd.methods.shared.judge_settings import JudgeSettings
from namd.models.initialisation import initialised_from
from namd.models.judge import Judge, save_judge
from namd.statistics.ranking import auroc
from namd.train.fit import fit
from namd.train.loop import TrainState, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "judge"
BATCH = 256


class JudgeObjective(nn.Module):
    """Binary cross-entropy of the logit, labels smoothed if the settings ask for it."""

    def __init__(self, judge: Judge, smoothing: float) -> None:
        super().__init__()
        self.judge = judge
        self.smoothing = smoothing

    def forward(self, batch: CropBatch) -> StepOutput:
        """Return the mean over crops; every label must be known."""
        targets = batch.labels * (1 - self.smoothing) + self.smoothing / 2
        logits = self.judge(batch.images).float()
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        return StepOutput(loss, {"judge_loss": loss.detach()})


def run(context: StageContext) -> Iterator[Step]:
    """Train on train crops of both time points whose label is known; keep what validates best."""
    settings = _settings(context)
    if settings.architecture.image_size != context.settings.image.size:
        raise InputError(
            f"judge.architecture.image_size {settings.architecture.image_size} must equal "
            f"image.size {context.settings.image.size}"
        )
    crops, known = _labelled(context, "train")
    held_out, held_out_known = _labelled(context, "validation")
    if crops.unhonoured:
        context.warn(crops.unhonoured)
    with initialised_from(NAME, settings.seed):
        objective = JudgeObjective(Judge(settings.architecture), settings.label_smoothing)
    objective.to(context.world.device)
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(len(known)),
        context.world,
        context.settings.precision,
        settings.seed,
    )
    batches = _batches(context, crops, known)
    validate = _validator(context, objective.judge, held_out, held_out_known)
    for step in fit(state, batches, validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_judge(objective.judge, context.out)
    context.notes["judge"] = validate()


def _settings(context: StageContext) -> JudgeSettings:
    """Return how this judge is trained: a further one has a seed of its own."""
    settings: JudgeSettings = context.settings.judge
    return replace(settings, seed=int(dict(context.values).get("seed", settings.seed)))


def _labelled(context: StageContext, split: str) -> tuple[CropSet, Int[np.ndarray, " N"]]:
    """Return a split's crops and the numbers of those whose label is known.

    Raises InputError if a class is missing: nothing could be learnt or validated.
    """
    crops = CropSet(read_split(context.cohort, split), context.settings.image, None)
    known = np.flatnonzero(~np.isnan(crops.labels))
    if len(np.unique(crops.labels[known])) < 2:
        raise InputError(
            f"{context.cohort}: split {split} lacks malignant or benign cases, so no judge "
            "can be trained; build the cohort with more patients"
        )
    return crops, known


def _batches(
    context: StageContext, crops: CropSet, known: np.ndarray
) -> Callable[[int], CropBatch]:
    settings = _settings(context)
    order = CaseOrder(NAME, settings.seed, len(known), settings.batch_size)
    part = share_of(settings.batch_size, context.world.rank, context.world.size)
    shape = (settings.batch_size, 1, context.settings.image.size, context.settings.image.size)

    def batch(step: int) -> CropBatch:
        turns = crops.turns(NAME, settings.seed, step, settings.batch_size)
        random = generator("judge-augmentation", settings.seed, step)
        shifts = random.integers(-settings.shift, settings.shift + 1, (settings.batch_size, 2))
        noise = settings.noise * random.standard_normal(shape, np.float32)
        device = context.world.device
        plain = crops.batch(known[order.at(step)[part]], turns[part], device)
        moved = shifted(plain.images, torch.from_numpy(shifts[part]).to(device))
        if settings.mirror:
            mirrored = random.random(settings.batch_size) < 0.5
            which = torch.from_numpy(mirrored[part]).to(device)[:, None, None, None]
            moved = torch.where(which, moved.flip(3), moved)
        images = moved + torch.from_numpy(noise[part]).to(device)
        return CropBatch(images, plain.features, plain.complete, plain.labels)

    return batch


def shifted(
    images: Float[Tensor, "B 1 H W"], shifts: Int[Tensor, "B 2"]
) -> Float[Tensor, "B 1 H W"]:
    """Move each image by its (rows, columns); the border pixel fills what is uncovered."""
    height, width = images.shape[-2:]
    down = torch.arange(height, device=images.device) - shifts[:, :1]
    right = torch.arange(width, device=images.device) - shifts[:, 1:]
    which = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = down.clamp(0, height - 1), right.clamp(0, width - 1)
    return images[which, 0, rows[:, :, None], columns[:, None, :]][:, None]


def _validator(
    context: StageContext, judge: Judge, crops: CropSet, known: np.ndarray
) -> Callable[[], dict[str, float]]:
    labels = crops.labels[known]

    @torch.no_grad()
    def validate() -> dict[str, float]:
        logits = []
        for start in range(0, len(known), BATCH):
            images = crops.batch(known[start : start + BATCH], device=context.world.device).images
            with autocast(context.settings.precision, context.world.device):
                logits.append(judge(images).float().cpu())
        together = torch.cat(logits)
        targets = torch.from_numpy(labels)
        loss = nn.functional.binary_cross_entropy_with_logits(together, targets)
        return {
            "validation_loss": float(loss),
            "validation_auroc": auroc(labels, together.double().numpy()),
        }

    return validate
