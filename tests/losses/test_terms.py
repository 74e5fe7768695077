"""The remaining terms of Eq 6, Eq 5 and Eq 9."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from namd.config.seeding import generator
from namd.losses.kl import kl_loss
from namd.losses.noise_prediction import noise_prediction_loss
from namd.losses.perceptual import perceptual_distance
from namd.losses.prediction import prediction_loss
from namd.losses.reconstruction import reconstruction_loss


def normal(*shape, seed=0):
    return torch.from_numpy(generator("test-terms", seed).standard_normal(shape))


def literal_bce(logits, labels, known):
    total, count = 0.0, 0
    for logit, label, is_known in zip(
        logits.tolist(), labels.tolist(), known.tolist(), strict=True
    ):
        if is_known:
            p = 1 / (1 + math.exp(-logit))
            total -= label * math.log(p) + (1 - label) * math.log(1 - p)
            count += 1
    return total / count


def test_prediction_is_equation_5_over_known_labels():
    logits = normal(6)
    labels = torch.tensor([1.0, 0.0, float("nan"), 1.0, -1.0, 0.0], dtype=torch.float64)
    known = torch.tensor([True, True, False, True, False, True])
    loss = prediction_loss(logits, labels, known)
    assert loss.item() == pytest.approx(literal_bce(logits, labels, known), rel=1e-12)
    counted_as_benign = prediction_loss(logits, labels.nan_to_num(0).clamp(min=0), known | True)
    assert counted_as_benign.item() != pytest.approx(loss.item(), rel=1e-3)


def test_prediction_without_labels_is_zero_with_a_gradient():
    logits = normal(3).requires_grad_()
    nothing = torch.zeros(3, dtype=torch.bool)
    loss = prediction_loss(logits, torch.full((3,), torch.nan, dtype=torch.float64), nothing)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, dtype=torch.float64))


def test_prediction_gradient_agrees_with_differences():
    labels, known = torch.tensor([1.0, 0.0, 1.0]).double(), torch.tensor([True, True, False])
    assert torch.autograd.gradcheck(
        lambda x: prediction_loss(x, labels, known), normal(3).requires_grad_()
    )


def test_reconstruction_is_the_mean_absolute_difference():
    a, b = normal(2, 1, 4, 4), normal(2, 1, 4, 4, seed=1)
    literal = sum(abs(x - y) for x, y in zip(a.flatten(), b.flatten(), strict=True)) / a.numel()
    torch.testing.assert_close(reconstruction_loss(a, b), literal)
    assert abs(noise_prediction_loss(a, b) - literal) > 1e-3


def test_kl_sums_latent_axes_and_averages_the_batch():
    mean, logvar = normal(3, 4, 2, 2), normal(3, 4, 2, 2, seed=1)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_loss(mean, logvar), expected.sum((1, 2, 3)).mean())
    assert abs(kl_loss(mean, logvar) - expected.mean()) > 1


def test_kl_of_the_prior_is_zero():
    zeros = torch.zeros(2, 4, 2, 2)
    assert kl_loss(zeros, zeros).item() == 0
    assert kl_loss(zeros + 1, zeros).item() == pytest.approx(8)


def test_noise_prediction_is_the_mean_squared_error():
    a, b = normal(2, 4, 2, 2), normal(2, 4, 2, 2, seed=1)
    literal = sum((x - y) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True)) / a.numel()
    torch.testing.assert_close(noise_prediction_loss(a, b), literal)


def test_weights_multiply_each_cases_own_error():
    a, b = normal(2, 4, 2, 2), normal(2, 4, 2, 2, seed=1)
    each = [noise_prediction_loss(a[i : i + 1], b[i : i + 1]) for i in range(2)]
    weights = torch.tensor([0.25, 2.0]).double()
    literal = (0.25 * each[0] + 2.0 * each[1]) / 2
    torch.testing.assert_close(noise_prediction_loss(a, b, weights), literal)
    assert abs(noise_prediction_loss(a, b, weights.flip(0)) - literal) > 1e-3


def test_perceptual_distance_sees_directions_and_not_lengths():
    maps, others = [normal(2, 5, 4, 4)], [normal(2, 5, 4, 4, seed=1)]
    assert perceptual_distance(maps, [3 * maps[0]]).item() == pytest.approx(0, abs=1e-9)
    assert perceptual_distance(maps, others).item() == pytest.approx(
        (2 - 2 * torch.cosine_similarity(maps[0], others[0], dim=1)).mean().item()
    )


def test_perceptual_distance_sums_levels_and_is_symmetric():
    a = [normal(2, 5, 4, 4), normal(2, 3, 2, 2, seed=1)]
    b = [normal(2, 5, 4, 4, seed=2), normal(2, 3, 2, 2, seed=3)]
    parts = sum(perceptual_distance([x], [y]) for x, y in zip(a, b, strict=True))
    torch.testing.assert_close(perceptual_distance(a, b), parts)
    torch.testing.assert_close(perceptual_distance(b, a), parts)


def test_perceptual_gradient_is_finite_where_features_are_dead():
    dead = torch.zeros(1, 3, 2, 2, requires_grad=True)
    perceptual_distance([dead], [torch.ones(1, 3, 2, 2)]).backward()
    assert torch.isfinite(dead.grad).all()


def test_perceptual_distance_refuses_unequal_levels():
    maps = [normal(1, 2, 2, 2)]
    assert perceptual_distance(maps, maps).item() == 0
    with pytest.raises(ValueError, match="got 1 and 2"):
        perceptual_distance(maps, maps * 2)
    with pytest.raises(ValueError, match="got 0 and 0"):
        perceptual_distance([], [])
