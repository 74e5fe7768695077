"""Rectified flow between clean latents and noise (Liu et al. 2022; Labs 2024)."""

from collections.abc import Callable

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor

from namd.methods.flux.settings import NoiseLevelSettings

Velocity = Callable[[Tensor, float], Tensor]
"""From noisy latents and their noise level s to the velocity d x_s / d s."""

FEW_TOKENS, MANY_TOKENS = 256, 4096
FEW_SHIFT, MANY_SHIFT = 0.5, 1.15
"""FLUX.1's scheduler configuration; diffusers' rule itself lies in a pipeline, slow to import."""


def interpolated(
    clean: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."], levels: Float[Tensor, " B"]
) -> Float[Tensor, "B ..."]:
    """Return x_s = (1 - s) x0 + s eps."""
    s = levels.view(-1, *(1,) * (clean.ndim - 1))
    return (1 - s) * clean + s * noise


def velocity(
    clean: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."]
) -> Float[Tensor, "B ..."]:
    """Return the target d x_s / d s = eps - x0, the same at every s."""
    return noise - clean


def logit_normal_levels(
    rng: np.random.Generator, count: int, settings: NoiseLevelSettings
) -> Float[np.ndarray, " B"]:
    """Return s = 1 / (1 + exp(-u)), u ~ N(mean, std^2), of a global batch."""
    normal = settings.logit_mean + settings.logit_std * rng.standard_normal(count)
    return expit(normal).astype(np.float32)


def flux_shift(num_tokens: int) -> float:
    """Return mu, linear in the number of tokens: 0.5 at 256, 1.15 at 4,096."""
    slope = (MANY_SHIFT - FEW_SHIFT) / (MANY_TOKENS - FEW_TOKENS)
    return FEW_SHIFT + slope * (num_tokens - FEW_TOKENS)


def euler_scheduler(
    num_steps: int, num_tokens: int, dynamic_shift: bool
) -> FlowMatchEulerDiscreteScheduler:
    """Return diffusers' scheduler set to its steps, as FluxPipeline sets it.

    Levels fall evenly from 1 to 1 / n and end at 0. The shift by FLUX's rule,
    s -> e^mu / (e^mu + 1 / s - 1) puts more of them at
    high noise.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=dynamic_shift)
    mu = flux_shift(num_tokens) if dynamic_shift else None
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps).tolist(), mu=mu)
    return scheduler


@torch.no_grad()
def euler_sample(
    predict: Velocity, noise: Float[Tensor, "B ..."], scheduler: FlowMatchEulerDiscreteScheduler
) -> Float[Tensor, "B ..."]:
    """Integrate from noise at s = 1 to s = 0: x_{s'} = x_s + (s' - s) v(x_s, s).

    The scheduler counts its steps, so each draw has one of its own.
    """
    latents = noise
    for timestep, level in zip(scheduler.timesteps, scheduler.sigmas.tolist(), strict=False):
        latents = scheduler.step(predict(latents, level), timestep, latents, return_dict=False)[0]
    return latents
