"""DDIM (Song et al. 2021) as a free function. The network is a function handed in.

Own code beside diffusers' DDIMScheduler, which a test holds it to: that object looks its
coefficients up and forms half a dozen tensors at every step, which on small latents costs as much
as the network, and it steps by T // n also where the next timestep lies elsewhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from namd.diffusion.schedule import NoiseSchedule
from namd.diffusion.settings import DDIMSettings, NoiseScheduleSettings

Predict = Callable[[Tensor, int], Tensor]
CLIP_RANGE = 1.0


@dataclass(frozen=True)
class DDIMStep:
    """One step of x_t to x_s, s < t (DDIM Eq 12), in numbers known before sampling.

    Attributes:
        timestep: t, what the network is told.
        signal: sqrt(abar_t).
        noise: sqrt(1 - abar_t).
        next_signal: sqrt(abar_s).
        next_noise: sqrt(1 - abar_s - deviation^2).
        deviation: sigma_t, the fresh noise's; 0 for eta 0.
    """

    timestep: int
    signal: float
    noise: float
    next_signal: float
    next_noise: float
    deviation: float


def inference_timesteps(
    settings: NoiseScheduleSettings, num_inference_steps: int, skipped: int = 0
) -> list[int]:
    """Return that many distinct timesteps, falling, without the first `skipped` ones.

    `leading` with n steps: steps_offset + (0, 1, ..., n - 1) T // n, also where n does not divide
    T (n steps, where the original DDIM code would take one more).

    Raises ValueError if T timesteps do not hold so many steps.
    """
    total = settings.num_train_timesteps
    if num_inference_steps > total:
        raise ValueError(f"{num_inference_steps} steps do not fit {total} timesteps")
    if settings.timestep_spacing == "leading":
        stride = total // num_inference_steps
        timesteps = np.arange(num_inference_steps)[::-1] * stride + settings.steps_offset
    else:
        ends = np.arange(num_inference_steps, 0, -1) * (total / num_inference_steps)
        timesteps = np.round(ends).astype(np.int64) - 1
    if timesteps[0] >= total:
        raise ValueError(
            f"{num_inference_steps} steps from offset {settings.steps_offset} run past timestep "
            f"{total - 1}"
        )
    return [int(timestep) for timestep in timesteps[skipped:]]


def ddim_steps(schedule: NoiseSchedule, settings: DDIMSettings) -> list[DDIMStep]:
    """Return the coefficients of every step. Each goes to the next timestep of the same list."""
    timesteps = inference_timesteps(
        schedule.settings, settings.num_inference_steps, settings.skipped_steps
    )
    levels = [float(schedule.alphas_cumprod[timestep]) for timestep in timesteps]
    targets = [*levels[1:], schedule.final_alpha_cumprod]
    return [
        _step(timestep, level, target, settings.eta)
        for timestep, level, target in zip(timesteps, levels, targets, strict=True)
    ]


@torch.no_grad()
def ddim_sample(
    predict: Predict,
    noise: Float[Tensor, "B C h w"],
    schedule: NoiseSchedule,
    settings: DDIMSettings,
    step_noise: Callable[[int], Float[Tensor, "B C h w"]] | None = None,
) -> Float[Tensor, "B C h w"]:
    """Return scaled latents drawn from noise, in the noise's dtype and device.

    Args:
        predict: From noisy latents and a timestep to what the schedule's `prediction_type`
            names; may answer in a narrower dtype.
        noise: Standard normal.
        schedule: That of the network's training.
        settings: Steps and eta.
        step_noise: From the step's index to standard normal noise; needed for eta above 0.

    Raises ValueError for eta above 0 without `step_noise`.
    """
    if settings.eta > 0 and step_noise is None:
        raise ValueError(f"eta {settings.eta} needs step_noise")
    clip = schedule.settings.clip_sample
    velocity = schedule.settings.prediction_type == "v_prediction"
    latents = noise
    for index, step in enumerate(ddim_steps(schedule, settings)):
        predicted = predict(latents, step.timestep).to(latents.dtype)
        latents = _advance(latents, predicted, step, velocity=velocity, clip=clip)
        if step_noise is not None and step.deviation > 0:
            latents = latents + step.deviation * step_noise(index)
    return latents


def _advance(
    latents: Tensor, predicted: Tensor, step: DDIMStep, *, velocity: bool, clip: bool
) -> Tensor:
    """Return the latents of the next step.

    Clean latents and noise are linear in (latents, predicted). From v neither is divided by the
    signal, which at the highest timesteps would multiply rounding errors by 15.
    """
    clean = (step.signal, -step.noise) if velocity else (1, -step.noise)
    scale = 1.0 if velocity else 1 / step.signal
    noise = (step.noise, step.signal) if velocity else (0.0, 1.0)
    if clip:
        drawn = (clean[0] * latents + clean[1] * predicted) * scale
        added = noise[0] * latents + noise[1] * predicted
        return step.next_signal * drawn.clamp(-CLIP_RANGE, CLIP_RANGE) + step.next_noise * added
    # The same with both coefficients worked out: two passes over the latents.
    keep, add = (
        step.next_signal * scale * part + step.next_noise * other
        for part, other in zip(clean, noise, strict=True)
    )
    return torch.add(latents * keep, predicted, alpha=add)


def _step(timestep: int, level: float, target: float, eta: float) -> DDIMStep:
    variance = (1 - target) / (1 - level) * (1 - level / target)
    deviation = eta * math.sqrt(variance)
    return DDIMStep(
        timestep=timestep,
        signal=math.sqrt(level),
        noise=math.sqrt(1 - level),
        next_signal=math.sqrt(target),
        next_noise=math.sqrt(1 - target - deviation**2),
        deviation=deviation,
    )
