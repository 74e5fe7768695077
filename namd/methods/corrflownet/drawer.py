"""The trained flow, bound to cases and ready to draw."""

import numpy as np
import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from torch import Tensor

from namd.data.cohort import Cohort
from namd.data.rotation import centre_cut
from namd.diffusion.noise import draw_noise
from namd.methods.base import StageContext
from namd.methods.corrflownet.flow import FlowObjective, followed
from namd.methods.shared.latents import encode_crops
from namd.models.vae import load_diffusers, load_vae
from namd.train.loop import autocast


class FlowDrawer:
    """Follows the flow from the baseline's latents: by the ODE, or by the SDE with fresh noise."""

    batch_size = 64

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        settings = context.settings
        self.device, self.precision = context.world.device, settings.precision
        self.num_steps = settings.draws.num_steps
        self.noisy = settings.draws.sampler == "sde"
        if self.noisy:
            self.strength, self.draw_seed = settings.draws.noise, settings.draw_seed
        self.vae, self.scale = load_vae(context.inputs["vae"])
        network = load_diffusers(UNet2DModel, context.inputs["flow"], "unet")
        self.objective = FlowObjective(network).eval().requires_grad_(False)
        self.vae.to(self.device)
        self.objective.to(device=self.device).to(memory_format=torch.channels_last)
        crops = centre_cut(np.asarray(cohort.baseline), settings.image.size)
        self.before = self.scale * encode_crops(self.vae, crops, context).mean
        self.case_ids = cohort.table["case_id"].tolist()

    def __len__(self) -> int:
        return len(self.case_ids)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return draw `index` of these cases; by the ODE it is the same for every index."""
        before = self.before[torch.from_numpy(cases)].to(self.device)
        with autocast(self.precision, self.device):
            velocity = self.objective.bound(before)
            if self.noisy:
                ids, shape = [self.case_ids[case] for case in cases], tuple(before.shape[1:])

                def noise(step: int) -> Tensor:
                    return draw_noise(self.draw_seed, ids, index, shape, step).to(self.device)

                after = followed(velocity, before, self.num_steps, self.strength, noise)
            else:
                after = followed(velocity, before, self.num_steps)
            return self.vae.decode(after / self.scale).float().clamp(-1, 1)
