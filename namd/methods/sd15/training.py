"""Stage `sd15_denoiser`: SD1.5's U-Net learns the follow-up; and its drawer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from namd.data.cohort import Cohort
from namd.data.schema import EHR_FEATURES
from namd.diffusion.conditioning import condition_on_latents
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import noise_schedule
from namd.methods.base import StageContext, Step
from namd.methods.sd15.text import load_reader
from namd.methods.shared.crop_set import read_pairs
from namd.methods.shared.denoiser_files import save_denoiser
from namd.methods.shared.denoising import BatchSource, DenoisingObjective, condition_of, validator
from namd.methods.shared.latent_draws import BATCH, LatentDrawer
from namd.methods.shared.latent_space import copy_latent_space
from namd.methods.shared.latents import load_latents
from namd.methods.shared.quick_draws import DRAW_SEED, QuickDraws, held_out_draws
from namd.methods.shared.reports import report_texts, reports_of
from namd.methods.shared.target import Target, measured_target
from namd.models.clip_text import ReportReader
from namd.models.initialisation import initialised_from
from namd.models.unet import NullContext, build_unet
from namd.train.fit import fit
from namd.train.loop import TrainState

NAME = "sd15_denoiser"
SPLITS = ("train", "validation")


class ReportContext(nn.Module):
    """The report of each case through the frozen text model, by case number.

    c = CLIP(report), or CLIP("") for a case whose report is dropped (Ho and Salimans 2022).

    Attributes:
        null: The frozen states of the empty prompt.
        reports: Texts of the cases of the active split.
    """

    def __init__(self, read: Callable[[Sequence[str]], Tensor], null: NullContext) -> None:
        super().__init__()
        self.read = read
        self.null = null
        self.reports: list[str] = []

    def forward(self, cases: np.ndarray, drop: Tensor) -> Tensor:
        """Return encoder_hidden_states (B, L, D)."""
        states = self.read([self.reports[case] for case in cases])
        keep = (1 - drop)[:, None, None]
        return keep * states + (1 - keep) * self.null(len(cases))


def run(context: StageContext) -> Iterator[Step]:
    """Train the U-Net on train pairs; text model and autoencoder stay frozen."""
    settings, seed = context.settings.sd15, context.settings.train_seed
    reader = load_reader(context)
    reports = {
        split: reports_of(read_pairs(context.cohort, split), settings.report) for split in SPLITS
    }
    _warn_of_cut_reports(context, reader, reports["train"])
    record = ReportContext(reader, NullContext(reader.width, reader([""])))
    objective = _objective(context, record, reader.width).to(context.world.device)
    target = measured_target(settings.target, load_latents(context.inputs["latents"], "train"))
    sources = {split: _source(context, objective, split, target) for split in SPLITS}
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
        objective,
        sources["validation"].validation(),
        context.settings.precision,
        context.world.device,
    )
    quick_draws = _quick_draws(context, objective, record, sources["validation"], target)

    def validate() -> dict[str, float]:
        record.reports = reports["validation"]
        metrics = held_out() | quick_draws()
        record.reports = reports["train"]
        return metrics

    record.reports = reports["train"]
    for step in fit(state, sources["train"].at, validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    save_denoiser(objective.unet, record.null, context.out)
    target.save(context.out)
    copy_latent_space(context.inputs["latents"], context.out)


def _objective(context: StageContext, record: ReportContext, width: int) -> DenoisingObjective:
    """Return the U-Net with 2C input channels: SD1.5's own weights, zeros for the baseline's."""
    latents = load_latents(context.inputs["latents"], "validation").baseline.mean
    channels, size = latents.shape[2], latents.shape[-1]
    with initialised_from(NAME, context.settings.train_seed):
        unet = build_unet(context.settings.unet, channels, channels, width, size)
        condition_on_latents(unet, channels)
    schedule = noise_schedule(context.settings.noise_schedule)
    return DenoisingObjective(unet, record, schedule, context.settings.sd15.min_snr_gamma)


def _source(
    context: StageContext, objective: DenoisingObjective, split: str, target: Target
) -> BatchSource:
    settings = context.settings.sd15
    return BatchSource(
        NAME,
        context.settings.train_seed,
        load_latents(context.inputs["latents"], split),
        objective.schedule,
        context.world,
        paired=True,
        batch_size=settings.batch_size,
        drop_rate=settings.condition_dropout,
        sampled_condition=settings.baseline_latent == "sample",
        timesteps=settings.timesteps,
        target=target,
    )


def _quick_draws(
    context: StageContext,
    objective: DenoisingObjective,
    record: ReportContext,
    source: BatchSource,
    target: Target,
) -> QuickDraws:
    cohort, device = read_pairs(context.cohort, "validation"), context.world.device
    baseline = source.latents.baseline.at(np.array(0))
    noise = None
    if source.sampled_condition:
        cases = cohort.table["case_id"].tolist()
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


def _warn_of_cut_reports(context: StageContext, reader: ReportReader, reports: list[str]) -> None:
    if cut := reader.num_cut(reports):
        context.warn(
            f"{cut} different reports of the train split have more than the text model's "
            f"{reader.length} tokens: their ends are not read"
        )


class SD15Drawer(LatentDrawer):
    """Reads each case's report through the frozen text model."""

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        settings = context.settings.sd15
        self.reported = settings.report
        super().__init__(
            context, cohort, NAME, samples_baseline=settings.baseline_latent == "sample"
        )

    def report(self, values: Mapping[str, Any]) -> str:
        """Return the report that is read of a record's values."""
        table = pd.DataFrame([dict(values)], columns=list(EHR_FEATURES))
        return report_texts(table, self.reported)[0]

    def read_records(self, context: StageContext, cohort: Cohort) -> Tensor:
        """Return the text model's states of each report."""
        reader = load_reader(context)
        reports = reports_of(cohort, self.reported)
        reports = [reports[case] for case in self.record_order(len(reports))]
        parts = [reader(reports[i : i + BATCH]).cpu() for i in range(0, len(reports), BATCH)]
        return torch.cat(parts)
