"""The loss of both diffusion stages (NAMD Eq 9 and 10)."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss


def noise_prediction_loss(
    predicted_noise: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of the predicted noise over all elements."""
    return mse_loss(predicted_noise, noise)
