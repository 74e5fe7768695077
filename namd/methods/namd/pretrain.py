"""Stage `pretrain`: the U-Net learns single crops without a record (NAMD Eq 9)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from namd.diffusion.schedule import NoiseSchedule, noise_schedule
from namd.methods.base import StageContext, Step
from namd.methods.shared.denoiser_files import save_denoiser
from namd.methods.shared.denoising import BatchSource, DenoisingObjective, validator
from namd.methods.shared.latents import load_latents
from namd.models.clip_null import empty_prompt_states
from namd.models.initialisation import initialised_from
from namd.models.language import context_width
from namd.models.unet import NullContext, build_unet
from namd.train.fit import fit
from namd.train.loop import TrainState

NAME = "pretrain"


class NullRecord(nn.Module):
    """A context that is the same learned token for every case."""

    def __init__(self, null: NullContext) -> None:
        super().__init__()
        self.null = null

    def forward(self, cases: np.ndarray, drop: Tensor) -> Tensor:
        """Return the token for each case; who they are does not matter."""
        return self.null(len(cases)).to(drop.device)


def run(context: StageContext) -> Iterator[Step]:
    """Train on both time points of train patients; `num_steps` 0 writes the initial network."""
    settings = context.settings.pretrain
    seed = context.settings.train_seed
    train = load_latents(context.inputs["latents"], "train")
    channels, size = train.baseline.mean.shape[2], train.baseline.mean.shape[-1]
    architecture = context.settings.unet
    states = None
    if settings.clip_weights is not None:
        states = empty_prompt_states(settings.clip_weights)
        architecture = replace(architecture, text_projection="none")
        width = states.shape[-1]
    else:
        width = context_width(context.settings.language, language_folder(context))
    with initialised_from(NAME, seed):
        unet = build_unet(architecture, channels, channels, width, size)
        null = NullContext(width, states)
        objective = DenoisingObjective(
            unet, NullRecord(null), _schedule(context), settings.min_snr_gamma
        )
    objective.to(context.world.device)
    source = BatchSource(
        NAME,
        seed,
        train,
        objective.schedule,
        context.world,
        paired=False,
        batch_size=settings.batch_size,
        timesteps=settings.timesteps,
    )
    held_out = BatchSource(
        NAME,
        seed,
        load_latents(context.inputs["latents"], "validation"),
        objective.schedule,
        context.world,
        paired=False,
        batch_size=settings.batch_size,
    )
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(source.num_items),
        context.world,
        context.settings.precision,
        seed,
    )
    validate = validator(
        objective, held_out.validation(), context.settings.precision, context.world.device
    )
    for step in fit(state, source.at, validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_denoiser(unet, null, context.out)


def language_folder(context: StageContext) -> Path | None:
    """Return the artifact of stage `language`; None if an external model is read instead."""
    return context.inputs["language"] if context.settings.language.is_embedded else None


def _schedule(context: StageContext) -> NoiseSchedule:
    return noise_schedule(context.settings.noise_schedule)
