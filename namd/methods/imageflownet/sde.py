"""The latent SDE of ImageFlowNet and its Euler steps. Which latents evolve is network.py's."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from namd.methods.imageflownet.settings import SDESettings

StepNoise = Callable[[int], Tensor]
"""From the number of an Euler step to N(0, 1) of the state's shape."""

Noise = Callable[[str, int, Sequence[int]], Tensor]
"""From a latent's name, the number of an Euler step and one case's shape to N(0, 1) of a batch."""


def euler_maruyama(
    drift: Callable[[Tensor], Tensor],
    state: Float[Tensor, "B C H W"],
    sigma: Float[Tensor, ""],
    noise: StepNoise,
    dt: float,
    num_steps: int,
) -> Float[Tensor, "B C H W"]:
    """Return h(num_steps dt) of dh = f(h) dt + sigma dW, Ito, diagonal noise, from h(0) = state.

    h_{n+1} = h_n + f(h_n) dt + sigma sqrt(dt) eps_n, eps_n ~ N(0, 1).
    """
    for n in range(num_steps):
        state = state + drift(state) * dt + sigma * math.sqrt(dt) * noise(n)
    return state


def drift(channels: int) -> nn.Sequential:
    """Return f(h): two blocks of instance norm without parameters, 3 x 3 convolution and ReLU.

    Independent of time. The last ReLU makes it non-negative: no latent is expected to fall.
    """
    return nn.Sequential(
        nn.InstanceNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.InstanceNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
    )


class LatentSDE(nn.Module):
    """dh = f(h) dt + sigma dW for one latent: a drift and one scalar sigma of its own."""

    def __init__(self, channels: int, settings: SDESettings) -> None:
        super().__init__()
        self.drift = drift(channels)
        self.sigma = nn.Parameter(
            torch.tensor(settings.initial_sigma), requires_grad=settings.learned_sigma
        )
        self.settings = settings

    def forward(
        self, state: Float[Tensor, "B C H W"], noise: StepNoise
    ) -> Float[Tensor, "B C H W"]:
        """Return the latent at tau."""
        return euler_maruyama(
            self._drift, state, self.sigma, noise, self.settings.dt, self.settings.num_steps
        )

    def _drift(self, state: Tensor) -> Tensor:
        if self.settings.recompute and torch.is_grad_enabled():
            return checkpoint(self.drift, state, use_reentrant=False)
        return self.drift(state)
