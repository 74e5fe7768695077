"""L_align: latents are as near to one another as their nodules' features are (NAMD Eq 2-4).

What the features are, and how they are standardised, is decided in namd.data.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from namd.losses.settings import MINIMUM_CASES


@dataclass(frozen=True)
class AlignmentOutput:
    """The alignment loss and how sharp its two distributions are.

    Attributes:
        loss: Mean over rows of KL(P_i || Q_i), nats.
        perplexity_p: Mean over rows of exp(entropy of P_i); uniform rows reach num_cases - 1.
        perplexity_q: The same of Q_i.
        num_cases: Rows that took part.
    """

    loss: Float[Tensor, ""]
    perplexity_p: Float[Tensor, ""]
    perplexity_q: Float[Tensor, ""]
    num_cases: int


def alignment_loss(
    latents: Float[Tensor, "B D"],
    features: Float[Tensor, "B F"],
    *,
    sigma_z: float,
    sigma_f: float,
    temperature: float,
    mask: Bool[Tensor, " B"] | None = None,
) -> AlignmentOutput:
    """Return the mean over rows of KL(P_i || Q_i) (NAMD Eq 4).

    P is built from feature distances and carries no gradient; Q from latent distances. Rows that
    `mask` leaves out are in no pair, so their features may hold anything, NaN too. Both logits
    are divided by `temperature`: 1 gives the paper's equations, the authors' code uses 0.5.
    Computed in float32 at least, also under autocast.

    Raises ValueError below three cases: a row needs at least two neighbours.
    """
    if min(sigma_z, sigma_f, temperature) <= 0:
        raise ValueError(
            f"sigma_z, sigma_f and temperature are above 0, not {sigma_z}, {sigma_f}, {temperature}"
        )
    kept = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
    kept = kept if mask is None else mask
    num_cases = int(kept.sum())
    if num_cases < MINIMUM_CASES:
        raise ValueError(f"L_align needs at least {MINIMUM_CASES} cases, got {num_cases}")
    pairs = kept[:, None] & kept[None, :] & ~torch.eye(len(kept), dtype=torch.bool).to(kept.device)
    with torch.autocast(latents.device.type, enabled=False):
        complete = features.detach().masked_fill(~kept[:, None], 0.0)
        log_p = _log_rows(complete, sigma_f, temperature, pairs)
        log_q = _log_rows(latents, sigma_z, temperature, pairs)
        # Outside the pairs both logs stand at 0, so that no 0 * -inf is ever formed.
        p = log_p.exp().masked_fill(~pairs, 0.0)
        loss = (p * (log_p - log_q)).sum() / num_cases
    return AlignmentOutput(
        loss=loss,
        perplexity_p=_mean_perplexity(log_p, pairs, kept),
        perplexity_q=_mean_perplexity(log_q.detach(), pairs, kept),
        num_cases=num_cases,
    )


def pool_latents(
    latents: Float[Tensor, "B C h w"], pooling: Literal["pooled", "flatten"]
) -> Float[Tensor, "B D"]:
    """Return z of Eq 2: the mean over positions (authors' code), or all numbers in one row."""
    return latents.mean((2, 3)) if pooling == "pooled" else latents.flatten(1)


def _log_rows(
    points: Float[Tensor, "B N"], sigma: float, temperature: float, pairs: Bool[Tensor, "B B"]
) -> Float[Tensor, "B B"]:
    """Log of a row-normalised Gaussian kernel over the pairs; 0 elsewhere (Eq 2 and 3)."""
    points = points if points.dtype == torch.float64 else points.float()
    # Differences and not the Gram matrix: near points keep their digits.
    squared = (points[:, None] - points[None, :]).square().sum(-1)
    logits = -squared / (2 * sigma**2 * temperature)
    # Finite: a row of nothing but -inf (a case left out) would be NaN, and its gradient too.
    log_rows = logits.masked_fill(~pairs, -math.inf).masked_fill(~pairs.any(1, keepdim=True), 0.0)
    return log_rows.log_softmax(1).masked_fill(~pairs, 0.0)


def _mean_perplexity(
    log_rows: Float[Tensor, "B B"], pairs: Bool[Tensor, "B B"], kept: Bool[Tensor, " B"]
) -> Float[Tensor, ""]:
    entropy = -(log_rows.exp() * log_rows).masked_fill(~pairs, 0.0).sum(1)
    return entropy.exp().masked_fill(~kept, 0.0).sum() / kept.sum()
