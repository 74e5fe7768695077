"""What a half-trained flow draws, measured in mm while it trains: the rung of its stage.

Its cases, draws and steps are constants, so that it means the same whatever a search varies.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from namd.config.seeding import Identifier
from namd.diffusion.noise import draw_noise
from namd.evaluate.diameter import longest_diameter
from namd.methods.flux.flow import euler_sample, euler_scheduler
from namd.methods.flux.objective import RectifiedFlow
from namd.statistics.ensembles import crps
from namd.train.loop import autocast

METRIC = "drawn_diameter_crps_mm"
CASES, DRAWS, STEPS, DRAW_SEED = 32, 2, 10, 0


class QuickDraws:
    """CRPS of the diameters of a few draws of a few held-out cases.

    Args:
        objective: The flow under training; read as it stands at each call.
        decode: From scaled latents to images.
        condition: Scaled baseline latents of all held-out cases.
        record: Numbers of their records.
        followup: Their real follow-ups in [-1, 1].
        spacing_mm: Of each.
        case_ids: Of each; the noise of a draw depends on them.
    """

    def __init__(
        self,
        objective: RectifiedFlow,
        decode: Callable[[Tensor], Tensor],
        *,
        condition: Float[Tensor, "N C h w"],
        record: Float[Tensor, "N F"],
        followup: Num[np.ndarray, "N H W"],
        spacing_mm: Num[np.ndarray, " N"],
        case_ids: Sequence[Identifier],
        precision: str,
        device: str,
    ) -> None:
        self.objective, self.decode = objective, decode
        self.precision, self.device = precision, device
        spread = np.unique(np.linspace(0, len(followup) - 1, CASES).astype(int))
        measured = longest_diameter(followup[spread], spacing_mm[spread])
        cases, self.truth = spread[~np.isnan(measured)], measured[~np.isnan(measured)]
        self.spacing_mm = spacing_mm[cases]
        self.case_ids = [case_ids[case] for case in cases]
        self.condition = condition[torch.from_numpy(cases)].to(device)
        self.record = record[torch.from_numpy(cases)].to(device)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Return the metric in mm; nothing if no follow-up can be measured.

        A draw in which no nodule stands out counts as 0 mm.
        """
        if not len(self.truth):
            return {}
        with autocast(self.precision, self.device):
            drawn = [self._draw(index) for index in range(DRAWS)]
        diameters = [longest_diameter(images, self.spacing_mm) for images in drawn]
        draws = np.nan_to_num(np.stack(diameters, 1), nan=0.0)
        return {METRIC: float(crps(draws, self.truth).mean())}

    def _draw(self, index: int) -> np.ndarray:
        shape = self.condition.shape[1:]
        noise = draw_noise(DRAW_SEED, self.case_ids, index, shape).to(self.device)
        field = self.objective.bound(self.condition, self.record)
        latents = euler_sample(field, noise, euler_scheduler(STEPS, 1, dynamic_shift=False))
        return self.decode(latents).float().clamp(-1, 1)[:, 0].cpu().numpy()
