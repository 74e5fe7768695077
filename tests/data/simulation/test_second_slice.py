import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from namd.config.seeding import generator
from namd.data.simulation.figures import detail_correlation
from namd.data.simulation.second_slice import second_slice, tissues
from namd.data.simulation.settings import SecondSliceSettings
from tests.data.real_ct import SPACING_MM, chest_ct
from tests.data.simulation.conftest import SIZE, SPACING, disc

SETTINGS = SecondSliceSettings()
WALL = slice(0, 10)


def lung_with_vessels(seed=0):
    """Textured lung, a wall along one side, vessels as bright spots, a nodule in the middle."""
    rng = generator("test-second-slice", seed)
    texture = gaussian_filter(rng.standard_normal((SIZE, SIZE)), 1.0)
    hu = -860 + 40 * texture / texture.std()
    for row, column in rng.integers(0, SIZE, (14, 2)):
        hu[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = -300
    hu[:, WALL] = 40 + 8 * rng.standard_normal((SIZE, 10))
    nodule = disc(5.0)
    hu[nodule > 0] = 20 + 15 * rng.standard_normal(int(nodule.sum()))
    return hu.round().astype(np.int16), nodule


@pytest.fixture(scope="module")
def first():
    return lung_with_vessels()


def lung_of(hu, mask):
    return tissues(hu.astype(float), mask > 0, SPACING, SETTINGS)[0][0]


def second(first, seed=1, settings=SETTINGS):
    return second_slice(*first, SPACING, settings, seed)


def test_the_lung_of_a_second_slice_is_not_that_of_the_first(first):
    lung = lung_of(*first)
    hu = first[0].astype(float)
    found = [detail_correlation(hu, second(first, seed), lung, SPACING) for seed in range(6)]
    assert np.abs(np.mean(found)) < 0.1
    # What a warp of the same slice would show.
    assert detail_correlation(hu, hu + 10.0, lung, SPACING) == pytest.approx(1.0, abs=1e-6)


def test_it_is_lung_of_the_same_level_grain_and_vessels(first):
    lung = binary_erosion(lung_of(*first), iterations=4)
    before, after = first[0][lung].astype(float), second(first)[lung]
    assert after.mean() == pytest.approx(before.mean(), abs=15)
    assert np.median(after) == pytest.approx(np.median(before), abs=15)
    assert after.std() == pytest.approx(before.std(), rel=0.3)
    # Vessels come along: a random field of the same spread would have none.
    assert (after > -500).mean() > 0.3 * (before > -500).mean() > 0
    field = generator("test-second-slice", "field").normal(before.mean(), before.std(), before.size)
    assert (field > -500).mean() < 0.1 * (before > -500).mean()


def test_wall_and_nodule_stay_where_they_are(first):
    hu, mask = first
    moved = second(first)
    assert np.abs(moved[:, :8] - hu[:, :8]).mean() < 15
    inside = mask > 0
    assert moved[inside].mean() == pytest.approx(hu[inside].mean(), abs=5)
    rim = disc(6.5) - mask
    assert np.array_equal(moved[rim > 0], hu[rim > 0])


def test_the_grain_within_the_nodule_is_new(first):
    hu, mask = first
    core = binary_erosion(mask > 0, iterations=5)
    found = [np.corrcoef(hu[core], second(first, seed)[core])[0, 1] for seed in range(6)]
    assert np.abs(np.mean(found)) < 0.3


def test_a_seed_decides_it_and_another_seed_decides_otherwise(first):
    assert np.array_equal(second(first, 5), second(first, 5))
    assert not np.array_equal(second(first, 5), second(first, 6))


def test_a_crop_without_lung_keeps_its_anatomy():
    hu = np.full((SIZE, SIZE), 40, dtype=np.int16)
    hu[:, 20:24] = 600
    moved = second((hu, disc(3.0)))
    assert np.abs(moved - hu).max() < 90
    assert np.isfinite(moved).all()


def test_a_nodule_that_fills_its_crop_is_taken():
    mask = np.ones((SIZE, SIZE), dtype=np.uint8)
    hu = generator("test-second-slice", "full").normal(30, 10, (SIZE, SIZE)).astype(np.int16)
    assert np.isfinite(second((hu, mask))).all()


def test_real_slices_3_mm_apart_share_as_little(shared_data):
    """What the law claims of a neighbouring slice, on a real CT, and of the one that is made."""
    volume = chest_ct(shared_data)[:, :, :102]
    corner = np.zeros(volume.shape[1:], dtype=np.uint8)
    corner[:3, :3] = 1

    def lung_at(number):
        return tissues(volume[number].astype(float), corner > 0, SPACING_MM, SETTINGS)[0][0]

    shares = {1: [], 2: [], 3: [], "made": []}
    for number in range(10, len(volume) - 3, 6):
        first, lung = volume[number].astype(float), lung_at(number)
        for gap in (1, 2, 3):
            both, beside = lung & lung_at(number + gap), volume[number + gap].astype(float)
            shares[gap].append(detail_correlation(first, beside, both, SPACING_MM))
        made = second_slice(volume[number], corner, SPACING_MM, SETTINGS, number)
        shares["made"].append(detail_correlation(first, made, lung, SPACING_MM))
    means = {gap: np.mean(found) for gap, found in shares.items()}
    assert means[1] > 0.25
    assert means[2] < 0.15
    assert abs(means[3]) < 0.05
    assert abs(means["made"]) < 0.1
