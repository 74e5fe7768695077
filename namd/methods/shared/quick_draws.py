"""What a half-trained U-Net draws, measured in mm while it trains: the rung of `finetune`.

Unlike a loss it means the same whatever a search varies: its cases, draws and steps are constants,
images are compared in image space, and no judge is asked.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from namd.config.seeding import Identifier
from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.diffusion.conditioning import conditioned_input
from namd.diffusion.ddim import ddim_sample
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import NoiseSchedule
from namd.diffusion.settings import DDIMSettings
from namd.evaluate.diameter import longest_diameter
from namd.methods.base import StageContext
from namd.methods.shared.latent_space import load_latent_space
from namd.methods.shared.target import FollowupTarget, Target
from namd.models.vae import load_vae
from namd.statistics.ensembles import crps
from namd.train.loop import autocast

METRIC = "drawn_diameter_crps_mm"
CASES = 32
DRAWS = 2
STEPS = 10
DRAW_SEED = 0


class QuickDraws:
    """CRPS of the diameters of a few draws of a few held-out cases.

    Args:
        unet: A UNet2DConditionModel under training; read as it stands at each call.
        states_of: From case numbers to encoder_hidden_states.
        decode: From scaled latents to images in [-1, 1].
        condition: Scaled baseline latents of all held-out cases, (N, C, h, w).
        followup: Their real follow-ups in [-1, 1], (N, H, W).
        spacing_mm: Of each.
        case_ids: Of each; the noise of a draw depends on them.
        target: What the U-Net was trained to denoise.
    """

    def __init__(
        self,
        unet: nn.Module,
        states_of: Callable[[np.ndarray], Tensor],
        decode: Callable[[Tensor], Tensor],
        schedule: NoiseSchedule,
        *,
        condition: Float[Tensor, "N C h w"],
        followup: Num[np.ndarray, "N H W"],
        spacing_mm: Num[np.ndarray, " N"],
        case_ids: Sequence[Identifier],
        precision: str,
        device: str,
        target: Target | None = None,
    ) -> None:
        self.target = target or FollowupTarget()
        self.unet, self.states_of, self.decode, self.schedule = unet, states_of, decode, schedule
        self.precision, self.device = precision, device
        spread = np.unique(np.linspace(0, len(followup) - 1, CASES).astype(int))
        measured = longest_diameter(followup[spread], spacing_mm[spread])
        self.cases, self.truth = spread[~np.isnan(measured)], measured[~np.isnan(measured)]
        self.spacing_mm = spacing_mm[self.cases]
        self.case_ids = [case_ids[case] for case in self.cases]
        self.condition = condition[torch.from_numpy(self.cases)].to(device)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return the metric in mm; nothing where no follow-up can be measured.

        A draw in which no nodule stands out counts as 0 mm.
        """
        if not len(self.cases):
            return {}
        steps = min(STEPS, self.schedule.settings.max_inference_steps)
        settings = DDIMSettings(num_inference_steps=steps)
        with autocast(self.precision, self.device):
            states = self.states_of(self.cases)
            drawn = [self._draw(k, states, settings) for k in range(DRAWS)]
        diameters = [longest_diameter(images, self.spacing_mm) for images in drawn]
        draws = np.nan_to_num(np.stack(diameters, 1), nan=0.0)
        return {METRIC: float(crps(draws, self.truth).mean())}

    def _draw(self, k: int, states: Tensor, settings: DDIMSettings) -> np.ndarray:
        def predict(latents: Tensor, timestep: int) -> Tensor:
            joined = conditioned_input(latents, self.condition)
            return self.unet(joined, timestep, encoder_hidden_states=states).sample

        noise = draw_noise(DRAW_SEED, self.case_ids, k, self.condition.shape[1:]).to(self.device)
        diffused = ddim_sample(predict, noise, self.schedule, settings)
        images = self.decode(self.target.followup(diffused, self.condition))
        return images.float().clamp(-1, 1)[:, 0].cpu().numpy()


def held_out_draws(
    context: StageContext,
    cohort: Cohort,
    unet: nn.Module,
    states_of: Callable[[np.ndarray], Tensor],
    schedule: NoiseSchedule,
    condition: Float[Tensor, "N C h w"],
    target: Target | None = None,
) -> QuickDraws:
    """Return the quick draws of a stage whose inputs are `vae` and `latents`.

    `cohort` holds the validation cases with a follow-up, `condition` their baseline latents.
    """
    device = context.world.device
    vae, scale = load_vae(context.inputs["vae"])
    vae, space = vae.to(device), load_latent_space(context.inputs["latents"], scale)
    return QuickDraws(
        unet,
        states_of,
        lambda latents: vae.decode(space.unscaled(latents)),
        schedule,
        condition=condition,
        followup=to_unit(centre_cut(np.asarray(cohort.followup), context.settings.image.size)),
        spacing_mm=cohort.table["spacing_mm"].to_numpy(float),
        case_ids=cohort.table["case_id"].tolist(),
        precision=context.settings.precision,
        device=device,
        target=target,
    )
