"""The loss of both diffusion stages (NAMD Eq 9 and 10)."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss


def noise_prediction_loss(
    predicted: Float[Tensor, "B C h w"], target: Float[Tensor, "B C h w"]
) -> Float[Tensor, ""]:
    """Return the mean squared error over all elements; the target is the noise, or v."""
    return mse_loss(predicted, target)
