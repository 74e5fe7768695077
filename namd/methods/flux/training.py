"""Stage `flux_transformer`: the transformer and the record's tokens learn the follow-up."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from torch import Tensor

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.data.schema import EHR_FEATURES
from namd.methods.base import StageContext, Step
from namd.methods.flux.objective import NAME, FlowBatches, RectifiedFlow
from namd.methods.flux.quick_draws import QuickDraws
from namd.methods.flux.record import RecordScale, RecordTokens, save_record
from namd.methods.flux.transformer import build_transformer
from namd.methods.shared.crop_set import read_pairs
from namd.methods.shared.denoising import validator
from namd.methods.shared.latent_space import copy_latent_space, load_latent_space
from namd.methods.shared.latents import load_latents
from namd.models.initialisation import initialised_from
from namd.models.vae import load_vae
from namd.train.fit import fit
from namd.train.loop import TrainState


def run(context: StageContext) -> Iterator[Step]:
    """Train on train pairs, keep what the settings say; writes the transformer and the record."""
    settings, seed = context.settings.flux, context.settings.train_seed
    device, precision = context.world.device, context.settings.precision
    pairs = {split: read_pairs(context.cohort, split) for split in ("train", "validation")}
    scale = RecordScale.fit(pairs["train"].table, settings.record.include)
    batches = {
        split: FlowBatches(
            settings,
            seed,
            load_latents(context.inputs["latents"], split),
            scale.numbers(_records(cohort)),
            context.world,
        )
        for split, cohort in pairs.items()
    }
    channels = int(batches["train"].latents.baseline.mean.shape[2])
    with initialised_from(NAME, seed):
        guided = settings.guidance is not None
        transformer = build_transformer(settings.architecture, channels, guided)
        widths = transformer.config.joint_attention_dim, transformer.config.pooled_projection_dim
        objective = RectifiedFlow(transformer, RecordTokens(*widths), settings.guidance).to(device)
    steps = settings.steps_for(len(batches["train"].latents))
    state = TrainState(NAME, objective, settings, steps, context.world, precision, seed)
    held_out = validator(objective, batches["validation"].validation(), precision, device)
    quick_draws = _quick_draws(context, objective, batches["validation"], pairs["validation"])

    def validate() -> dict[str, float]:
        return held_out() | quick_draws()

    for step in fit(state, batches["train"].at, validate, context.checkpoints):
        yield Step(step.index, step.total, step.metrics)
    transformer.save_pretrained(context.out / "transformer", safe_serialization=True)
    save_record(objective.record, scale, context.out)
    copy_latent_space(context.inputs["latents"], context.out)


def _records(cohort: Cohort) -> pd.DataFrame:
    return cohort.table[list(EHR_FEATURES)]


def _quick_draws(
    context: StageContext, objective: RectifiedFlow, batches: FlowBatches, cohort: Cohort
) -> QuickDraws:
    device = context.world.device
    vae, scale = load_vae(context.inputs["vae"])
    vae, space = vae.to(device), load_latent_space(context.inputs["latents"], scale)
    baseline = batches.latents.baseline.at(np.array(0))

    def decode(latents: Tensor) -> Tensor:
        return vae.decode(space.unscaled(latents))

    return QuickDraws(
        objective,
        decode,
        condition=baseline.mean,
        record=batches.record,
        followup=to_unit(centre_cut(np.asarray(cohort.followup), context.settings.image.size)),
        spacing_mm=cohort.table["spacing_mm"].to_numpy(float),
        case_ids=cohort.table["case_id"].tolist(),
        precision=context.settings.precision,
        device=device,
    )
