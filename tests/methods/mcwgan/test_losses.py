"""McWGAN's loss terms against numbers made by hand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor, nn
from torchmetrics.image import StructuralSimilarityIndexMeasure

from namd.methods.mcwgan.losses import (
    feature_distance,
    gradient_penalty,
    structural_loss,
    verdict_gap,
)
from namd.methods.mcwgan.networks import ConvolutionalCritic, FrozenFeatures, build_resnet
from namd.models.initialisation import initialised_from


def images(seed: int, count: int = 3, size: int = 16) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-1, 1, (count, 1, size, size)).astype(np.float32))


REAL, DRAWN = images(1), images(2)
MIX = torch.tensor([0.0, 0.25, 1.0])


def slope_of(factor: float) -> nn.Module:
    """A linear critic: its gradient is `factor` at each of 256 pixels, its norm 16 x factor."""

    class Linear(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return factor * batch.sum((1, 2, 3))

    return Linear()


@pytest.mark.parametrize("factor", [0.0, 1 / 16, 0.25, -0.25])
def test_the_penalty_of_a_linear_critic_is_that_of_its_slope(factor):
    penalty = gradient_penalty(slope_of(factor), REAL, DRAWN, MIX)
    assert float(penalty) == pytest.approx((16 * abs(factor) - 1) ** 2, abs=1e-5)


def test_the_slope_is_taken_between_drawn_and_real_by_each_image_s_own_share():
    """D(x) = |x|^2 / 2 has the gradient x: the penalty shows where it was taken."""

    def penalty(mix: Tensor) -> float:
        half = gradient_penalty(lambda x: x.square().sum((1, 2, 3)) / 2, REAL, DRAWN, mix)
        return float(half.detach())

    def by_hand(mix: Tensor) -> float:
        share = mix.numpy()[:, None, None, None]
        between = share * REAL.numpy() + (1 - share) * DRAWN.numpy()
        norms = np.sqrt((between.astype(np.float64) ** 2).sum((1, 2, 3)))
        return float(np.mean((norms - 1) ** 2))

    assert penalty(MIX) == pytest.approx(by_hand(MIX), rel=1e-5)
    assert penalty(MIX) != pytest.approx(by_hand(1 - MIX), rel=1e-3)
    assert penalty(MIX) != pytest.approx(by_hand(MIX.roll(1)), rel=1e-3)


def test_the_penalty_trains_the_critic_and_leaves_the_images_alone():
    """Of D = w sum(x): d/dw (16 |w| - 1)^2 = 32 (16 |w| - 1) sign(w)."""
    weight = torch.tensor(0.25, requires_grad=True)
    drawn = DRAWN.clone().requires_grad_()
    gradient_penalty(lambda x: weight * x.sum((1, 2, 3)), REAL, drawn, MIX).backward()
    assert float(weight.grad) == pytest.approx(32 * 3, rel=1e-5)
    assert drawn.grad is None


def test_the_gap_is_low_if_the_critic_prefers_real_images():
    gap = verdict_gap(lambda x: x.mean((1, 2, 3)), REAL, DRAWN)
    assert float(gap) == pytest.approx(float(DRAWN.mean() - REAL.mean()), abs=1e-6)
    found = verdict_gap(lambda x: -x.mean((1, 2, 3)), REAL + 5, REAL)
    assert float(found) == pytest.approx(5, abs=1e-5)


def test_the_critic_judges_each_image_by_itself():
    with initialised_from("test", 1):
        critic = ConvolutionalCritic((4, 8), 16)
    together = critic(REAL)
    alone = torch.cat([critic(REAL[n : n + 1]) for n in range(3)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert not torch.allclose(together, alone.flip(0), atol=1e-4)


def ssim_by_hand(one: np.ndarray, two: np.ndarray, data_range: float) -> float:
    """Wang et al. 2004, Eq 13, in double precision; images are reflected at their borders."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(picture: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(picture, taps, 0, mode="mirror"), taps, 1, mode="mirror")

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    a, b = mean(one), mean(two)
    variances = mean(one**2) - a**2 + mean(two**2) - b**2
    covariance = mean(one * two) - a * b
    top = (2 * a * b + c1) * (2 * covariance + c2)
    return float((top / ((a**2 + b**2 + c1) * (variances + c2))).mean())


def test_the_structural_term_is_one_less_torchmetrics_and_the_formula():
    near = (REAL + 0.2 * DRAWN) / 1.2
    term = float(structural_loss(near, REAL))
    measure = StructuralSimilarityIndexMeasure(data_range=2.0)
    assert term == pytest.approx(1 - float(measure(near, REAL)), abs=1e-6)
    pairs = list(zip(near.double().numpy(), REAL.double().numpy(), strict=True))
    by_hand = {r: 1 - np.mean([ssim_by_hand(a[0], b[0], r) for a, b in pairs]) for r in (1, 2)}
    assert term == pytest.approx(by_hand[2], abs=1e-5)
    assert term != pytest.approx(by_hand[1], abs=1e-3)
    assert float(structural_loss(REAL, REAL)) == pytest.approx(0, abs=1e-6)


def test_the_structural_term_knows_the_range_of_images():
    """Flat pictures: SSIM is (2 a b + c1) / (a^2 + b^2 + c1) with c1 = (0.01 x 2)^2."""
    a, b = 0.02, 0.05
    flat = [torch.full((1, 1, 16, 16), level) for level in (a, b)]
    wanted = {
        r: 1 - (2 * a * b + (0.01 * r) ** 2) / (a**2 + b**2 + (0.01 * r) ** 2) for r in (1, 2)
    }
    assert float(structural_loss(*flat)) == pytest.approx(wanted[2], rel=1e-3)
    assert float(structural_loss(*flat)) != pytest.approx(wanted[1], rel=1e-2)


@pytest.fixture(scope="module")
def phi() -> FrozenFeatures:
    with initialised_from("test", 2):
        return FrozenFeatures(build_resnet((1, 1, 1, 1)))


def test_the_feature_term_is_zero_for_equal_images_only(phi):
    assert float(feature_distance(phi, REAL, REAL.clone())) == 0
    ours, theirs = phi(DRAWN), phi(REAL)
    wanted = float((ours - theirs).abs().sum() / (3 * 512))
    assert wanted > 0
    assert float(feature_distance(phi, DRAWN, REAL)) == pytest.approx(wanted, rel=1e-5)


def test_the_feature_term_pulls_the_drawn_image_alone(phi):
    real, drawn = REAL.clone().requires_grad_(), DRAWN.clone().requires_grad_()
    feature_distance(phi, drawn, real).backward()
    assert real.grad is None
    assert drawn.grad.abs().sum() > 0


def test_features_stay_frozen_inside_a_module_that_trains(phi):
    """Twin: the network itself, in train mode, moves its statistics and its answer."""
    outer = nn.ModuleDict({"phi": phi})
    before = {k: v.clone() for k, v in phi.state_dict().items()}
    outer.train()
    first = phi(DRAWN)
    assert torch.equal(phi(DRAWN), first)
    assert all(torch.equal(before[k], v) for k, v in phi.state_dict().items())
    assert not any(parameter.requires_grad for parameter in outer.parameters())
    loose = build_resnet((1, 1, 1, 1)).train()
    statistics = loose.bn1.running_mean.clone()
    loose(DRAWN)
    assert not torch.equal(loose.bn1.running_mean, statistics)
