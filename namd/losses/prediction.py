"""L_pred: the label is readable from the latent (NAMD Eq 5). The linear layer is in namd.models."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from namd.losses.gather import global_masked_mean


def prediction_loss(
    logits: Float[Tensor, " B"], labels: Float[Tensor, " B"], known: Bool[Tensor, " B"]
) -> Float[Tensor, ""]:
    """Return the mean binary cross-entropy over cases of known label, of all ranks (Eq 5), nats.

    Labels are 0 or 1 where known, anything else elsewhere. Without a known label it is 0.
    """
    targets = labels.masked_fill(~known, 0.0)
    values = binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return global_masked_mean(values, known)
