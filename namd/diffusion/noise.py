"""Random inputs of training and sampling, drawn with numpy so that every device gets the same.

Training draws are made for the global batch, of which each rank takes its part, so the number of
workers changes nothing; a draw of a case depends on (draw_seed, case_id, k) alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from namd.config.seeding import Identifier, generator


def draw_noise(
    draw_seed: int,
    case_ids: Sequence[Identifier],
    k: int,
    shape: Sequence[int],
    step: int | None = None,
    purpose: str = "draw-noise",
) -> Float[Tensor, "B ..."]:
    """Return standard normal noise of draw k, one row of the given shape per case, on the CPU.

    That from which a draw begins, or the fresh noise of a sampling step (eta above 0). What else
    a draw needs noise for names its own purpose.
    """
    purpose, steps = (purpose, ()) if step is None else ("draw-step-noise", (step,))
    rows = [
        generator(purpose, draw_seed, case_id, k, *steps).standard_normal(tuple(shape), np.float32)
        for case_id in case_ids
    ]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)


def training_noise(
    train_seed: int,
    stage: str,
    step: int,
    batch_size: int,
    shape: Sequence[int],
    purpose: str = "training-noise",
) -> Float[Tensor, "B ..."]:
    """Return standard normal noise of a training step's global batch, on the CPU.

    A step that needs two independent noises (a posterior sample and the diffusion's) names two
    purposes.
    """
    rng = generator(purpose, train_seed, stage, step)
    return torch.from_numpy(rng.standard_normal((batch_size, *shape), np.float32))
