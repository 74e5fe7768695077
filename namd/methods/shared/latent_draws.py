"""A trained latent diffusion model, bound to cases and ready to draw."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from namd.config.seeding import generator
from namd.data.cohort import Cohort
from namd.data.rotation import rotated_crops
from namd.diffusion.ddim import ddim_sample, inference_timesteps
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import noise_schedule, sigmas
from namd.methods.base import StageContext
from namd.methods.shared.denoiser_files import load_denoiser
from namd.methods.shared.denoising import condition_of
from namd.methods.shared.latent_space import load_latent_space
from namd.methods.shared.latents import encode_crops
from namd.methods.shared.target import load_target
from namd.models.vae import load_vae
from namd.sample.denoiser import PreparedUNet
from namd.train.loop import autocast

BATCH = 64


class LatentDrawer:
    """Draws follow-ups by DDIM from the baseline latent and the record.

    A method says how its records become `encoder_hidden_states`, in `read_records`.

    Args:
        context: Its configuration has `draws`, `noise_schedule`, `precision` and `image`; its
            inputs are `vae` and the trained denoiser.
        cohort: The cases.
        trained: Name of the stage that trained the denoiser.
        samples_baseline: The condition is a posterior sample of the baseline; else its mean.
    """

    batch_size = BATCH

    def __init__(
        self, context: StageContext, cohort: Cohort, trained: str, *, samples_baseline: bool = False
    ) -> None:
        settings = context.settings
        self.settings = settings.draws
        self.precision, self.device = settings.precision, context.world.device
        self.draw_seed = settings.draw_seed
        self.case_ids = cohort.table["case_id"].tolist()
        self.schedule = noise_schedule(settings.noise_schedule)
        self.sigmas = sigmas(self.schedule)
        self.vae, scale = load_vae(context.inputs["vae"])
        self.space = load_latent_space(context.inputs[trained], scale)
        self.target = load_target(context.inputs[trained])
        self.unet, self.null = load_denoiser(context.inputs[trained])
        for module in (self.vae, self.unet, self.null):
            module.requires_grad_(False).eval().to(self.device)
        ddim = self.settings.ddim
        steps = inference_timesteps(
            settings.noise_schedule, ddim.num_inference_steps, ddim.skipped_steps
        )
        self.prepared = PreparedUNet(self.unet, steps, self.precision)
        hu = rotated_crops(cohort.baseline, 0, settings.image.size)
        self.baseline = self.space.posterior(encode_crops(self.vae, hu, context))
        self.samples_baseline = samples_baseline
        with torch.no_grad():
            self.states = self.read_records(context, cohort)

    def __len__(self) -> int:
        return len(self.case_ids)

    def read_records(self, context: StageContext, cohort: Cohort) -> Float[Tensor, "N m D"]:
        """Return the encoder_hidden_states of every case, on the CPU."""
        raise NotImplementedError

    def record_order(self, count: int) -> np.ndarray:
        """Return whose record conditions each case: its own, or another's (`draws.record`)."""
        if self.settings.record == "shuffled":
            return generator("shuffled-records", self.draw_seed).permutation(count)
        return np.arange(count)

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

    def _is_guided(self, timestep: int) -> bool:
        if self.settings.guidance_interval is None:
            return True
        low, high = self.settings.guidance_interval
        return bool(low <= self.sigmas[timestep] <= high)
