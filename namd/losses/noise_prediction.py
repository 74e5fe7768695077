"""The loss of both diffusion stages (NAMD Eq 9 and 10)."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss


def noise_prediction_loss(
    predicted: Float[Tensor, "B C h w"],
    target: Float[Tensor, "B C h w"],
    weights: Float[Tensor, " B"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean squared error over all elements; the target is the noise, or v.

    `weights` multiply each case's own mean; they are not normalised.
    """
    if weights is None:
        return mse_loss(predicted, target)
    errors = (predicted - target).square().mean((1, 2, 3))
    return (weights.to(errors) * errors).mean()
