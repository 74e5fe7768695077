"""Batch norm over the global batch of a worker group.

Own code: torch's SyncBatchNorm refuses tensors on a CPU, and a worker group on CPUs must give one
worker's result too.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from namd.losses.gather import sum_over_ranks, workers


class GlobalBatchNorm(_BatchNorm):
    """A batch norm whose statistics in training are those of all ranks' rows, with gradients.

    Every rank must hold equally many rows. In eval mode it is the plain batch norm.
    """

    def forward(self, input: Float[Tensor, "B C ..."]) -> Float[Tensor, "B C ..."]:  # noqa: A002 - torch's name
        """Return the normalised input; in training, update the running statistics."""
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            rows = input.float()
            axes = [axis for axis in range(rows.dim()) if axis != 1]
            shape = [-1 if axis == 1 else 1 for axis in range(rows.dim())]
            count = workers() * rows.numel() // rows.shape[1]
            mean = sum_over_ranks(rows.sum(axes)) / count
            centred = rows - mean.view(shape)
            variance = sum_over_ranks(centred.square().sum(axes)) / count
            self._remember(mean.detach(), variance.detach() * (count / max(1, count - 1)))
            scaled = centred * (variance + self.eps).rsqrt().view(shape)
            if self.affine:
                scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Take inputs of any number of axes: the module that was replaced has checked."""

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None  # the three come together
        self.num_batches_tracked.add_(1)
        new = self.momentum
        share = 1 / float(self.num_batches_tracked) if new is None else new
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def with_global_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch norm inside a module, in place; parameters and buffers stay the same.

    Returns the module, or its replacement where it is a batch norm itself.
    """
    if isinstance(module, _BatchNorm):
        return _global(module)
    for name, child in module.named_children():
        setattr(module, name, with_global_batch_norm(child))
    return module


def _global(plain: _BatchNorm) -> GlobalBatchNorm:
    norm = GlobalBatchNorm(
        plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats
    )
    norm.weight, norm.bias = plain.weight, plain.bias
    norm.running_mean, norm.running_var = plain.running_mean, plain.running_var
    norm.num_batches_tracked = plain.num_batches_tracked
    norm.training = plain.training
    return norm
