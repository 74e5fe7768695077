"""Shifted schedules, timesteps of training and Min-SNR weights: laws, each with its neighbour."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from namd.config.seeding import generator
from namd.diffusion.ddim import ddim_sample
from namd.diffusion.schedule import (
    diffusers_scheduler,
    min_snr_weights,
    noise_schedule,
    sigmas,
    training_timesteps,
)
from namd.diffusion.settings import DDIMSettings, NoiseScheduleSettings, TimestepSettings

PLAIN = noise_schedule(NoiseScheduleSettings())


def log_snr(schedule):
    signal = schedule.alphas_cumprod.double()
    return torch.log(signal / (1 - signal))


@pytest.mark.parametrize("shift", [-1.5, 2.0, 2 * math.log(8)])
def test_a_shift_moves_log_snr_by_that_much_at_every_timestep(shift):
    settings = NoiseScheduleSettings(log_snr_shift=shift)
    moved = log_snr(noise_schedule(settings)) - log_snr(PLAIN)
    # Near a signal of 1 a float32 holds few digits of what is missing to it.
    torch.testing.assert_close(moved, torch.full_like(moved, shift), atol=2e-3, rtol=0)
    assert noise_schedule(settings).final_alpha_cumprod == pytest.approx(
        float(noise_schedule(settings).alphas_cumprod[0])
    )
    assert noise_schedule(NoiseScheduleSettings(log_snr_shift=0.0)) is not PLAIN
    assert torch.equal(
        noise_schedule(NoiseScheduleSettings(log_snr_shift=0.0)).alphas_cumprod,
        PLAIN.alphas_cumprod,
    )


def test_a_shifted_schedule_without_last_signal_has_still_none():
    settings = NoiseScheduleSettings(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, log_snr_shift=3.0
    )
    signal = noise_schedule(settings).alphas_cumprod
    assert signal[-1] == 0
    assert (signal.diff() < 0).all()
    kept = NoiseScheduleSettings(prediction_type="v_prediction", log_snr_shift=3.0)
    assert noise_schedule(kept).alphas_cumprod[-1] > 0.05


def test_sampling_of_a_shifted_schedule_is_diffusers():
    settings = NoiseScheduleSettings(log_snr_shift=2.0, timestep_spacing="trailing")
    noise = torch.from_numpy(generator("test-shift", 0).standard_normal((2, 4, 8, 8), np.float32))

    def network(latents, timestep):
        return 0.3 * latents + 1e-4 * timestep

    ours = ddim_sample(network, noise, noise_schedule(settings), DDIMSettings(10))
    scheduler = diffusers_scheduler(settings)
    scheduler.set_timesteps(10)
    theirs = noise
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(network(theirs, int(timestep)), timestep, theirs).prev_sample
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    plain = ddim_sample(network, noise, PLAIN, DDIMSettings(10))
    assert (ours - plain).abs().max() > 0.01


def test_uniform_timesteps_are_those_of_before():
    drawn = training_timesteps(generator("t", 0), 64, TimestepSettings(), PLAIN)
    assert np.array_equal(drawn, generator("t", 0).integers(1000, size=64))


def test_log_normal_timesteps_have_the_stated_noise():
    settings = TimestepSettings("log_normal", log_sigma_mean=-0.2, log_sigma_std=0.8)
    drawn = training_timesteps(generator("t", 1), 4000, settings, PLAIN)
    logs = np.log(sigmas(PLAIN)[drawn])
    assert kstest(logs, "norm", (-0.2, 0.8)).pvalue > 0.01
    uniform = training_timesteps(generator("t", 1), 4000, TimestepSettings(), PLAIN)
    assert kstest(np.log(sigmas(PLAIN)[uniform]), "norm", (-0.2, 0.8)).pvalue < 1e-6


def test_log_normal_timesteps_stay_inside_a_schedule_that_ends_in_noise_alone():
    settings = NoiseScheduleSettings(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    wide = TimestepSettings("log_normal", log_sigma_mean=0.0, log_sigma_std=10.0)
    drawn = training_timesteps(generator("t", 2), 500, wide, noise_schedule(settings))
    assert drawn.min() == 0
    assert drawn.max() == 999


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_min_snr_weights_bound_the_weight_of_the_clean_latents(prediction_type):
    schedule = noise_schedule(NoiseScheduleSettings(prediction_type=prediction_type))
    timesteps = torch.arange(1000)
    snr = torch.exp(log_snr(schedule)).float()
    # An error e of the clean latents is one of e sqrt(SNR) of the noise, e sqrt(SNR + 1) of v.
    in_error = snr if prediction_type == "epsilon" else snr + 1
    weights = min_snr_weights(timesteps, schedule, 5.0)
    torch.testing.assert_close(weights * in_error, snr.clamp(max=5.0), rtol=1e-3, atol=1e-6)
    assert (weights * in_error).max() < in_error.max()
