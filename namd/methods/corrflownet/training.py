"""Stages `flow_latents` and `flow`: the frozen encoder's latents, and the velocity's training."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from namd.config.seeding import generator
from namd.methods.base import StageContext, Step
from namd.methods.corrflownet.flow import FlowBatch, FlowObjective, build_network, followed
from namd.methods.corrflownet.pairs import SPLITS, read_pairs
from namd.methods.shared.latents import encode_crops
from namd.methods.shared.pair_set import PairSet
from namd.models.initialisation import initialised_from
from namd.models.vae import load_vae
from namd.train.fit import fit
from namd.train.loop import TrainState, autocast
from namd.train.order import CaseOrder
from namd.train.world import share_of

NAME = "flow"
BATCH = 64
VALIDATION_TIMES = 4
VALIDATION_STEPS = 10
Latents = dict[str, Tensor]


def encode(context: StageContext) -> Iterator[Step]:
    """Encode both images of every pair, once per rotation angle; posterior means, scaled.

    Writes `<split>.safetensors` with `before` and `after`, (A, N, C, h, w).
    """
    vae, scale = load_vae(context.inputs["vae"])
    vae.to(context.world.device)
    for number, split in enumerate(SPLITS):
        pairs = PairSet(read_pairs(context, split), context.settings.image)
        # Validation pairs are never turned.
        angles = range(len(pairs.angles) if split == "train" else 1)
        found = {
            name: torch.stack(
                [scale * encode_crops(vae, crops[a], context).mean for a in angles]
            ).contiguous()
            for name, crops in (("before", pairs.baseline), ("after", pairs.followup))
        }
        save_file(found, context.out / f"{split}.safetensors")
        change = (found["after"] - found["before"]).square().mean().sqrt()
        yield Step(number + 1, len(SPLITS), {f"{split}_change_deviation": float(change)})


def run(context: StageContext) -> Iterator[Step]:
    """Train the velocity on train pairs; writes the network in diffusers' format."""
    settings, seed = context.settings.flow, context.settings.train_seed
    train, held_out = (
        load_file(context.inputs["flow_latents"] / f"{split}.safetensors") for split in SPLITS
    )
    _, count, channels, size, _ = train["before"].shape
    with initialised_from(NAME, seed):
        objective = FlowObjective(build_network(settings, channels, size))
    objective.to(device=context.world.device).to(memory_format=torch.channels_last)
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(count),
        context.world,
        context.settings.precision,
        seed,
    )
    validate = _validator(context, objective, held_out)
    for step in fit(state, _batches(context, train), validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    objective.network.save_pretrained(context.out / "unet")


def _batches(context: StageContext, latents: Latents) -> Callable[[int], FlowBatch]:
    settings, seed = context.settings.flow, context.settings.train_seed
    angles, count = latents["before"].shape[:2]
    order = CaseOrder(NAME, seed, count, settings.batch_size)
    part = share_of(settings.batch_size, context.world.rank, context.world.size)

    def batch(step: int) -> FlowBatch:
        rng = generator("flow-times", seed, step)
        turns = rng.integers(angles, size=settings.batch_size)[part]
        time = rng.random(settings.batch_size, dtype=np.float32)[part]
        return _pairs(latents, turns, order.at(step)[part], time, context.world.device)

    return batch


def _pairs(
    latents: Latents, turns: np.ndarray, cases: np.ndarray, time: np.ndarray, device: str
) -> FlowBatch:
    before, after = (latents[name][turns, cases].to(device) for name in ("before", "after"))
    return FlowBatch(before, after, torch.from_numpy(time).to(device))


def _validator(
    context: StageContext, objective: FlowObjective, latents: Latents
) -> Callable[[], dict[str, float]]:
    """Return what measures every pair at fixed times, and where the noise-free flow ends.

    `validation_gap_closed` is 1 - |z^(1) - z2|^2 / |z1 - z2|^2: 0 for a copy of the baseline,
    1 for the follow-up itself.
    """
    count = latents["before"].shape[1]
    device = context.world.device

    def validate() -> dict[str, float]:
        loss = missed = gap = 0.0
        for first in range(0, count, BATCH):
            cases = np.arange(first, min(first + BATCH, count))
            unturned = np.zeros(len(cases), int)
            with autocast(context.settings.precision, device):
                for stratum in range(VALIDATION_TIMES):
                    draws = generator("flow-validation", stratum, first)
                    time = (stratum + draws.random(len(cases))) / VALIDATION_TIMES
                    batch = _pairs(latents, unturned, cases, time.astype(np.float32), device)
                    loss += float(objective(batch).loss) * len(cases) / VALIDATION_TIMES
                end = followed(objective.bound(batch.before), batch.before, VALIDATION_STEPS)
            missed += float((end - batch.after).square().sum())
            gap += float((batch.before - batch.after).square().sum())
        return {
            "validation_loss": loss / count,
            "validation_gap_closed": 1 - missed / max(gap, 1e-12),
        }

    return validate
