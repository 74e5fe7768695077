"""The trained latent diffusion model, bound to cases and ready to draw."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.rotation import rotated_crops
from namd.data.schema import EHR_FEATURES
from namd.diffusion.ddim import ddim_sample, inference_timesteps
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import noise_schedule, sigmas
from namd.methods.base import StageContext
from namd.methods.namd.denoising import condition_of
from namd.methods.namd.finetune import report_texts, reports_of
from namd.methods.namd.pretrain import language_folder, load_denoiser
from namd.methods.namd.target import load_target
from namd.methods.shared.latent_space import load_latent_space
from namd.methods.shared.latents import encode_crops
from namd.models.language import load_context
from namd.models.vae import load_vae
from namd.sample.denoiser import PreparedUNet
from namd.train.loop import autocast

BATCH = 64


class LatentDiffusionDrawer:
    """Draws follow-ups by DDIM from the baseline latent and the record."""

    batch_size = BATCH

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        settings = context.settings
        self.settings = settings.draws
        self.reported = settings.finetune.report
        self.precision, self.device = settings.precision, context.world.device
        self.draw_seed = settings.draw_seed
        self.case_ids = cohort.table["case_id"].tolist()
        self.schedule = noise_schedule(settings.noise_schedule)
        self.sigmas = sigmas(self.schedule)
        self.vae, scale = load_vae(context.inputs["vae"])
        self.space = load_latent_space(context.inputs["finetune"], scale)
        self.target = load_target(context.inputs["finetune"])
        self.unet, self.null = load_denoiser(context.inputs["finetune"])
        for module in (self.vae, self.unet, self.null):
            module.requires_grad_(False).eval().to(self.device)
        ddim = self.settings.ddim
        steps = inference_timesteps(
            settings.noise_schedule, ddim.num_inference_steps, ddim.skipped_steps
        )
        self.prepared = PreparedUNet(self.unet, steps, self.precision)
        hu = rotated_crops(cohort.baseline, 0, settings.image.size)
        self.baseline = self.space.posterior(encode_crops(self.vae, hu, context))
        self.samples_baseline = settings.finetune.baseline_latent == "sample"
        self.states = self._read_records(context, cohort)

    def __len__(self) -> int:
        return len(self.case_ids)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return draw `index` of these cases."""
        shape = tuple(self.baseline.mean.shape[1:])
        ids = [self.case_ids[case] for case in cases]

        def noise(step: int | None = None) -> Tensor:
            return draw_noise(self.draw_seed, ids, index, shape, step).to(self.device)

        own = None
        if self.samples_baseline:
            own = draw_noise(self.draw_seed, ids, index, shape, purpose="draw-baseline")
        condition = condition_of(self.baseline.at(cases), own).to(self.device)
        states = self.states[cases].to(self.device)

        predict_noise = self.prepared.bind(condition, states)
        guided = predict_noise
        if (scale := self.settings.guidance_scale) != 1.0:
            unguided = self.prepared.bind(condition, self.null(len(cases)))

            def guided(latents: Tensor, timestep: int) -> Tensor:
                if not self._is_guided(timestep):
                    return predict_noise(latents, timestep)
                without = unguided(latents, timestep)
                return without + scale * (predict_noise(latents, timestep) - without)

        diffused = ddim_sample(guided, noise(), self.schedule, self.settings.ddim, noise)
        latents = self.target.followup(diffused, condition)
        with autocast(self.precision, self.device):
            images = self.vae.decode(self.space.unscaled(latents))
        return images.float().clamp(-1, 1)

    def report(self, values: Mapping[str, Any]) -> str:
        """Return the report that is read of a record's values."""
        table = pd.DataFrame([dict(values)], columns=list(EHR_FEATURES))
        return report_texts(table, self.reported)[0]

    def _is_guided(self, timestep: int) -> bool:
        if self.settings.guidance_interval is None:
            return True
        low, high = self.settings.guidance_interval
        return bool(low <= self.sigmas[timestep] <= high)

    @torch.no_grad()
    def _read_records(self, context: StageContext, cohort: Cohort) -> Tensor:
        settings = context.settings.finetune
        reports = reports_of(cohort, settings.report)
        if self.settings.record == "shuffled":
            order = generator("shuffled-records", self.draw_seed).permutation(len(reports))
            reports = [reports[i] for i in order]
        reader = load_context(
            context.settings.language,
            settings.soft_prompt,
            settings.lora,
            settings.readout,
            language_folder(context),
            context.inputs["finetune"] / "adapter.safetensors",
        ).to(self.device)
        parts = [
            reader(reports[i : i + BATCH]).float().cpu() for i in range(0, len(reports), BATCH)
        ]
        return torch.cat(parts)
