"""The correlation against numpy, the terms of the objective, and labels that are not known."""

import numpy as np
import pytest
import torch
from torch import nn

from namd.losses.kl import kl_loss
from namd.losses.reconstruction import reconstruction_loss
from namd.methods.corrflownet.autoencoder import (
    CorrelationalObjective,
    LabelledBatch,
    LabelledPairs,
    correlation,
)
from namd.methods.corrflownet.settings import CorrelationalSettings
from namd.methods.shared.settings import ImageSettings, WeightedTerm
from tests.data.conftest import make_cohort
from tests.methods.made import FoldingVAE


def by_numpy(one, other):
    return np.mean([np.corrcoef(one[:, d], other[:, d])[0, 1] for d in range(one.shape[1])])


def pair(seed=0, count=9, dimensions=5):
    draws = np.random.default_rng(seed)
    one = draws.standard_normal((count, dimensions)).astype(np.float32)
    levels = 3.0 * np.arange(dimensions)
    return one, (0.5 * one + draws.standard_normal(one.shape) + levels).astype(np.float32)


def test_the_correlation_is_numpys_mean_over_dimensions():
    one, other = pair()
    ours = float(correlation(torch.from_numpy(one), torch.from_numpy(other)))
    assert ours == pytest.approx(by_numpy(one, other), abs=1e-5)
    # Twins: over dimensions within a case, and of all numbers at once.
    assert abs(ours - by_numpy(one.T, other.T)) > 0.05
    assert abs(ours - np.corrcoef(one.ravel(), other.ravel())[0, 1]) > 0.02


def test_the_correlation_ignores_scale_and_shift_and_knows_its_sign():
    one, _ = (torch.from_numpy(values) for values in pair())
    assert float(correlation(one, 3 * one - 2)) == pytest.approx(1, abs=1e-4)
    assert float(correlation(one, -one)) == pytest.approx(-1, abs=1e-4)


def test_a_constant_dimension_is_uncorrelated_and_has_a_gradient():
    one, other = (torch.from_numpy(values) for values in pair())
    one[:, 0] = 2.0
    one.requires_grad_(True)
    found = correlation(one, other)
    found.backward()
    rest = by_numpy(one.detach().numpy()[:, 1:], other.numpy()[:, 1:])
    assert float(found.detach()) == pytest.approx(rest * 4 / 5, abs=1e-4)
    assert torch.isfinite(one.grad).all()


def only(**weights):
    names = ("reconstruction", "perceptual", "kl", "correlation", "classification")
    return CorrelationalSettings(**{name: WeightedTerm(weights.get(name, 0.0)) for name in names})


@pytest.fixture
def batch():
    draws = torch.Generator().manual_seed(2)
    images = torch.rand(12, 1, 8, 8, generator=draws)
    labels = torch.tensor([0.0, 1.0, float("nan"), 1.0, 0.0, float("nan")])
    return LabelledBatch(images, labels, torch.randn(12, 4, 4, 4, generator=draws))


def objective(settings, distance=reconstruction_loss):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return CorrelationalObjective(FoldingVAE(), nn.Linear(64, 1), settings, distance)


def test_the_loss_is_the_weighted_sum_and_correlation_lowers_it(batch):
    settings = only(
        reconstruction=1.0, perceptual=0.5, kl=1e-3, correlation=0.7, classification=0.2
    )
    output = objective(settings)(batch)
    term = {name: float(value) for name, value in output.metrics.items()}
    expected = (
        term["reconstruction"]
        + 0.5 * term["perceptual"]
        + 1e-3 * term["kl"]
        - 0.7 * term["correlation"]
        + 0.2 * term["classification"]
    )
    assert float(output.loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert term["correlation"] != 0


def test_each_term_by_hand(batch):
    model = objective(only(reconstruction=1.0, kl=1.0, correlation=1.0, classification=1.0))
    terms = model(batch).metrics
    with torch.no_grad():
        posterior = model.vae.encode(batch.images)
        latents = posterior.sample(batch.noise)
        error = (model.vae.decode(latents) - batch.images).abs()
        logits = model.classifier(latents.flatten(1))[:, 0]
    assert torch.isclose(terms["reconstruction"], error[:6].mean() + error[6:].mean())
    assert torch.isclose(terms["kl"], kl_loss(posterior.mean, posterior.logvar))
    means = posterior.mean.flatten(1).numpy()
    assert float(terms["correlation"]) == pytest.approx(by_numpy(means[:6], means[6:]), abs=1e-4)
    known = [0, 1, 3, 4, 6, 7, 9, 10]
    targets = batch.labels.repeat(2)[known]
    expected = nn.functional.binary_cross_entropy_with_logits(logits[known], targets)
    assert torch.isclose(terms["classification"], expected)


def test_the_classifier_learns_nothing_from_unlabelled_cases(batch):
    settings = only(classification=1.0)
    unknown = LabelledBatch(batch.images, torch.full((6,), float("nan")), batch.noise)
    model = objective(settings)
    model(unknown).loss.backward()
    assert model.classifier.weight.grad.abs().sum() == 0
    # Twin: with labels it does.
    model(batch).loss.backward()
    assert model.classifier.weight.grad.abs().sum() > 0


def test_a_pair_keeps_its_label_and_its_angle():
    cohort = make_cohort()
    cohort.followup = np.asarray(cohort.baseline).copy()
    cohort.has_followup[:] = False
    cohort.has_followup[[1, 2, 5]] = True
    pairs = LabelledPairs(cohort, ImageSettings(size=8, rotations="quarter"))
    noise = torch.zeros(4, 4, 2, 2)
    found = pairs.labelled(np.array([2, 1]), np.array([1, 3]), noise, "cpu")
    labels = cohort.table["label"].to_numpy()
    assert np.array_equal(found.labels.numpy(), labels[[5, 2]].astype(np.float32), equal_nan=True)
    assert torch.equal(found.images[:2], found.images[2:])


def test_a_batch_over_which_nothing_correlates_is_refused():
    with pytest.raises(ValueError, match="batch_size is 3 or more if correlation"):
        CorrelationalSettings(batch_size=2)
    assert CorrelationalSettings(batch_size=2, correlation=WeightedTerm(0.0))
