"""The terms of DDL-CXR that no other method has."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from namd.losses.gather import sum_over_ranks, workers

SMALLEST_NORM = 1e-4
LARGEST_WEIGHT = 1e4


def adaptive_weight(
    reference: Float[Tensor, ""], term: Float[Tensor, ""], parameter: nn.Parameter
) -> Float[Tensor, ""]:
    """Return w = |d reference / d theta| / (|d term / d theta| + 1e-4), at most 1e4, detached.

    theta is the weight of one layer; w times the term then pulls at it as strongly as the
    reference does (Esser et al. 2021, Eq 7). Gradients are those of the global batch.
    """
    norms = [_gradient(loss, parameter).norm() for loss in (reference, term)]
    return (norms[0] / (norms[1] + SMALLEST_NORM)).clamp(0, LARGEST_WEIGHT).detach()


def _gradient(loss: Tensor, parameter: nn.Parameter) -> Tensor:
    (found,) = torch.autograd.grad(loss, parameter, retain_graph=True)
    return sum_over_ranks(found.detach().float()) / workers()


def ramp(epoch: int, ramp_epochs: int) -> float:
    """Return the share of the triplet term that counts: epoch / ramp_epochs, at most 1."""
    return min(1.0, epoch / ramp_epochs)


def triplet_loss(
    errors: Float[Tensor, "B C h w"],
    corrupted_errors: Float[Tensor, "B C h w"],
    signal: Float[Tensor, " B"],
    margin: float,
) -> Float[Tensor, ""]:
    """Return mean[(1 - abar_t) relu(e - e_neg + margin)], relu elementwise and before the mean.

    Args:
        errors: (eps - eps^)^2 under the case's own record.
        corrupted_errors: Likewise under the corrupted one.
        signal: abar_t of each case.
        margin: In units of a squared error.
    """
    hinge = relu(errors - corrupted_errors + margin)
    return ((1 - signal.to(hinge))[:, None, None, None] * hinge).mean()


def discriminator_loss(
    real: Float[Tensor, "B 1 h w"], drawn: Float[Tensor, "B 1 h w"]
) -> Float[Tensor, ""]:
    """Return the hinge loss 1/2 (E relu(1 - D(x)) + E relu(1 + D(x^)))."""
    return 0.5 * (relu(1 - real).mean() + relu(1 + drawn).mean())
