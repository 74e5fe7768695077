"""The path, its target, the noise levels and Euler's steps, each against numbers made elsewhere."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from scipy import stats

from namd.methods.flux.flow import (
    euler_sample,
    euler_scheduler,
    flux_shift,
    interpolated,
    logit_normal_levels,
    velocity,
)
from namd.methods.flux.settings import NoiseLevelSettings

CLEAN, NOISE = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def at(level, clean=CLEAN, noise=NOISE):
    return interpolated(clean, noise, torch.full((3,), level))


def path_is_right(path):
    return (
        torch.equal(path(0.0), CLEAN)
        and torch.equal(path(1.0), NOISE)
        and torch.allclose(path(0.25), 0.75 * CLEAN + 0.25 * NOISE)
    )


def test_the_path_leads_from_the_clean_latents_to_noise():
    assert path_is_right(at)
    # Twin: the other way round, as corrflownet counts its time.
    assert not path_is_right(lambda level: at(level, NOISE, CLEAN))


def test_each_case_has_its_own_level():
    mixed = interpolated(CLEAN, NOISE, torch.tensor([0.0, 1.0, 0.5]))
    assert torch.equal(mixed[0], CLEAN[0])
    assert torch.equal(mixed[1], NOISE[1])
    assert torch.allclose(mixed[2], (CLEAN[2] + NOISE[2]) / 2)


def test_the_target_is_the_slope_of_the_path():
    slope = (at(0.75) - at(0.25)) / 0.5
    assert torch.allclose(velocity(CLEAN, NOISE), slope, atol=1e-5)
    assert not torch.allclose(velocity(NOISE, CLEAN), slope, atol=1e-1)


def levels(seed=0, **values):
    rng = np.random.default_rng(seed)
    return logit_normal_levels(rng, 4000, NoiseLevelSettings(**values))


def fits(drawn, mean, std):
    """Whether the logits of these levels are normal, by Kolmogorov and Smirnov."""
    logits = np.log(drawn / (1 - drawn.astype(float)))
    return stats.kstest(logits, stats.norm(mean, std).cdf).pvalue > 1e-3


def test_levels_are_logit_normal():
    assert fits(levels(), 0, 1)
    assert fits(levels(logit_mean=1.0, logit_std=0.5), 1, 0.5)
    # Twins: another mean, another deviation, levels spread evenly.
    assert not fits(levels(logit_mean=0.2), 0, 1)
    assert not fits(levels(logit_std=1.2), 0, 1)
    assert not fits(np.random.default_rng(0).uniform(size=4000), 0, 1)


def test_two_euler_steps_by_hand():
    """v = s x + 1 from x = 1: 1 - 0.5 * 2 = 0 at s = 1, then 0 - 0.5 * 1 = -0.5 at s = 0.5."""

    def field(x, s):
        return s * x + 1

    start = torch.ones(1, 1, 1, 1)
    once = euler_sample(field, start, euler_scheduler(1, 16, dynamic_shift=False))
    assert once.item() == pytest.approx(1 - 2)
    twice = euler_sample(field, start, euler_scheduler(2, 16, dynamic_shift=False))
    assert twice.item() == pytest.approx(-0.5)
    # Twin: a field that is told the time from noise, not the noise level.
    other = euler_sample(
        lambda x, s: field(x, 1 - s), start, euler_scheduler(2, 16, dynamic_shift=False)
    )
    assert other.item() == pytest.approx(-0.125)


@pytest.mark.parametrize("dynamic_shift", [True, False])
@pytest.mark.parametrize("num_steps", [1, 7])
def test_a_straight_path_ends_at_the_clean_latents(num_steps, dynamic_shift):
    scheduler = euler_scheduler(num_steps, 16, dynamic_shift)
    drawn = euler_sample(lambda _x, _s: velocity(CLEAN, NOISE), NOISE, scheduler)
    assert torch.allclose(drawn, CLEAN, atol=1e-5)


def published_draw(num_steps, num_tokens):
    """The loop of diffusers' pipeline with FLUX.1's scheduler configuration, written out."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    mu = np.interp(num_tokens, [256, 4096], [0.5, 1.15]) if 256 <= num_tokens <= 4096 else None
    mu = 0.5 - (256 - num_tokens) * 0.65 / 3840 if mu is None else mu
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=float(mu))
    x, seen = NOISE, []
    for t in scheduler.timesteps:
        seen.append(float(t) / 1000)
        x = scheduler.step(curved(x, float(t) / 1000), t, x, return_dict=False)[0]
    return x, seen


def curved(x, s):
    return torch.sin(3 * x) + s * x


@pytest.mark.parametrize("num_tokens", [16, 1024])
def test_draws_and_levels_are_those_of_diffusers_scheduler(num_tokens):
    expected, levels_seen = published_draw(9, num_tokens)
    seen = []

    def noted(x, s):
        seen.append(s)
        return curved(x, s)

    drawn = euler_sample(noted, NOISE, euler_scheduler(9, num_tokens, dynamic_shift=True))
    assert torch.allclose(drawn, expected, atol=1e-5)
    assert seen == pytest.approx(levels_seen, abs=1e-6)
    # Twin: evenly spread levels are others.
    even = euler_sample(curved, NOISE, euler_scheduler(9, num_tokens, dynamic_shift=False))
    assert not torch.allclose(even, expected, atol=1e-3)


def test_the_shift_is_half_at_256_tokens_and_more_for_more():
    assert flux_shift(256) == 0.5
    assert flux_shift(4096) == pytest.approx(1.15)
    assert flux_shift(2176) == pytest.approx(0.825)
    assert flux_shift(16) < 0.5
