"""DDL-CXR's own terms, by hand: ramp, triplet, timestep weight, adaptive weight, hinge."""

import numpy as np
import pytest
import torch
from torch import nn

from namd.diffusion.schedule import noise_schedule
from namd.diffusion.settings import NoiseScheduleSettings
from namd.methods.ddl_cxr.losses import (
    SMALLEST_NORM,
    adaptive_weight,
    discriminator_loss,
    ramp,
    triplet_loss,
)


def errors(*values):
    """One case of 1 x 1 x n latents for each row of values."""
    return torch.tensor(values)[:, None, None, :]


def test_the_ramp_is_linear_in_epochs_and_ends_at_one():
    assert [ramp(epoch, 200) for epoch in (0, 1, 100, 200, 300)] == [0, 0.005, 0.5, 1, 1]


def test_the_triplet_is_the_mean_of_weighted_hinges():
    rng = np.random.default_rng(0)
    own, other = rng.random((2, 3, 4, 2, 2))
    signal = np.array([0.9, 0.5, 0.1])
    expected = ((1 - signal)[:, None, None, None] * np.maximum(own - other + 0.2, 0)).mean()
    found = triplet_loss(torch.tensor(own), torch.tensor(other), torch.tensor(signal), 0.2)
    assert float(found) == pytest.approx(expected)


def test_the_hinge_is_taken_of_each_element_before_the_mean():
    own, other = errors([1.0, 0.0]), errors([0.0, 1.2])
    signal = torch.zeros(1)
    assert float(triplet_loss(own, other, signal, 0.2)) == pytest.approx(0.6)
    after = torch.relu((own - other + 0.2).mean())
    assert float(after) == pytest.approx(0.1), "the other order gives another number"


def test_a_record_that_helps_by_more_than_the_margin_costs_nothing():
    assert float(triplet_loss(errors([0.1]), errors([0.31]), torch.zeros(1), 0.2)) == 0
    assert float(triplet_loss(errors([0.1]), errors([0.29]), torch.zeros(1), 0.2)) > 0


def test_the_term_counts_by_the_noise_of_the_timestep():
    schedule = noise_schedule(NoiseScheduleSettings(beta_start=0.0015, beta_end=0.0195))
    timesteps = torch.tensor([0, 500, 999])
    signal = schedule.alphas_cumprod[timesteps]
    alone = [
        float(triplet_loss(errors([1.0]), errors([0.0]), signal[i : i + 1], 0.0)) for i in range(3)
    ]
    betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
    expected = (1 - np.cumprod(1 - betas))[timesteps.numpy()]
    np.testing.assert_allclose(alone, expected, rtol=1e-4)
    assert alone[0] < 0.01 < 0.99 < alone[2]


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    reference = (torch.tensor([3.0, 4.0]) * weight).sum()
    term = (torch.tensor([0.0, 0.5]) * weight).sum()
    found = adaptive_weight(reference, term, weight)
    assert float(found) == pytest.approx(5 / (0.5 + SMALLEST_NORM))
    assert not found.requires_grad
    (pull,) = torch.autograd.grad(found * term, weight, retain_graph=True)
    assert float(pull.norm()) == pytest.approx(5, rel=1e-3)
    assert weight.grad is None
    swapped = adaptive_weight(term, reference, weight)
    assert float(swapped) == pytest.approx(0.5 / (5 + SMALLEST_NORM))


def test_a_term_without_gradient_is_not_blown_up_beyond_the_limit():
    weight = nn.Parameter(torch.ones(2))
    assert float(adaptive_weight(1e3 * weight.sum(), 0 * weight.sum(), weight)) == 1e4


def test_the_discriminator_s_hinge():
    real, drawn = torch.tensor([[[[0.5, 2.0]]]]), torch.tensor([[[[-3.0, 0.0]]]])
    assert float(discriminator_loss(real, drawn)) == pytest.approx(0.5 * (0.25 + 0.5))
