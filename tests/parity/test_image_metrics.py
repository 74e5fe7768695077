"""Set distances and per-image metrics against torchmetrics and long-hand formulae."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from namd.config.seeding import generator
from namd.evaluate.metrics import frechet_distance, kernel_distance, ssim_and_psnr


def features(seed, count=300, width=12, shift=0.0):
    random = generator("test-features", seed)
    mixing = random.normal(size=(width, width))
    return torch.from_numpy(random.normal(size=(count, width)) @ mixing + shift)


def test_frechet_distance_equals_its_formula():
    a, b = features(0), features(1, shift=0.5)
    x, y = a.numpy(), b.numpy()
    sx, sy = np.cov(x.T), np.cov(y.T)
    gap = np.sum((x.mean(0) - y.mean(0)) ** 2)
    expected = gap + np.trace(sx + sy - 2 * sqrtm(sx @ sy).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(a, b) > 0.9 * gap


def test_kernel_distance_is_the_unbiased_polynomial_discrepancy():
    a, b = features(0, 60), features(0, 60, shift=0.7)
    x, y = a.numpy(), b.numpy()

    def kernel(u, v):
        return (u @ v.T / u.shape[1] + 1) ** 3

    m = len(x)
    within = sum((kernel(z, z).sum() - np.trace(kernel(z, z))) / (m * (m - 1)) for z in (x, y))
    expected = within - 2 * kernel(x, y).mean()
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-6)
    biased = kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()
    assert abs(biased - expected) > 1e-3 * abs(expected)


def test_ssim_and_psnr_equal_scikit_image():
    random = generator("test-images", 0)
    real = random.uniform(-1, 1, size=(3, 1, 64, 64)).astype(np.float32)
    ours = np.clip(real + 0.3 * random.normal(size=real.shape), -1, 1).astype(np.float32)
    ssim, psnr = ssim_and_psnr(torch.from_numpy(ours), torch.from_numpy(real))
    for number in range(3):
        a, b = ours[number, 0], real[number, 0]
        expected = structural_similarity(
            a, b, data_range=2.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert ssim[number] == pytest.approx(expected, abs=0.03)
        expected = peak_signal_noise_ratio(b, a, data_range=2.0)
        assert psnr[number] == pytest.approx(expected, abs=1e-4)
    same, high = ssim_and_psnr(torch.from_numpy(real), torch.from_numpy(real))
    assert same == pytest.approx(np.ones(3))
    assert high == pytest.approx(100 * np.ones(3), abs=0.03)
