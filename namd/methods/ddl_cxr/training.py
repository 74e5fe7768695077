"""Stage `ddl_denoiser`: U-Net and record encoder learn the follow-up together; and the drawer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from namd.data.cohort import Cohort
from namd.diffusion.conditioning import condition_on_latents, conditioned_input
from namd.diffusion.noise import training_noise
from namd.diffusion.schedule import (
    NoiseSchedule,
    add_noise,
    noise_schedule,
    prediction_target,
)
from namd.losses.prediction import prediction_loss
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.ddl_cxr.losses import ramp, triplet_loss
from namd.methods.ddl_cxr.record_encoder import (
    RecordBatch,
    RecordEncoder,
    RecordStatistics,
    load_encoder,
    save_encoder,
)
from namd.methods.ddl_cxr.settings import DDLSettings
from namd.methods.shared.crop_set import read_pairs
from namd.methods.shared.denoiser_files import save_denoiser
from namd.methods.shared.denoising import BatchSource, DenoisingBatch, validator
from namd.methods.shared.latent_draws import LatentDrawer
from namd.methods.shared.latent_space import copy_latent_space
from namd.methods.shared.latents import load_latents
from namd.methods.shared.quick_draws import QuickDraws, held_out_draws
from namd.models.initialisation import initialised_from
from namd.models.unet import NullContext, build_unet
from namd.train.fit import fit
from namd.train.loop import TrainState
from namd.train.world import share_of

NAME = "ddl_denoiser"


@dataclass(frozen=True)
class HybridBatch:
    """One batch of the hybrid-conditioned objective.

    Attributes:
        denoising: Latents, noise, timesteps and baseline of the cases.
        records: Theirs.
        labels: 1 malignant, 0 benign, NaN unknown.
        corruption: What half of the encoded record is replaced by, N(0, 1).
        ramp: Share of the triplet term that counts.
    """

    denoising: DenoisingBatch
    records: RecordBatch
    labels: Float[Tensor, " B"]
    corruption: Float[Tensor, "B T D"]
    ramp: float

    @property
    def cases(self) -> np.ndarray:
        """Return the numbers of the cases."""
        return self.denoising.cases


class HybridObjective(nn.Module):
    """L = |eps - eps^|^2 + 1.4 BCE(W e_cls, y) + ramp L_triplet (Yao et al. 2024).

    In L_triplet eps^neg is predicted under the corrupted sequence 0.5 e + 0.5 N(0, 1). In eval
    mode the loss is the first term alone.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        encoder: RecordEncoder,
        classifier: nn.Linear,
        schedule: NoiseSchedule,
        settings: DDLSettings,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.encoder = encoder
        self.classifier = classifier
        self.schedule = schedule
        self.settings = settings

    def forward(self, batch: HybridBatch) -> StepOutput:
        """Return the loss and its terms."""
        denoising = batch.denoising
        encoded = self.encoder(batch.records)
        errors = self._squared_errors(denoising, encoded)
        mse = errors.mean()
        if not self.training:
            return StepOutput(mse, {"mse": mse.detach()})
        logits = self.classifier(encoded[:, 0])[:, 0]
        label = prediction_loss(logits, batch.labels, ~batch.labels.isnan())
        loss = mse + self.settings.label.weight * label
        metrics = {"mse": mse.detach(), "label": label.detach()}
        if weight := self.settings.triplet.weight * batch.ramp:
            triplet = self._triplet(batch, encoded, errors)
            loss = loss + weight * triplet
            metrics["triplet"] = triplet.detach()
        return StepOutput(loss, metrics)

    def _triplet(self, batch: HybridBatch, encoded: Tensor, errors: Tensor) -> Tensor:
        settings, denoising = self.settings.triplet, batch.denoising
        corrupted = settings.kept * encoded + (1 - settings.kept) * batch.corruption
        signal = self.schedule.alphas_cumprod.to(denoising.timesteps.device)[denoising.timesteps]
        corrupted_errors = self._squared_errors(denoising, corrupted)
        return triplet_loss(errors, corrupted_errors, signal, settings.margin)

    def _squared_errors(self, batch: DenoisingBatch, states: Tensor) -> Tensor:
        noisy = add_noise(batch.latents, batch.noise, batch.timesteps, self.schedule)
        if batch.condition is not None:
            noisy = conditioned_input(noisy, batch.condition)
        predicted = self.unet(
            noisy, batch.timesteps, encoder_hidden_states=states, return_dict=False
        )[0]
        target = prediction_target(batch.latents, batch.noise, batch.timesteps, self.schedule)
        return (predicted.float() - target).square()


@dataclass(frozen=True)
class HybridSource:
    """Batches of one split: latents from a shared source, records and labels by case number."""

    source: BatchSource
    records: RecordBatch
    labels: Float[Tensor, " N"]
    settings: DDLSettings

    def at(self, step: int) -> HybridBatch:
        """Return this rank's part of a step's batch."""
        source, width = self.source, self.settings.record.width
        shape = (self.records.rows.shape[1] + 1, width)
        noise = training_noise(
            source.seed, NAME, step, source.batch_size, shape, purpose="corruption-noise"
        )
        part = share_of(source.batch_size, source.world.rank, source.world.size)
        epoch = step // max(1, source.num_items // source.batch_size)
        return self._of(source.at(step), noise[part], ramp(epoch, self._ramp_epochs))

    def validation(self) -> list[HybridBatch]:
        """Return fixed batches; nothing in them is corrupted."""
        return [
            self._of(batch, torch.zeros(len(batch.cases), 1, 1), 0.0)
            for batch in self.source.validation()
        ]

    @property
    def _ramp_epochs(self) -> int:
        return self.settings.triplet.ramp_epochs

    def _of(self, batch: DenoisingBatch, corruption: Tensor, share: float) -> HybridBatch:
        device = self.source.world.device
        return HybridBatch(
            batch,
            self.records.at(batch.cases).to(device),
            self.labels[torch.from_numpy(batch.cases)].to(device),
            corruption.to(device),
            share,
        )


def run(context: StageContext) -> Iterator[Step]:
    """Train U-Net, record encoder and classifier on train pairs."""
    settings, seed = context.settings.ddl, context.settings.train_seed
    cohorts = {split: read_pairs(context.cohort, split) for split in ("train", "validation")}
    statistics = RecordStatistics.fit(cohorts["train"].table)
    objective = _objective(context).to(context.world.device)
    train, held_out = (
        _source(context, split, cohort, statistics, objective.schedule)
        for split, cohort in cohorts.items()
    )
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(train.source.num_items),
        context.world,
        context.settings.precision,
        seed,
    )
    precision, device = context.settings.precision, context.world.device
    measure = validator(objective, held_out.validation(), precision, device)
    quick_draws = _quick_draws(context, objective, held_out, cohorts["validation"])
    for step in fit(state, train.at, lambda: measure() | quick_draws(), context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_denoiser(objective.unet, NullContext(settings.record.width), context.out)
    save_encoder(objective.encoder, statistics, context.out)
    copy_latent_space(context.inputs["latents"], context.out)


def _objective(context: StageContext) -> HybridObjective:
    settings = context.settings.ddl
    latents = load_latents(context.inputs["latents"], "validation").baseline.mean
    channels, size, width = latents.shape[2], latents.shape[-1], settings.record.width
    with initialised_from(NAME, context.settings.train_seed):
        unet = build_unet(context.settings.unet, channels, channels, width, size)
        condition_on_latents(unet, channels)
        encoder = RecordEncoder(settings.record)
        classifier = nn.Linear(width, 1)
    schedule = noise_schedule(context.settings.noise_schedule)
    return HybridObjective(unet, encoder, classifier, schedule, settings)


def _source(
    context: StageContext,
    split: str,
    cohort: Cohort,
    statistics: RecordStatistics,
    schedule: NoiseSchedule,
) -> HybridSource:
    settings = context.settings.ddl
    labels = cohort.table["label"].astype("float32").to_numpy(na_value=np.nan)
    source = BatchSource(
        NAME,
        context.settings.train_seed,
        load_latents(context.inputs["latents"], split),
        schedule,
        context.world,
        paired=True,
        batch_size=settings.batch_size,
        timesteps=settings.timesteps,
    )
    return HybridSource(source, statistics.batch(cohort.table), torch.tensor(labels), settings)


def _quick_draws(
    context: StageContext, objective: HybridObjective, held_out: HybridSource, cohort: Cohort
) -> QuickDraws:
    device = context.world.device
    return held_out_draws(
        context,
        cohort,
        objective.unet,
        lambda cases: objective.encoder(held_out.records.at(cases).to(device)),
        objective.schedule,
        held_out.source.latents.baseline.mean[0],
    )


class DDLDrawer(LatentDrawer):
    """Reads each case's record through the record encoder; random x_T for each draw [ours]."""

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        super().__init__(context, cohort, NAME)

    def read_records(self, context: StageContext, cohort: Cohort) -> Tensor:
        """Return the encoded sequence of every record."""
        encoder, statistics = load_encoder(context.inputs[NAME], context.settings.ddl.record)
        order = self.record_order(len(cohort))
        records = statistics.batch(cohort.table.iloc[order])
        return encoder.to(self.device)(records.to(self.device)).cpu()
