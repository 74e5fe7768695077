"""Noise of the latent SDEs of single cases, for draws and validation."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from namd.diffusion.noise import draw_noise
from namd.methods.imageflownet.sde import Noise


def case_noise(purpose: str, seed: int, case_ids: np.ndarray, k: int, device: str) -> Noise:
    """Return the noise of draw k: that of a case depends on (purpose, seed, case id, k) alone."""
    ids = list(case_ids)

    def noise(name: str, n: int, shape: Sequence[int]) -> Tensor:
        return draw_noise(seed, ids, k, shape, purpose=f"{purpose}-{name}-{n}").to(device)

    return noise
