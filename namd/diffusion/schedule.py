"""The noise schedule as a tensor, and the forward process. Sampling is in ddim.py."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from namd.diffusion.settings import NoiseScheduleSettings, TimestepSettings


@dataclass(frozen=True)
class NoiseSchedule:
    """Signal left at each timestep.

    Attributes:
        settings: Where it came from.
        alphas_cumprod: abar_t for t = 0 ... T - 1, falling, in (0, 1); the last is 0 with
            rescale_betas_zero_snr.
        final_alpha_cumprod: abar where the last sampling step arrives.
    """

    settings: NoiseScheduleSettings
    alphas_cumprod: Float[Tensor, " T"]
    final_alpha_cumprod: float


def diffusers_scheduler(settings: NoiseScheduleSettings) -> DDIMScheduler:
    """Return diffusers' scheduler of the same schedule.

    Every field is given: its defaults are not Stable Diffusion's.
    """
    scheduler = DDIMScheduler(
        num_train_timesteps=settings.num_train_timesteps,
        beta_start=settings.beta_start,
        beta_end=settings.beta_end,
        beta_schedule=settings.kind,
        trained_betas=None,
        clip_sample=settings.clip_sample,
        set_alpha_to_one=settings.set_alpha_to_one,
        steps_offset=settings.steps_offset,
        prediction_type=settings.prediction_type,
        thresholding=False,
        clip_sample_range=1.0,
        timestep_spacing=settings.timestep_spacing,
        rescale_betas_zero_snr=settings.rescale_betas_zero_snr,
    )
    if settings.log_snr_shift:
        factor = math.exp(settings.log_snr_shift)
        signal = scheduler.alphas_cumprod.double()
        shifted = (factor * signal / (1 + (factor - 1) * signal)).float()
        scheduler.alphas_cumprod = shifted
        if not settings.set_alpha_to_one:
            scheduler.final_alpha_cumprod = shifted[0]
    return scheduler


def noise_schedule(settings: NoiseScheduleSettings) -> NoiseSchedule:
    """Return the schedule, on the CPU in float32, with diffusers' own numbers."""
    scheduler = diffusers_scheduler(settings)
    return NoiseSchedule(settings, scheduler.alphas_cumprod, float(scheduler.final_alpha_cumprod))


def prediction_target(
    latents: Float[Tensor, "B C h w"],
    noise: Float[Tensor, "B C h w"],
    timesteps: Int[Tensor, " B"],
    schedule: NoiseSchedule,
) -> Float[Tensor, "B C h w"]:
    """Return what the network is to predict: the noise, or v (Salimans and Ho 2022, Eq 24).

    v = sqrt(abar_t) noise - sqrt(1 - abar_t) latents.
    """
    if schedule.settings.prediction_type == "epsilon":
        return noise
    signal = schedule.alphas_cumprod.to(timesteps.device)[timesteps].to(latents)
    signal = signal[:, None, None, None]
    return signal.sqrt() * noise - (1 - signal).sqrt() * latents


def sigmas(schedule: NoiseSchedule) -> Float[np.ndarray, " T"]:
    """Return sqrt((1 - abar_t) / abar_t) of every timestep, rising; inf where no signal is left."""
    signal = schedule.alphas_cumprod.double().cpu().numpy()
    with np.errstate(divide="ignore"):
        return np.asarray(np.sqrt((1 - signal) / signal))


def training_timesteps(
    random: np.random.Generator, count: int, settings: TimestepSettings, schedule: NoiseSchedule
) -> Int[np.ndarray, " count"]:
    """Draw the timesteps of a training batch."""
    total = schedule.settings.num_train_timesteps
    if settings.kind == "uniform":
        return random.integers(total, size=count)
    wanted = np.exp(random.normal(settings.log_sigma_mean, settings.log_sigma_std, count))
    return np.minimum(np.searchsorted(sigmas(schedule), wanted), total - 1)


def min_snr_weights(
    timesteps: Int[Tensor, " B"], schedule: NoiseSchedule, gamma: float
) -> Float[Tensor, " B"]:
    """Return the weights of squared errors that bound the clean latents' (Hang et al. 2023).

    min(SNR, gamma) is the weight of an error of the clean latents; one of the noise is that
    divided by SNR, one of v by SNR + 1.
    """
    signal = schedule.alphas_cumprod.to(timesteps.device)[timesteps]
    snr = signal / (1 - signal)
    if schedule.settings.prediction_type == "epsilon":
        return torch.clamp(gamma / snr, max=1.0)
    return torch.clamp(snr, max=gamma) / (snr + 1)


def add_noise(
    latents: Float[Tensor, "B C h w"],
    noise: Float[Tensor, "B C h w"],
    timesteps: Int[Tensor, " B"],
    schedule: NoiseSchedule,
) -> Float[Tensor, "B C h w"]:
    """Return sqrt(abar_t) latents + sqrt(1 - abar_t) noise (Ho et al. 2020, Eq 4).

    Latents are scaled ones: the schedule supposes a standard deviation of about 1.
    """
    signal = schedule.alphas_cumprod.to(timesteps.device)[timesteps].to(latents)
    signal = signal[:, None, None, None]
    return signal.sqrt() * latents + (1 - signal).sqrt() * noise
