"""Stage `wgan`: generator and critic in turn, and the drawer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.losses.reconstruction import reconstruction_loss
from namd.losses.total import LossTerm, StepOutput, weighted_sum
from namd.methods.base import StageContext, Step
from namd.methods.mcwgan.losses import (
    DATA_RANGE,
    feature_distance,
    gradient_penalty,
    structural_loss,
    verdict_gap,
)
from namd.methods.mcwgan.networks import (
    ConvolutionalCritic,
    FrozenFeatures,
    build_generator,
    predict,
)
from namd.methods.mcwgan.settings import WganSettings
from namd.methods.shared.crop_set import read_split
from namd.methods.shared.pair_set import PairBatch, PairSet
from namd.models.initialisation import initialised_from
from namd.train.fit import fit
from namd.train.loop import TrainState, Update, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "wgan"
CRITIC, GENERATOR = "critic", "generator"
BATCH = 64


@dataclass(frozen=True)
class GanBatch:
    """What one update sees.

    Attributes:
        pairs: Baselines and follow-ups.
        mix: u of each pair: where between drawn and real image the critic's slope is taken.
    """

    pairs: PairBatch
    mix: Float[Tensor, " B"]


class McWGAN(nn.Module):
    """Generator and critic, each with its loss.

    Args:
        settings: Shapes and weights.
        size: Pixels per side of an image.
        features: phi; None: the generator's loss has no such term.
    """

    def __init__(self, settings: WganSettings, size: int, features: FrozenFeatures | None) -> None:
        super().__init__()
        self.settings = settings
        self.generator = build_generator(settings, size)
        self.critic: ConvolutionalCritic | None = None
        if settings.adversarial_weight:
            self.critic = ConvolutionalCritic(settings.critic_channels, size)
        self.features = features

    def forward(self, batch: GanBatch, update: str) -> StepOutput:
        """Return the loss of one of the two updates.

        Losses are computed in single precision whatever the U-Net's: the penalty is a derivative
        of a derivative, and SSIM a difference of nearly equal squares.
        """
        baseline, real = batch.pairs.baseline, batch.pairs.followup
        with torch.set_grad_enabled(update == GENERATOR):
            drawn = predict(self.generator, baseline)
        with torch.autocast(drawn.device.type, enabled=False):
            if update == CRITIC:
                return self.critic_loss(real, drawn.float(), batch.mix)
            return self.generator_loss(real, drawn.float())

    def critic_loss(
        self,
        real: Float[Tensor, "B 1 H W"],
        drawn: Float[Tensor, "B 1 H W"],
        mix: Float[Tensor, " B"],
    ) -> StepOutput:
        """Return L_D = E D(x2^) - E D(x2) + 10 E (||grad D(x~)|| - 1)^2."""
        assert self.critic is not None
        gap = verdict_gap(self.critic, real, drawn)
        penalty = gradient_penalty(self.critic, real, drawn, mix)
        loss = gap + self.settings.penalty_weight * penalty
        return StepOutput(
            loss,
            {
                "critic_loss": loss.detach(),
                "wasserstein": -gap.detach(),
                "gradient_penalty": penalty.detach(),
            },
        )

    def generator_loss(
        self, real: Float[Tensor, "B 1 H W"], drawn: Float[Tensor, "B 1 H W"]
    ) -> StepOutput:
        """Return L_G = a L1 + b (1 - SSIM) + c |phi(x2^) - phi(x2)| - d E D(x2^)."""
        critic = self.critic

        def fooled() -> Tensor:
            assert critic is not None
            return -critic(drawn).mean()

        verdict = LossTerm("adversarial", self.settings.adversarial_weight, fooled)
        return weighted_sum([*self._likeness(real, drawn), verdict])

    def likeness(
        self, real: Float[Tensor, "B 1 H W"], drawn: Float[Tensor, "B 1 H W"]
    ) -> Float[Tensor, ""]:
        """Return L_G without its adversarial term: what can be compared between steps."""
        return weighted_sum(self._likeness(real, drawn)).loss

    def _likeness(self, real: Tensor, drawn: Tensor) -> list[LossTerm]:
        features, settings = self.features, self.settings

        def distance() -> Tensor:
            assert features is not None
            return feature_distance(features, drawn, real)

        return [
            LossTerm("l1", settings.l1_weight, lambda: reconstruction_loss(drawn, real)),
            LossTerm("structural", settings.ssim_weight, lambda: structural_loss(drawn, real)),
            LossTerm("feature", settings.feature_weight, distance),
        ]


def updates(settings: WganSettings) -> tuple[Update, ...]:
    """Return what a step consists of: the critic's updates, then the generator's one."""
    last = Update(GENERATOR, ("generator",))
    if not settings.adversarial_weight:
        return (last,)
    rate = settings.critic_learning_rate or settings.learning_rate
    its_own = replace(settings, learning_rate=rate)
    return Update(CRITIC, ("critic",), settings.critic_steps, its_own), last


def run(context: StageContext) -> Iterator[Step]:
    """Train on train pairs; writes the generator in diffusers' format."""
    settings, seed = context.settings.wgan, context.settings.train_seed
    pairs, held_out = (
        PairSet(read_split(context.cohort, split), context.settings.image)
        for split in ("train", "validation")
    )
    features = None
    if settings.feature_weight:
        blocks = context.settings.resnet.blocks
        features = FrozenFeatures.load(context.inputs["resnet"], blocks)
    with initialised_from(NAME, seed):
        objective = McWGAN(settings, context.settings.image.size, features)
    objective.to(device=context.world.device).to(memory_format=torch.channels_last)
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(len(pairs)),
        context.world,
        context.settings.precision,
        seed,
        updates=updates(settings),
    )
    validate = _validator(context, objective, held_out)
    for step in fit(state, _batches(context, pairs), validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    objective.generator.save_pretrained(context.out / "generator")


def _batches(context: StageContext, pairs: PairSet) -> Callable[[int], GanBatch]:
    settings, seed, device = (
        context.settings.wgan,
        context.settings.train_seed,
        context.world.device,
    )
    order = CaseOrder(NAME, seed, len(pairs), settings.batch_size)
    part = share_of(settings.batch_size, context.world.rank, context.world.size)

    def batch(number: int) -> GanBatch:
        index = order.at(number)
        turns = pairs.turns(NAME, seed, number, len(index))
        mix = generator("wgan-mix", seed, number).random(len(index), np.float32)
        return GanBatch(
            pairs.batch(index[part], turns[part], device), torch.from_numpy(mix[part]).to(device)
        )

    return batch


def _validator(
    context: StageContext, objective: McWGAN, pairs: PairSet
) -> Callable[[], dict[str, float]]:
    def validate() -> dict[str, float]:
        loss, squared, structure = 0.0, 0.0, 0.0
        for first in range(0, len(pairs), BATCH):
            index = np.arange(first, min(first + BATCH, len(pairs)))
            batch = pairs.batch(index, device=context.world.device)
            with autocast(context.settings.precision, context.world.device):
                drawn = predict(objective.generator, batch.baseline)
            drawn = drawn.float().detach()
            loss += float(objective.likeness(batch.followup, drawn)) * len(index)
            squared += float((drawn - batch.followup).square().mean()) * len(index)
            structure += float(1 - structural_loss(drawn, batch.followup)) * len(index)
        mean = squared / len(pairs)
        return {
            "validation_loss": loss / len(pairs),
            "validation_psnr": float(10 * np.log10(DATA_RANGE**2 / max(mean, 1e-12))),
            "validation_ssim": structure / len(pairs),
        }

    return validate


class McWGANDrawer:
    """Predicts the follow-up; there is one draw."""

    batch_size = 64

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        self.device = context.world.device
        self.precision = context.settings.precision
        network = UNet2DModel.from_pretrained(context.inputs["wgan"] / "generator")
        self.generator = network.eval().requires_grad_(False)
        self.generator.to(device=self.device).to(memory_format=torch.channels_last)
        crops = centre_cut(np.asarray(cohort.baseline), context.settings.image.size)
        self.baseline = torch.from_numpy(to_unit(crops))[:, None]

    def __len__(self) -> int:
        return len(self.baseline)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:  # noqa: ARG002
        """Return the prediction, the same for every index."""
        before = self.baseline[torch.from_numpy(cases)].to(self.device)
        with autocast(self.precision, self.device):
            return predict(self.generator, before).float().clamp(-1, 1)
