"""The trained flow, bound to cases and ready to draw."""

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.rotation import rotated_crops
from namd.data.schema import EHR_FEATURES
from namd.diffusion.noise import draw_noise
from namd.methods.base import StageContext
from namd.methods.flux.flow import euler_sample, euler_scheduler
from namd.methods.flux.objective import NAME, RectifiedFlow
from namd.methods.flux.record import load_record
from namd.methods.flux.settings import PATCH
from namd.methods.shared.latent_space import load_latent_space
from namd.methods.shared.latents import encode_crops
from namd.models.vae import load_diffusers, load_vae
from namd.train.loop import autocast


class FluxDrawer:
    """Draws follow-ups from noise, by Euler steps, given baseline latents and record."""

    batch_size = 64

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        settings, folder = context.settings, context.inputs[NAME]
        self.settings = settings.draws
        self.precision, self.device = settings.precision, context.world.device
        self.draw_seed = settings.draw_seed
        self.case_ids = cohort.table["case_id"].tolist()
        self.vae, scale = load_vae(context.inputs["vae"])
        self.space = load_latent_space(folder, scale)
        reader, record = load_record(folder)
        transformer = load_diffusers(FluxTransformer2DModel, folder, "transformer")
        self.flow = RectifiedFlow(transformer, reader, settings.flux.guidance)
        for module in (self.vae, self.flow):
            module.requires_grad_(False).eval().to(self.device)
        hu = rotated_crops(cohort.baseline, 0, settings.image.size)
        self.baseline = self.space.posterior(encode_crops(self.vae, hu, context))
        self.samples_baseline = settings.flux.baseline_latent == "sample"
        numbers = record.numbers(cohort.table[list(EHR_FEATURES)])
        self.record = numbers[self._whose(len(numbers))]

    def __len__(self) -> int:
        return len(self.case_ids)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return draw `index` of these cases."""
        channels, height, width = self.baseline.mean.shape[1:]
        ids = [self.case_ids[case] for case in cases]
        noise, own = (
            draw_noise(self.draw_seed, ids, index, (channels, height, width), purpose=purpose)
            for purpose in ("draw-noise", "draw-baseline")
        )
        baseline = self.baseline.at(cases)
        condition = baseline.sample(own) if self.samples_baseline else baseline.mean
        scheduler = euler_scheduler(
            self.settings.num_inference_steps,
            height * width // PATCH**2,
            self.settings.dynamic_shift,
        )
        with autocast(self.precision, self.device):
            record = self.record[torch.from_numpy(cases)].to(self.device)
            field = self.flow.bound(condition.to(self.device), record)
            latents = euler_sample(field, noise.to(self.device), scheduler)
            images = self.vae.decode(self.space.unscaled(latents))
        return images.float().clamp(-1, 1)

    def _whose(self, count: int) -> np.ndarray:
        if self.settings.record == "own":
            return np.arange(count)
        return generator("shuffled-records", self.draw_seed).permutation(count)
