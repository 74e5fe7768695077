"""Stage `finetune`: the U-Net learns the follow-up beside its baseline and record (NAMD Eq 10)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from namd.diffusion.conditioning import condition_on_latents
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import noise_schedule
from namd.methods.base import StageContext, Step
from namd.methods.namd.pretrain import language_folder
from namd.methods.shared.crop_set import read_pairs
from namd.methods.shared.denoiser_files import load_denoiser, save_denoiser
from namd.methods.shared.denoising import (
    BatchSource,
    DenoisingObjective,
    condition_of,
    validator,
)
from namd.methods.shared.latent_space import copy_latent_space
from namd.methods.shared.latents import PairedLatents, load_latents
from namd.methods.shared.quick_draws import DRAW_SEED, QuickDraws, held_out_draws
from namd.methods.shared.reports import reports_of
from namd.methods.shared.target import Target, measured_target
from namd.models.initialisation import initialised_from
from namd.models.language import SoftPromptContext, build_context
from namd.models.unet import NullContext, reading, width_read
from namd.train.fit import fit
from namd.train.loop import TrainState

NAME = "finetune"


class RecordContext(nn.Module):
    """The record of each case as tokens for the U-Net (Eq 7-8), by case number.

    Attributes:
        soft_prompt: Reads reports through the frozen language model.
        null: Replaces the record where it is dropped.
        reports: Report texts of the cases of the active split.
    """

    def __init__(self, soft_prompt: SoftPromptContext, null: NullContext) -> None:
        super().__init__()
        self.soft_prompt = soft_prompt
        self.null = null
        self.reports: list[str] = []

    def forward(self, cases: np.ndarray, drop: Tensor) -> Tensor:
        """Return encoder_hidden_states (B, m, D)."""
        states = self.soft_prompt([self.reports[case] for case in cases])
        keep = (1 - drop)[:, None, None]
        return keep * states + (1 - keep) * self.null(len(cases))


def run(context: StageContext) -> Iterator[Step]:
    """Train U-Net and prompts on train pairs; the language model stays frozen."""
    settings = context.settings.finetune
    seed = context.settings.train_seed
    device = context.world.device
    unet, null = load_denoiser(context.inputs["pretrain"])
    with initialised_from(NAME, seed):
        soft_prompt = build_context(
            context.settings.language,
            settings.soft_prompt,
            settings.lora,
            settings.readout,
            language_folder(context),
            seed,
        )
        if width_read(unet) != soft_prompt.width:
            # Pretrained under CLIP's empty prompt: what reads the records is new.
            unet = reading(unet, soft_prompt.width, context.settings.unet.text_projection)
            null = NullContext(soft_prompt.width)
    condition_on_latents(unet, unet.config.in_channels)
    record = RecordContext(soft_prompt, null)
    objective = DenoisingObjective(
        unet, record, noise_schedule(context.settings.noise_schedule), settings.min_snr_gamma
    ).to(device)
    splits = ("train", "validation")
    reports = {
        split: reports_of(read_pairs(context.cohort, split), settings.report) for split in splits
    }
    target = measured_target(settings.target, load_latents(context.inputs["latents"], "train"))
    sources = {split: _source(context, objective, split, target) for split in splits}
    state = TrainState(
        NAME,
        objective,
        settings,
        settings.steps_for(sources["train"].num_items),
        context.world,
        context.settings.precision,
        seed,
    )
    held_out = validator(
        objective, sources["validation"].validation(), context.settings.precision, device
    )

    quick_draws = _quick_draws(context, objective, record, sources["validation"].latents, target)

    def validate() -> dict[str, float]:
        record.reports = reports["validation"]
        metrics = held_out() | quick_draws()
        record.reports = reports["train"]
        return metrics

    record.reports = reports["train"]
    for step in fit(state, sources["train"].at, validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_denoiser(unet, null, context.out)
    target.save(context.out)
    copy_latent_space(context.inputs["latents"], context.out)
    _save_adapter(soft_prompt, context.out)


def _save_adapter(soft_prompt: SoftPromptContext, folder: Path) -> None:
    adapter = {
        name: value.cpu().contiguous() for name, value in soft_prompt.adapter_state().items()
    }
    save_file(adapter, folder / "adapter.safetensors")


def _source(
    context: StageContext, objective: DenoisingObjective, split: str, target: Target
) -> BatchSource:
    settings = context.settings.finetune
    return BatchSource(
        NAME,
        context.settings.train_seed,
        load_latents(context.inputs["latents"], split),
        objective.schedule,
        context.world,
        paired=True,
        batch_size=settings.batch_size,
        drop_rate=settings.condition_dropout,
        copies=settings.epoch == "copies",
        sampled_condition=settings.baseline_latent == "sample",
        timesteps=settings.timesteps,
        target=target,
    )


def _quick_draws(
    context: StageContext,
    objective: DenoisingObjective,
    record: RecordContext,
    latents: PairedLatents,
    target: Target | None = None,
) -> QuickDraws:
    cohort = read_pairs(context.cohort, "validation")
    device = context.world.device
    cases = cohort.table["case_id"].tolist()
    baseline = latents.baseline.at(np.array(0))
    noise = None
    if context.settings.finetune.baseline_latent == "sample":
        noise = draw_noise(DRAW_SEED, cases, 0, baseline.mean.shape[1:], purpose="quick-baseline")
    return held_out_draws(
        context,
        cohort,
        objective.unet,
        lambda cases: record(cases, torch.zeros(len(cases), device=device)),
        objective.schedule,
        condition_of(baseline, noise),
        target,
    )
