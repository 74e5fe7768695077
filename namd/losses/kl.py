"""L_KL of Eq 6: the posterior against a standard normal."""

from jaxtyping import Float
from torch import Tensor


def kl_loss(mean: Float[Tensor, "B C h w"], logvar: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    """Return KL(N(mean, exp(logvar)) || N(0, 1)): sum over latent axes, mean over batch, nats."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1).mean()
