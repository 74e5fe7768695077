"""Noise of the copied baseline: its spectrum is the pairs', and nothing else is."""

import numpy as np
import pytest

from namd.config.seeding import generator
from namd.methods.copy_noise.noise import coloured, mean_power


@pytest.fixture
def changes() -> np.ndarray:
    """Smooth changes: white noise averaged over 3 x 3 pixels, cyclic, deviation 1/3."""
    white = generator("test", "changes").standard_normal((400, 16, 16))
    return (
        sum(np.roll(white, (down, right), (1, 2)) for down in (-1, 0, 1) for right in (-1, 0, 1))
        / 9
    )


def test_the_power_is_that_of_a_box_filter(changes):
    power = mean_power(changes)
    kernel = np.zeros((16, 16))
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            kernel[down, right] = 1 / 9
    expected = np.abs(np.fft.fft2(kernel)) ** 2
    assert np.abs(power - expected).max() < 0.25
    assert np.isclose(power.mean(), (changes**2).mean())  # Parseval


def test_coloured_noise_has_that_power_and_white_noise_has_not(changes):
    power = mean_power(changes)
    draws = generator("test", "draws").standard_normal((400, 16, 16))
    made = mean_power(np.stack([coloured(white, power) for white in draws]))
    assert np.abs(made - power).max() < 0.25
    assert np.abs(mean_power(draws) - power).max() > 0.8


def test_no_power_is_no_noise():
    white = generator("test", "white").standard_normal((8, 8))
    assert not coloured(white, np.zeros((8, 8))).any()
    assert np.allclose(coloured(white, np.ones((8, 8))), white)
