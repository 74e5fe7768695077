"""Draws of ImageFlowNet: the baseline's latents, evolved with noise of their own."""

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from namd.data.cohort import Cohort
from namd.data.intensity import to_unit
from namd.data.rotation import centre_cut
from namd.methods.base import StageContext
from namd.methods.imageflownet.network import EvolvingUNet
from namd.methods.imageflownet.noise import case_noise
from namd.methods.imageflownet.training import FILE, NAME
from namd.train.loop import autocast


class ImageFlowNetDrawer:
    """Evolves the latents of each baseline to tau; every draw has noise of its own."""

    batch_size = 16

    def __init__(self, context: StageContext, cohort: Cohort) -> None:
        self.device = context.world.device
        self.precision = context.settings.precision
        self.draw_seed = context.settings.draw_seed
        settings, size = context.settings.imageflownet, context.settings.image.size
        self.network = EvolvingUNet(settings.architecture, settings.sde, size)
        self.network.load_state_dict(load_file(context.inputs[NAME] / FILE))
        self.network.eval().requires_grad_(False).to(self.device)
        crops = centre_cut(np.asarray(cohort.baseline), size)
        self.baseline = torch.from_numpy(to_unit(crops))[:, None]
        self.case_ids = cohort.table["case_id"].to_numpy()

    def __len__(self) -> int:
        return len(self.baseline)

    def draw(self, cases: np.ndarray, index: int) -> Float[Tensor, "B 1 H W"]:
        """Return draw `index`; the noise of an SDE depends on (draw seed, case, index) alone."""
        noise = case_noise(NAME, self.draw_seed, self.case_ids[cases], index, self.device)
        before = self.baseline[torch.from_numpy(cases)].to(self.device)
        with autocast(self.precision, self.device):
            return self.network.predict(before, noise).float().clamp(-1, 1)
