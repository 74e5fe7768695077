"""L_rec of Eq 6: the mean absolute difference. Features' distance is in perceptual.py."""

from jaxtyping import Float
from torch import Tensor


def reconstruction_loss(
    reconstructions: Float[Tensor, "B C H W"], images: Float[Tensor, "B C H W"]
) -> Float[Tensor, ""]:
    """Return the mean over pixels and batch of |reconstruction - image|, in units of [-1, 1]."""
    return (reconstructions - images).abs().mean()
