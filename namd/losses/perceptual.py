"""L_LPIPS of Eq 6: a distance between feature maps. Who extracts them is not known here."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-10


def perceptual_distance(
    features: Sequence[Float[Tensor, "B _ _ _"]], references: Sequence[Float[Tensor, "B _ _ _"]]
) -> Float[Tensor, ""]:
    """Return the distance of unit-normalised features, mean over batch (Zhang et al. 2018, Eq 1).

    Per level: each position's channels are scaled to length 1, squared differences are summed over
    channels and averaged over positions; levels are summed. All channel weights are 1, LPIPS's own
    variant without learned weights, for extractors that come without any.

    Raises ValueError if the two sides have no level, or not equally many.
    """
    if not features or len(features) != len(references):
        raise ValueError(
            f"both sides need the same levels, got {len(features)} and {len(references)}"
        )
    levels = [
        (_unit(ours) - _unit(theirs)).square().sum(1).mean()
        for ours, theirs in zip(features, references, strict=True)
    ]
    return torch.stack(levels).sum()


def _unit(maps: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    # The root is taken of a sum above 0: its slope at 0 is infinite.
    return maps / (maps.square().sum(1, keepdim=True) + EPSILON).sqrt()
