"""The rectified flow from z1 to z2: its path, its target, its objective, and how it is followed.

Own code for the two solvers: the lock has neither torchsde nor torchdiffeq, and one Euler step is
one line; tests hold them to the closed form for a linear drift.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from jaxtyping import Float
from torch import Tensor, nn

from namd.losses.total import StepOutput
from namd.methods.corrflownet.settings import FlowSettings

TIME_SCALE = 1000.0
"""diffusers embeds timesteps of 0 to 1000; t runs from 0 to 1."""

Velocity = Callable[[Tensor, float], Tensor]
"""From z_t and t to v(z_t, t, z1), for fixed z1."""
Noise = Callable[[int], Tensor]
"""From the number of a step to standard normal noise, a row a case."""


def interpolated(
    before: Float[Tensor, "B C h w"], after: Float[Tensor, "B C h w"], time: Float[Tensor, " B"]
) -> Float[Tensor, "B C h w"]:
    """Return z_t = (1 - t) z1 + t z2."""
    t = time[:, None, None, None]
    return (1 - t) * before + t * after


def flow_target(
    before: Float[Tensor, "B C h w"], after: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B C h w"]:
    """Return dz_t/dt = z2 - z1, the same at every t."""
    return after - before


def euler_step(
    latents: Float[Tensor, "..."], velocity: Float[Tensor, "..."], width: float
) -> Float[Tensor, "..."]:
    """Return z + v dt."""
    return latents + velocity * width


def euler_maruyama_step(
    latents: Float[Tensor, "..."],
    velocity: Float[Tensor, "..."],
    width: float,
    strength: float,
    noise: Float[Tensor, "..."],
) -> Float[Tensor, "..."]:
    """Return z + v dt + s sqrt(dt) n: one step of dz = v dt + s dW (Ito; s is constant)."""
    return euler_step(latents, velocity, width) + strength * width**0.5 * noise


def followed(
    velocity: Velocity,
    start: Float[Tensor, "..."],
    num_steps: int,
    strength: float = 0.0,
    noise: Noise | None = None,
) -> Float[Tensor, "..."]:
    """Follow the flow from t = 0 to 1: by Euler without noise, by Euler-Maruyama with it."""
    latents, width = start, 1 / num_steps
    for step in range(num_steps):
        drift = velocity(latents, step * width)
        if noise is None:
            latents = euler_step(latents, drift, width)
        else:
            latents = euler_maruyama_step(latents, drift, width, strength, noise(step))
    return latents


@dataclass(frozen=True)
class FlowBatch:
    """Latents of the same cases at both time points, and where between them the flow is learned."""

    before: Float[Tensor, "B C h w"]
    after: Float[Tensor, "B C h w"]
    time: Float[Tensor, " B"]


class FlowObjective(nn.Module):
    """L = |v(z_t, t, z1) - (z2 - z1)|^2, a mean over all numbers."""

    def __init__(self, network: UNet2DModel) -> None:
        super().__init__()
        self.network = network

    def velocity(
        self,
        latents: Float[Tensor, "B C h w"],
        time: Float[Tensor, " B"],
        before: Float[Tensor, "B C h w"],
    ) -> Float[Tensor, "B C h w"]:
        """Return v(z_t, t, z1); z1 enters beside z_t, on channels."""
        return self.network(torch.cat([latents, before], 1), TIME_SCALE * time).sample

    def forward(self, batch: FlowBatch) -> StepOutput:
        """Return the mean squared error of the velocity."""
        latents = interpolated(batch.before, batch.after, batch.time)
        found = self.velocity(latents, batch.time, batch.before).float()
        loss = (found - flow_target(batch.before, batch.after)).square().mean()
        return StepOutput(loss, {"mse": loss.detach()})

    def bound(self, before: Float[Tensor, "B C h w"]) -> Velocity:
        """Return the velocity for these cases."""

        def velocity(latents: Tensor, time: float) -> Tensor:
            times = torch.full((len(latents),), time, device=latents.device)
            return self.velocity(latents, times, before).float()

        return velocity


def build_network(settings: FlowSettings, channels: int, size: int) -> UNet2DModel:
    """Return the velocity's U-Net, self-attention on every level; it starts at velocity 0."""
    levels = len(settings.block_out_channels)
    network = UNet2DModel(
        sample_size=size,
        in_channels=2 * channels,
        out_channels=channels,
        down_block_types=("AttnDownBlock2D",) * levels,
        up_block_types=("AttnUpBlock2D",) * levels,
        block_out_channels=tuple(settings.block_out_channels),
        layers_per_block=settings.layers_per_block,
        norm_num_groups=settings.norm_num_groups,
        attention_head_dim=settings.attention_head_dim,
    )
    nn.init.zeros_(network.conv_out.weight)
    nn.init.zeros_(network.conv_out.bias)
    return network
