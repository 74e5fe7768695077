import pytest
import torch

from namd.diffusion.ddim import ddim_sample, ddim_steps, inference_timesteps
from namd.diffusion.noise import draw_noise
from namd.diffusion.schedule import noise_schedule
from namd.diffusion.settings import DDIMSettings, NoiseScheduleSettings

SHAPE = (4, 8, 8)
SCHEDULE = noise_schedule(NoiseScheduleSettings())


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("num_steps", [1, 3, 7, 20, 30, 50, 64, 333, 999])
def test_there_are_exactly_as_many_distinct_steps_as_asked_for(spacing, num_steps):
    settings = NoiseScheduleSettings(timestep_spacing=spacing)
    timesteps = inference_timesteps(settings, num_steps)
    assert len(set(timesteps)) == len(timesteps) == num_steps
    assert timesteps == sorted(timesteps, reverse=True)
    assert 0 <= timesteps[-1] <= timesteps[0] <= 999


def test_the_textbook_range_would_take_one_step_too_many():
    assert len(range(1, 1001, 1000 // 30)) == 31
    assert len(inference_timesteps(NoiseScheduleSettings(), 30)) == 30


def test_fifty_steps_are_fifty_evaluations_and_each_moves():
    seen, timesteps = [], []

    def predict(latents, timestep):
        seen.append(latents.clone())
        timesteps.append(timestep)
        return torch.ones_like(latents)

    last = ddim_sample(predict, draw_noise(0, [0], 0, SHAPE), SCHEDULE, DDIMSettings(50))
    assert timesteps == list(range(981, 0, -20))
    moves = [(b - a).abs().max() for a, b in zip(seen, [*seen[1:], last], strict=True)]
    assert min(moves) > 1e-4


def test_a_skipped_step_is_not_evaluated_and_noise_stands_at_the_next():
    """The released code of NAMD: 49 evaluations, from t = 961."""
    seen = []

    def predict(latents, timestep):
        seen.append((timestep, latents.clone()))
        return torch.zeros_like(latents)

    noise = draw_noise(0, [0], 0, SHAPE)
    ddim_sample(predict, noise, SCHEDULE, DDIMSettings(50, skipped_steps=1))
    assert [timestep for timestep, _ in seen] == list(range(961, 0, -20))
    assert len(seen) == 49
    torch.testing.assert_close(seen[0][1], noise)
    assert inference_timesteps(SCHEDULE.settings, 50, 1) == list(range(961, 0, -20))
    with pytest.raises(ValueError, match=r"skipped_steps is 0 or more and below .* 50, not 50"):
        DDIMSettings(50, skipped_steps=50)


def test_every_step_has_its_own_noise_level():
    steps = ddim_steps(SCHEDULE, DDIMSettings(50))
    signals = [step.signal for step in steps]
    assert signals == sorted(set(signals))
    assert all(step.next_signal == after for step, after in zip(steps, signals[1:], strict=False))
    assert steps[-1].next_signal > steps[-1].signal


def test_the_true_noise_leads_back_to_the_clean_latents():
    """With the true noise at hand every step is exact, so one step or fifty end alike."""
    clean = draw_noise(0, ["clean"], 0, SHAPE) * 0.5
    settings = NoiseScheduleSettings(set_alpha_to_one=True)
    schedule = noise_schedule(settings)

    def oracle(latents, timestep):
        level = schedule.alphas_cumprod[timestep]
        return (latents - level.sqrt() * clean) / (1 - level).sqrt()

    start = draw_noise(0, ["start"], 0, SHAPE)
    drawn = ddim_sample(oracle, start, schedule, DDIMSettings(50))
    torch.testing.assert_close(drawn, clean, atol=1e-4, rtol=0)
    stopped_short = ddim_sample(oracle, start, SCHEDULE, DDIMSettings(50))
    assert (stopped_short - clean).abs().max() > 1e-3


def test_a_draw_does_not_depend_on_its_batch():
    def predict(latents, timestep):
        return torch.tanh(latents * (1 + timestep / 1000))

    noise = draw_noise(0, range(5), 0, SHAPE)
    together = ddim_sample(predict, noise, SCHEDULE, DDIMSettings(20))
    alone = ddim_sample(predict, noise[3:4], SCHEDULE, DDIMSettings(20))
    torch.testing.assert_close(alone, together[3:4])


def test_a_narrow_network_keeps_the_latents_wide():
    drawn = ddim_sample(
        lambda latents, _: latents.bfloat16(),
        draw_noise(0, [0], 0, SHAPE),
        SCHEDULE,
        DDIMSettings(5),
    )
    assert drawn.dtype == torch.float32


def test_more_steps_than_timesteps_are_refused():
    settings = NoiseScheduleSettings(num_train_timesteps=10)
    assert inference_timesteps(settings, 9) == list(range(9, 0, -1))
    with pytest.raises(ValueError, match="11 steps do not fit 10"):
        inference_timesteps(settings, 11)
    with pytest.raises(ValueError, match="run past timestep 9"):
        inference_timesteps(settings, 10)


def test_a_last_step_that_changes_nothing_is_refused():
    assert NoiseScheduleSettings(steps_offset=0, set_alpha_to_one=True).steps_offset == 0
    with pytest.raises(ValueError, match="would change nothing"):
        NoiseScheduleSettings(steps_offset=0, set_alpha_to_one=False)


def test_a_last_timestep_without_signal_is_refused_where_the_noise_is_predicted():
    settings = NoiseScheduleSettings(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert noise_schedule(settings).alphas_cumprod[-1] == 0
    with pytest.raises(ValueError, match="v_prediction, not epsilon"):
        NoiseScheduleSettings(rescale_betas_zero_snr=True)


@pytest.mark.parametrize(
    "wrong",
    [{"num_train_timesteps": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"beta_start": 0.5}],
)
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        NoiseScheduleSettings(**wrong)


def test_eta_needs_fresh_noise():
    noise, settings = draw_noise(0, [0], 0, SHAPE), DDIMSettings(5, eta=1.0)
    with pytest.raises(ValueError, match="needs step_noise"):
        ddim_sample(lambda latents, _: latents, noise, SCHEDULE, settings)
    drawn = ddim_sample(lambda x, _: x, noise, SCHEDULE, settings, lambda _: noise)
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize("wrong", [{"num_inference_steps": 0}, {"eta": 1.5}, {"eta": -0.1}])
def test_impossible_samplers_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        DDIMSettings(**wrong)
