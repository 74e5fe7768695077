"""What stages `pretrain` and `finetune` share: the U-Net with its context, batches, validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from namd.config.seeding import generator
from namd.diffusion.conditioning import conditioned_input
from namd.diffusion.noise import training_noise
from namd.diffusion.schedule import (
    NoiseSchedule,
    add_noise,
    min_snr_weights,
    prediction_target,
    training_timesteps,
)
from namd.diffusion.settings import TimestepSettings
from namd.losses.noise_prediction import noise_prediction_loss
from namd.losses.total import StepOutput
from namd.methods.shared.latents import PairedLatents
from namd.methods.shared.target import FollowupTarget, Target
from namd.models.vae import Posterior
from namd.train.loop import autocast
from namd.train.order import CaseOrder
from namd.train.workers import World
from namd.train.world import share_of

VALIDATION_TIMESTEPS = 4
VALIDATION_CASES = 512
VALIDATION_BATCH = 64

ContextFor = Callable[[np.ndarray, bool], Tensor]
"""From case numbers (and whether training) to encoder_hidden_states (B, m, D)."""


@runtime_checkable
class CasesBatch(Protocol):
    """A batch that knows the numbers of its cases."""

    @property
    def cases(self) -> np.ndarray:
        """Return one number a case."""


@dataclass(frozen=True)
class DenoisingBatch:
    """One batch of the denoising objective.

    Attributes:
        latents: Clean scaled latents.
        noise: What is added.
        timesteps: Where.
        condition: Baseline latents to concatenate behind the noisy ones, or None.
        cases: Numbers of the cases, by which the context is looked up.
        drop: 1 where the record is replaced by the null token.
    """

    latents: Float[Tensor, "B C h w"]
    noise: Float[Tensor, "B C h w"]
    timesteps: Int[Tensor, " B"]
    condition: Float[Tensor, "B C h w"] | None
    cases: np.ndarray
    drop: Float[Tensor, " B"]


class DenoisingObjective(nn.Module):
    """Squared error of the predicted noise, or v (Eq 9 without a condition, Eq 10 with one).

    With `min_snr_gamma` errors are weighed while it trains, and never in eval mode.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        context: nn.Module,
        schedule: NoiseSchedule,
        min_snr_gamma: float | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.context = context
        self.schedule = schedule
        self.min_snr_gamma = min_snr_gamma

    def forward(self, batch: DenoisingBatch) -> StepOutput:
        """Return the mean squared error of the prediction."""
        noisy = add_noise(batch.latents, batch.noise, batch.timesteps, self.schedule)
        if batch.condition is not None:
            noisy = conditioned_input(noisy, batch.condition)
        states = self.context(batch.cases, batch.drop)
        predicted = self.unet(
            noisy, batch.timesteps, encoder_hidden_states=states, return_dict=False
        )[0]
        target = prediction_target(batch.latents, batch.noise, batch.timesteps, self.schedule)
        weights = None
        if self.training and self.min_snr_gamma is not None:
            weights = min_snr_weights(batch.timesteps, self.schedule, self.min_snr_gamma)
        loss = noise_prediction_loss(predicted.float(), target, weights)
        return StepOutput(loss, {"mse": loss.detach()})


@dataclass(frozen=True)
class BatchSource:
    """Training batches as a function of the step: which latents, which noise, which timesteps.

    Attributes:
        name: Of the training; part of every seed's purpose.
        seed: Training seed.
        paired: True: the follow-up is denoised beside its baseline (Eq 10); False: single
            crops of both time points (Eq 9).
        batch_size: Global.
        drop_rate: Share of records replaced by the null token.
        copies: One pass holds every pair at every rotation angle; else every pair once, at an
            angle that is drawn.
        sampled_condition: The baseline's latents are a posterior sample; else its mean.
        timesteps: How training timesteps are drawn.
        target: What is denoised of a pair.
    """

    name: str
    seed: int
    latents: PairedLatents
    schedule: NoiseSchedule
    world: World
    paired: bool
    batch_size: int
    drop_rate: float = 0.0
    copies: bool = False
    sampled_condition: bool = False
    timesteps: TimestepSettings = field(default_factory=TimestepSettings)
    target: Target = field(default_factory=FollowupTarget)

    @property
    def num_items(self) -> int:
        """Training items in one pass."""
        copies = self.latents.num_angles if self.copies else 1
        return copies * len(self.latents) if self.paired else 2 * len(self.latents)

    def at(self, step: int) -> DenoisingBatch:
        """Return this rank's part of a step's batch; the numbers of the whole are drawn first."""
        part = share_of(self.batch_size, self.world.rank, self.world.size)
        items = CaseOrder(self.name, self.seed, self.num_items, self.batch_size).at(step)
        rng = generator("denoising", self.name, self.seed, step)
        turns = rng.integers(self.latents.num_angles, size=self.batch_size)
        timesteps = training_timesteps(rng, self.batch_size, self.timesteps, self.schedule)
        drop = (rng.random(self.batch_size) < self.drop_rate).astype(np.float32)
        shape = self.latents.baseline.mean.shape[2:]
        posterior_noise = training_noise(
            self.seed, self.name, step, self.batch_size, shape, purpose="posterior-noise"
        )
        noise = training_noise(self.seed, self.name, step, self.batch_size, shape)
        baseline_noise = None
        if self.sampled_condition:
            baseline_noise = training_noise(
                self.seed, self.name, step, self.batch_size, shape, purpose="baseline-noise"
            )[part]
        if self.copies:
            turns = items // len(self.latents)
        return self._batch(
            items[part],
            turns[part],
            timesteps[part],
            posterior_noise[part],
            noise[part],
            drop[part],
            baseline_noise,
        )

    def validation(self) -> list[DenoisingBatch]:
        """Return fixed batches: the first cases, each at timesteps spread over the schedule."""
        count = min(self.num_items, VALIDATION_CASES)
        shape = self.latents.baseline.mean.shape[2:]
        batches = []
        for stratum in range(VALIDATION_TIMESTEPS):
            for first in range(0, count, VALIDATION_BATCH):
                items = np.arange(first, min(first + VALIDATION_BATCH, count))
                rng = generator("validation", self.name, stratum, first)
                width = self.schedule.settings.num_train_timesteps / VALIDATION_TIMESTEPS
                timesteps = (width * (stratum + rng.random(len(items)))).astype(np.int64)
                noise = torch.from_numpy(
                    rng.standard_normal((2, len(items), *shape), dtype=np.float32)
                )
                zeros = np.zeros(len(items), int)
                drop = zeros.astype(np.float32)
                third = None
                if self.sampled_condition:
                    drawn = rng.standard_normal((len(items), *shape), dtype=np.float32)
                    third = torch.from_numpy(drawn)
                batches.append(
                    self._batch(items, zeros, timesteps, noise[0], noise[1], drop, third)
                )
        return batches

    def _batch(
        self,
        items: np.ndarray,
        turns: np.ndarray,
        timesteps: np.ndarray,
        posterior_noise: Tensor,
        noise: Tensor,
        drop: np.ndarray,
        baseline_noise: Tensor | None = None,
    ) -> DenoisingBatch:
        cases = items % len(self.latents)
        later = self.latents.followup.at(turns, cases).sample(posterior_noise)
        condition = None
        if self.paired:
            target = self.target.of(
                later,
                self.latents.followup.mean[turns, cases],
                self.latents.baseline.mean[turns, cases],
            )
            condition = condition_of(self.latents.baseline.at(turns, cases), baseline_noise)
            condition = condition.to(self.world.device)
        else:
            earlier = self.latents.baseline.at(turns, cases).sample(posterior_noise)
            first_visit = torch.from_numpy(items < len(self.latents))[:, None, None, None]
            target = torch.where(first_visit, earlier, later)
        device = self.world.device
        return DenoisingBatch(
            target.to(device),
            noise.to(device),
            torch.from_numpy(timesteps.astype(np.int64)).to(device),
            condition,
            cases,
            torch.from_numpy(drop).to(device),
        )


def condition_of(
    baseline: Posterior, noise: Float[Tensor, "B C h w"] | None
) -> Float[Tensor, "B C h w"]:
    """Return the baseline latents that the U-Net reads: a posterior sample, or the mean."""
    return baseline.mean if noise is None else baseline.sample(noise)


def validator(
    objective: nn.Module, batches: Sequence[CasesBatch], precision: str, device: str
) -> Callable[[], dict[str, float]]:
    """Return a function that measures an objective's mean loss over fixed batches."""

    def validate() -> dict[str, float]:
        with autocast(precision, device):
            losses = [(objective(batch).loss, len(batch.cases)) for batch in batches]
        cases = sum(count for _, count in losses)
        return {"validation_loss": sum(float(loss) * count for loss, count in losses) / cases}

    return validate
