"""Its one stage and its drawer."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.losses.total import StepOutput
from namd.methods.base import StageContext, Step
from namd.methods.shared.crop_set import read_split
from namd.models.initialisation import initialised_from
from namd.train.fit import fit
from namd.train.loop import TrainState, Update
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "adversarial"
Pairs = tuple[Float[Tensor, "B 1 H W"], Float[Tensor, "B 1 H W"]]


def generator_of(channels: int) -> nn.Module:
    """Return the network that draws the change."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.SiLU(), nn.Conv2d(channels, 1, 3, padding=1)
    )


class Adversarial(nn.Module):
    """Generator and critic, each with its loss."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.generator = generator_of(channels)
        self.critic = nn.Sequential(
            nn.Conv2d(2, channels, 3, stride=2), nn.SiLU(), nn.Conv2d(channels, 1, 3, stride=2)
        )

    def forward(self, batch: Pairs, update: str) -> StepOutput:
        """Return the loss of one of the two updates."""
        before, after = batch
        drawn = before + self.generator(before)
        if update == "critic":
            judged = self.critic(torch.cat([before, drawn.detach()], 1))
            loss = judged.mean() - self.critic(torch.cat([before, after], 1)).mean()
        else:
            fooled = self.critic(torch.cat([before, drawn], 1)).mean()
            loss = (drawn - after).abs().mean() - 0.01 * fooled
        return StepOutput(loss, {f"{update}_loss": loss.detach()})


def run(context: StageContext) -> Iterator[Step]:
    """Train both; keep the generator that validates best."""
    settings, seed = context.settings.gan, context.settings.train_seed
    train, held_out = (_pairs(context, split) for split in ("train", "validation"))
    with initialised_from(NAME, seed):
        objective = Adversarial(settings.channels)
    critic = Update("critic", ("critic",), settings.critic_steps)
    state = TrainState(
        NAME,
        objective.to(context.world.device),
        settings,
        settings.steps_for(len(train[0])),
        context.world,
        context.settings.precision,
        seed,
        updates=(critic, Update("generator", ("generator",))),
    )
    for step in fit(
        state, _batches(context, train), lambda: _validate(objective, held_out), context.checkpoints
    ):
        yield Step(step.index, step.total, step.metrics)
    save_file(objective.generator.state_dict(), context.out / "generator.safetensors")


def _batches(context: StageContext, pairs: Pairs) -> Callable[[int], Pairs]:
    settings, world = context.settings.gan, context.world
    order = CaseOrder(NAME, context.settings.train_seed, len(pairs[0]), settings.batch_size)
    part = share_of(settings.batch_size, world.rank, world.size)

    def batch(number: int) -> Pairs:
        index = torch.from_numpy(order.at(number)[part])
        return pairs[0][index].to(world.device), pairs[1][index].to(world.device)

    return batch


def _validate(objective: Adversarial, pairs: Pairs) -> dict[str, float]:
    before, after = (part.to(next(objective.parameters()).device) for part in pairs)
    squared = (before + objective.generator(before) - after).square().mean()
    return {"validation_loss": float(squared), "psnr": float(10 * torch.log10(4 / squared))}


def _pairs(context: StageContext, split: str) -> Pairs:
    cohort, size = read_split(context.cohort, split), context.settings.image.size
    paired = np.flatnonzero(np.asarray(cohort.has_followup))
    crops = (np.asarray(cohort.baseline)[paired], np.asarray(cohort.followup)[paired])
    before, after = (torch.from_numpy(to_unit(centre_cut(hu, size)))[:, None] for hu in crops)
    return before, after


class GeneratorDrawer:
    """Adds what the generator draws; every draw is the same."""

    batch_size = 32

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        self.device = context.world.device
        self.generator = generator_of(context.settings.gan.channels)
        self.generator.load_state_dict(load_file(context.inputs["gan"] / "generator.safetensors"))
        self.generator.eval().requires_grad_(False).to(self.device)
        size = context.settings.image.size
        self.baseline = torch.from_numpy(to_unit(centre_cut(np.asarray(cohort.baseline), size)))

    def __len__(self) -> int:
        return len(self.baseline)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return the same images for every index."""
        before = self.baseline[torch.from_numpy(cases)][:, None].to(self.device)
        return (before + self.generator(before)).clamp(-1, 1)
