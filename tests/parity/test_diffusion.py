"""Schedule, forward process and DDIM against diffusers' own scheduler, built here by hand."""

import pytest
import torch
from diffusers import DDIMScheduler

from namd.diffusion.ddim import ddim_sample
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import add_noise, noise_schedule, prediction_target
from namd.diffusion.settings import DDIMSettings, NoiseScheduleSettings

NOISE = draw_noise(0, range(3), 0, (4, 8, 8)).double()


def oracle_scheduler(settings, **changes):
    fields = {
        "num_train_timesteps": settings.num_train_timesteps,
        "beta_start": settings.beta_start,
        "beta_end": settings.beta_end,
        "beta_schedule": settings.kind,
        "clip_sample": settings.clip_sample,
        "set_alpha_to_one": settings.set_alpha_to_one,
        "steps_offset": settings.steps_offset,
        "prediction_type": settings.prediction_type,
        "timestep_spacing": settings.timestep_spacing,
        "rescale_betas_zero_snr": settings.rescale_betas_zero_snr,
    }
    return DDIMScheduler(**fields | changes)


def network(latents, timestep):
    """Any smooth function of latents and timestep will do."""
    return torch.tanh(latents) + 0.1 * torch.sin(3 * latents + int(timestep) / 100)


def oracle_draws(scheduler, num_steps, eta=0.0, step_noise=None):
    scheduler.set_timesteps(num_steps)
    latents = NOISE
    for index, timestep in enumerate(scheduler.timesteps):
        fresh = step_noise(index) if step_noise else None
        predicted = network(latents, timestep)
        latents = scheduler.step(
            predicted, timestep, latents, eta=eta, variance_noise=fresh
        ).prev_sample
    return latents


def assert_parity(settings, num_steps, **options):
    eta, step_noise = options.get("eta", 0.0), options.get("step_noise")
    expected = oracle_draws(oracle_scheduler(settings), num_steps, eta, step_noise)
    drawn = ddim_sample(
        network, NOISE, noise_schedule(settings), DDIMSettings(num_steps, eta), step_noise
    )
    # diffusers keeps its coefficients in float32, whatever the latents are.
    torch.testing.assert_close(drawn, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("num_steps", [2, 20, 50])
def test_sampling_with_velocity_equals_diffusers(num_steps):
    assert_parity(NoiseScheduleSettings(prediction_type="v_prediction"), num_steps)


@pytest.mark.parametrize("num_steps", [2, 20, 50])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_sampling_from_a_last_timestep_without_signal_equals_diffusers(num_steps, spacing):
    settings = NoiseScheduleSettings(
        prediction_type="v_prediction", timestep_spacing=spacing, rescale_betas_zero_snr=True
    )
    assert_parity(settings, num_steps)


def test_velocity_target_equals_diffusers():
    settings = NoiseScheduleSettings(prediction_type="v_prediction")
    latents, noise = draw_noise(1, range(3), 0, (4, 8, 8)), draw_noise(2, range(3), 0, (4, 8, 8))
    timesteps = torch.tensor([0, 500, 999])
    ours = prediction_target(latents, noise, timesteps, noise_schedule(settings))
    theirs = oracle_scheduler(settings).get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(ours, theirs)
    plain = prediction_target(latents, noise, timesteps, noise_schedule(NoiseScheduleSettings()))
    assert torch.equal(plain, noise)
    assert not torch.allclose(plain, theirs)


@pytest.mark.parametrize("num_steps", [2, 7, 20, 30, 50, 333])
@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("offset", "to_one"), [(1, False), (1, True), (0, True)])
def test_leading_spacing_draws_what_diffusers_draws(num_steps, kind, clip, offset, to_one):
    settings = NoiseScheduleSettings(
        kind=kind, clip_sample=clip, steps_offset=offset, set_alpha_to_one=to_one
    )
    assert_parity(settings, num_steps)


@pytest.mark.parametrize("num_steps", [2, 20, 50, 250])
@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
def test_trailing_spacing_draws_what_diffusers_draws_where_its_grid_is_even(num_steps, kind):
    assert_parity(NoiseScheduleSettings(kind=kind, timestep_spacing="trailing"), num_steps)


@pytest.mark.parametrize("num_steps", [20, 30])
def test_fresh_noise_enters_as_in_diffusers(num_steps):
    def step_noise(index):
        return draw_noise(1, range(3), index, (4, 8, 8)).double()

    assert_parity(NoiseScheduleSettings(), num_steps, eta=0.7, step_noise=step_noise)


@pytest.mark.parametrize(
    "change",
    [
        {"beta_schedule": "linear"},
        {"set_alpha_to_one": True},
        {"steps_offset": 0},
        {"clip_sample": True},
        {"timestep_spacing": "trailing"},
    ],
)
def test_a_scheduler_with_one_field_off_draws_something_else(change):
    settings = NoiseScheduleSettings()
    drawn = ddim_sample(network, NOISE, noise_schedule(settings), DDIMSettings(20))
    other = oracle_draws(oracle_scheduler(settings, **change), 20)
    assert (drawn - other).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["scaled_linear", "linear"])
@pytest.mark.parametrize("zero", [False, True])
def test_the_schedule_is_diffusers_own(kind, zero):
    settings = NoiseScheduleSettings(
        kind=kind, prediction_type="v_prediction", rescale_betas_zero_snr=zero
    )
    ours, theirs = noise_schedule(settings), oracle_scheduler(settings)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert ours.final_alpha_cumprod == theirs.final_alpha_cumprod.item()


def test_the_schedule_is_the_papers_formula():
    betas = torch.linspace(8.5e-4**0.5, 1.2e-2**0.5, 1000, dtype=torch.float64) ** 2
    schedule = noise_schedule(NoiseScheduleSettings()).alphas_cumprod.double()
    torch.testing.assert_close(schedule, torch.cumprod(1 - betas, 0), rtol=1e-4, atol=1e-6)
    linear = noise_schedule(NoiseScheduleSettings(kind="linear")).alphas_cumprod.double()
    assert (linear - schedule).abs().max() > 0.01


def test_without_signal_at_the_end_noise_and_target_hide_the_latents_and_are_them():
    settings = NoiseScheduleSettings(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    clean, noise = NOISE.float(), draw_noise(1, range(3), 0, (4, 8, 8))
    last = torch.full((3,), 999)
    schedule = noise_schedule(settings)
    assert torch.equal(add_noise(clean, noise, last, schedule), noise)
    assert torch.equal(prediction_target(clean, noise, last, schedule), -clean)
    shown = noise_schedule(NoiseScheduleSettings(prediction_type="v_prediction"))
    assert (add_noise(clean, noise, last, shown) - noise).abs().max() > 0.05


def test_noise_is_added_as_in_diffusers():
    settings = NoiseScheduleSettings()
    clean, noise = NOISE.float(), draw_noise(1, range(3), 0, (4, 8, 8))
    timesteps = torch.tensor([0, 371, 999])
    ours = add_noise(clean, noise, timesteps, noise_schedule(settings))
    expected = oracle_scheduler(settings).add_noise(clean, noise, timesteps)
    torch.testing.assert_close(ours, expected)
    earlier = add_noise(clean, noise, timesteps // 2, noise_schedule(settings))
    assert (earlier - expected).abs().max() > 1e-2
