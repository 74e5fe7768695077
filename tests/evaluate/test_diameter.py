"""The diameter rule on discs of known size and on real crops with reader contours."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.stats import spearmanr

from namd.config.seeding import generator
from namd.data.intensity import to_unit
from namd.evaluate.diameter import longest_diameter

SPACING = 0.5
LUNG = -0.8


def ellipse(long_mm, short_mm, level, angle=0.0, noise=0.0, seed=0):
    rows, columns = (np.mgrid[:64, :64] - 31.5) * SPACING
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    inside = (2 * along / long_mm) ** 2 + (2 * across / short_mm) ** 2 <= 1
    image = gaussian_filter(np.where(inside, level, LUNG), 0.8)
    return image + noise * generator("test", seed).normal(size=image.shape)


@pytest.mark.parametrize("level", [0.4, -0.45])  # solid and ground glass
@pytest.mark.parametrize("diameter", [5, 8, 12, 16, 22])
def test_a_disc_is_measured_within_a_millimetre(diameter, level):
    images = np.stack([ellipse(diameter, diameter, level, noise=0.04, seed=s) for s in range(4)])
    np.testing.assert_allclose(longest_diameter(images, SPACING), diameter, atol=1.0)


def test_the_longest_diameter_is_taken_whichever_way_it_points():
    images = np.stack([ellipse(16, 10, 0.3, angle) for angle in (0, 0.5, 1.2, 2.5)])
    np.testing.assert_allclose(longest_diameter(images, SPACING), 16, atol=1.0)
    assert longest_diameter(ellipse(10, 10, 0.3)[None], SPACING)[0] < 12


def test_a_vessel_or_the_chest_wall_is_not_measured():
    with_vessel, at_wall = ellipse(8, 8, 0.3), ellipse(8, 8, 0.3)
    with_vessel[31:33] = 0.3
    at_wall[:24] = 0.3  # a wall that touches the nodule from above
    free = longest_diameter(ellipse(8, 8, 0.3)[None], SPACING)[0]
    for image in (with_vessel, at_wall):
        assert longest_diameter(image[None], SPACING)[0] < 1.7 * free
    spread = np.ptp(np.argwhere(with_vessel > 0)[:, 1]) * SPACING
    assert spread > 3 * free  # what a plain connected component would have measured


def test_spacing_scales_and_an_empty_lung_has_no_diameter():
    image = ellipse(10, 10, 0.3)[None]
    both = longest_diameter(np.concatenate([image, image]), np.array([0.5, 0.7]))
    assert both[1] / both[0] == pytest.approx(1.4, rel=0.08)
    noise = LUNG + 0.02 * generator("test", 1).normal(size=(2, 64, 64))
    assert np.isnan(longest_diameter(noise, SPACING)).all()
    assert np.isfinite(longest_diameter(image, SPACING)).all()


def test_the_answer_does_not_depend_on_the_batch():
    images = np.stack([ellipse(d, d, 0.3, noise=0.05, seed=d) for d in range(5, 20)])
    together = longest_diameter(images, SPACING)
    alone = [longest_diameter(image[None], SPACING)[0] for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_on_real_crops_it_ranks_like_the_readers_contours(shared_data):
    table = pd.read_csv(shared_data / "lidc_nodules2d" / "nodules.csv")
    table = table[table["long_dia_mm"].between(4, 26)].iloc[::5]
    hu = np.load(shared_data / "lidc_nodules2d" / "nodules.npz")["hu"][table["row"]]
    images = []
    for crop, spacing in zip(to_unit(hu), table["pixel_spacing_mm"], strict=True):
        axis = (np.arange(64) - 31.5) * SPACING / spacing + 35
        points = np.meshgrid(axis, axis, indexing="ij")
        images.append(map_coordinates(crop, points, order=1, mode="nearest"))
    measured = longest_diameter(np.stack(images), SPACING)
    known = np.isfinite(measured)
    assert known.mean() > 0.98
    truth = table["long_dia_mm"].to_numpy()[known]
    assert spearmanr(measured[known], truth)[0] > 0.8
    shuffled = generator("test", 0).permutation(truth)
    assert abs(spearmanr(measured[known], shuffled)[0]) < 0.2
