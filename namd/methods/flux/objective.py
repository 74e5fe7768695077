"""What the transformer learns, and the batches it learns from."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn

from namd.config.seeding import generator
from namd.diffusion.noise import training_noise
from namd.losses.total import StepOutput
from namd.methods.flux.flow import Velocity, interpolated, logit_normal_levels, velocity
from namd.methods.flux.record import RecordTokens
from namd.methods.flux.settings import FluxSettings
from namd.methods.flux.transformer import packed, token_positions, unpacked
from namd.methods.shared.latents import PairedLatents
from namd.train.order import CaseOrder
from namd.train.workers import World
from namd.train.world import share_of

NAME = "flux_transformer"
"""The stage."""
VALIDATION_LEVELS = 4
VALIDATION_CASES = 512
VALIDATION_BATCH = 64


@dataclass(frozen=True)
class FlowBatch:
    """One batch of the objective.

    Attributes:
        clean: Scaled latents of the follow-up, x0.
        noise: eps.
        levels: s of each case.
        condition: Scaled latents of the baseline.
        record: Numbers of the records, zeros where the record is dropped.
        cases: Numbers of the cases.
    """

    clean: Float[Tensor, "B C h w"]
    noise: Float[Tensor, "B C h w"]
    levels: Float[Tensor, " B"]
    condition: Float[Tensor, "B C h w"]
    record: Float[Tensor, "B F"]
    cases: np.ndarray


class RectifiedFlow(nn.Module):
    """The conditional velocity field v(x_s, s; baseline, record) and its squared error."""

    def __init__(
        self, transformer: FluxTransformer2DModel, record: RecordTokens, guidance: float | None
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.record = record
        self.guidance = guidance

    def forward(self, batch: FlowBatch) -> StepOutput:
        """Return L = mean (v(x_s, s) - (eps - x0))^2, every noise level weighed alike."""
        noisy = interpolated(batch.clean, batch.noise, batch.levels)
        predicted = self.predict(noisy, batch.levels, batch.condition, self.record(batch.record))
        loss = nn.functional.mse_loss(predicted.float(), velocity(batch.clean, batch.noise))
        return StepOutput(loss, {"mse": loss.detach()})

    def predict(
        self,
        noisy: Float[Tensor, "B C h w"],
        levels: Float[Tensor, " B"],
        condition: Float[Tensor, "B C h w"],
        texts: tuple[Tensor, Tensor],
    ) -> Float[Tensor, "B C h w"]:
        """Return the velocity; a token holds its noisy numbers first, the baseline's second."""
        states, pooled = texts
        height, width = noisy.shape[2:]
        guidance = None if self.guidance is None else torch.full_like(levels, self.guidance)
        tokens = self.transformer(
            hidden_states=torch.cat([packed(noisy), packed(condition)], 2),
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=levels,
            guidance=guidance,
            img_ids=token_positions(height, width).to(noisy.device),
            txt_ids=torch.zeros(states.shape[1], 3, device=noisy.device),
            return_dict=False,
        )[0]
        return unpacked(tokens, height, width)

    def bound(self, condition: Tensor, record: Float[Tensor, "B F"]) -> Velocity:
        """Return the velocity field of these cases, whose records are read once."""
        texts = self.record(record)

        def predict(latents: Tensor, level: float) -> Tensor:
            levels = torch.full((len(latents),), level, device=latents.device)
            return self.predict(latents, levels, condition, texts).float()

        return predict


@dataclass(frozen=True)
class FlowBatches:
    """Training batches as a function of the step.

    Attributes:
        settings: Batch size, noise levels, dropout of records.
        seed: Training seed.
        latents: Of one split's pairs.
        record: Numbers of the same cases' records, in the same order.
        world: The workers.
    """

    settings: FluxSettings
    seed: int
    latents: PairedLatents
    record: Float[Tensor, "N F"]
    world: World

    def at(self, step: int) -> FlowBatch:
        """Return this rank's part of a step's batch; the numbers of the whole are drawn first."""
        size = self.settings.batch_size
        part = share_of(size, self.world.rank, self.world.size)
        cases = CaseOrder(NAME, self.seed, len(self.latents), size).at(step)
        rng = generator("flow", NAME, self.seed, step)
        turns = rng.integers(self.latents.num_angles, size=size)
        levels = torch.from_numpy(logit_normal_levels(rng, size, self.settings.noise_levels))
        keep = torch.from_numpy((rng.random(size) >= self.settings.record.dropout).astype("f4"))
        shape = self.latents.baseline.mean.shape[2:]
        posterior, noise, own = (
            training_noise(self.seed, NAME, step, size, shape, purpose=purpose)[part]
            for purpose in ("posterior-noise", "training-noise", "baseline-noise")
        )
        return self._batch(
            cases[part], turns[part], levels[part], keep[part], posterior, noise, own
        )

    def validation(self) -> list[FlowBatch]:
        """Return fixed batches: the first cases, at noise levels spread evenly over (0, 1)."""
        count = min(len(self.latents), VALIDATION_CASES)
        shape = self.latents.baseline.mean.shape[2:]
        batches = []
        for stratum in range(VALIDATION_LEVELS):
            for first in range(0, count, VALIDATION_BATCH):
                cases = np.arange(first, min(first + VALIDATION_BATCH, count))
                rng = generator("validation", NAME, stratum, first)
                levels = ((stratum + rng.random(len(cases))) / VALIDATION_LEVELS).astype("f4")
                noises = rng.standard_normal((3, len(cases), *shape), dtype=np.float32)
                batches.append(
                    self._batch(
                        cases,
                        np.zeros(len(cases), int),
                        torch.from_numpy(levels),
                        torch.ones(len(cases)),
                        *torch.from_numpy(noises),
                    )
                )
        return batches

    def _batch(
        self,
        cases: np.ndarray,
        turns: np.ndarray,
        levels: Tensor,
        keep: Tensor,
        posterior: Tensor,
        noise: Tensor,
        own: Tensor,
    ) -> FlowBatch:
        baseline = self.latents.baseline.at(turns, cases)
        sampled = self.settings.baseline_latent == "sample"
        device = self.world.device
        return FlowBatch(
            clean=self.latents.followup.at(turns, cases).sample(posterior).to(device),
            noise=noise.to(device),
            levels=levels.to(device),
            condition=(baseline.sample(own) if sampled else baseline.mean).to(device),
            record=(self.record[cases] * keep[:, None]).to(device),
            cases=cases,
        )
