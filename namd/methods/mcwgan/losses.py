"""The terms of McWGAN's two losses, as functions of images and networks."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

DATA_RANGE = 2.0
"""Images lie in [-1, 1]."""

Critic = Callable[[Tensor], Tensor]


def gradient_penalty(
    critic: Critic,
    real: Float[Tensor, "B 1 H W"],
    drawn: Float[Tensor, "B 1 H W"],
    mix: Float[Tensor, " B"],
) -> Float[Tensor, ""]:
    """Return E (||grad D(x~)|| - 1)^2 at x~ = x2^ + u (x2 - x2^), one u in [0, 1] for each image.

    A critic whose slope is 1 wherever real and drawn images lie is 1-Lipschitz between them, so
    that its verdicts' difference is a Wasserstein distance (Gulrajani et al. 2017, Eq 3). The norm
    is over an image's pixels; the critic must treat images one by one (no batch norm).
    """
    between = torch.lerp(drawn, real, mix[:, None, None, None]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


def verdict_gap(
    critic: Critic, real: Float[Tensor, "B 1 H W"], drawn: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, ""]:
    """Return E D(x2^) - E D(x2): below 0 if the critic tells drawn images from real ones."""
    of_drawn, of_real = critic(torch.cat([drawn, real])).chunk(2)
    return of_drawn.mean() - of_real.mean()


def structural_loss(
    drawn: Float[Tensor, "B 1 H W"], real: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, ""]:
    """Return 1 - SSIM(x2^, x2), mean over images: 0 for equal images, at most 2.

    torchmetrics' SSIM: Gaussian window of 11 pixels and deviation 1.5, images reflected at their
    borders, K1 0.01, K2 0.03 (Wang et al. 2004), data range 2.
    """
    similarity = structural_similarity_index_measure(drawn, real, data_range=DATA_RANGE)
    assert isinstance(similarity, Tensor)
    return 1 - similarity


def feature_distance(
    features: Callable[[Tensor], Tensor],
    drawn: Float[Tensor, "B 1 H W"],
    real: Float[Tensor, "B 1 H W"],
) -> Float[Tensor, ""]:
    """Return |phi(x2^) - phi(x2)|, averaged over features and images."""
    with torch.no_grad():
        wanted = features(real)
    return (features(drawn) - wanted).abs().mean()
