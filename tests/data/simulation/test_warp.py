import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from namd.data.simulation import warp
from namd.data.simulation.contour import diameters, outline

SIZE, SPACING = 64, 0.5


def blob(radius_px, lobes):
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    angle = np.arctan2(axis[:, None], axis[None, :])
    edge = radius_px * (1 + 0.2 * np.sin(lobes * angle))
    return (np.hypot(axis[:, None], axis[None, :]) <= edge).astype(np.uint8)


def still():
    return warp.rigid(SIZE, (0.0, 0.0), 0.0)


@given(st.floats(8, 12), st.integers(2, 4), st.floats(0.8, 1.6))
@settings(max_examples=25, deadline=None)
def test_area_scales_as_asked_and_the_background_stays(radius, lobes, ratio):
    mask = blob(radius, lobes)
    rows, columns, near, _ = warp.grown(outline(mask), ratio, SPACING, *still())
    grown = map_coordinates(mask.astype(float), (rows, columns), order=1) > 0.5
    # Small outlines are counted in whole pixels: a few per cent either way.
    assert grown.sum() / mask.sum() == pytest.approx(ratio**2, rel=0.12)
    there = np.mgrid[0:SIZE, 0:SIZE]
    far = np.hypot(*(there - (SIZE - 1) / 2)) > warp.reach_px(outline(mask), ratio, SPACING) + 1
    assert np.allclose(rows[far], there[0][far])
    assert np.allclose(columns[far], there[1][far])
    if abs(ratio - 1) > 0.05:
        assert not np.allclose(rows[near], there[0][near])


def test_an_area_law_without_the_square_is_caught():
    mask = blob(10, 3)
    rows, columns, _, _ = warp.grown(outline(mask), 1.4, SPACING, *still())
    grown = map_coordinates(mask.astype(float), (rows, columns), order=1) > 0.5
    assert grown.sum() / mask.sum() != pytest.approx(1.4, rel=0.1)


def test_source_radius_never_folds_back():
    mask = blob(9, 3)
    middle = np.full(400, (SIZE - 1) / 2)
    along = middle + np.linspace(0.01, 31, 400)
    for ratio in (0.75, 1.0, 1.8):
        _, columns, _, _ = warp.grown(outline(mask), ratio, SPACING, middle, along)
        assert (np.diff(columns) > 0).all()


def test_rigid_motion_turns_about_the_middle_and_shifts():
    rows, columns = warp.rigid(65, (0.0, 0.0), 90.0)
    assert rows[32, 32] == pytest.approx(32)
    assert (rows[32, 64], columns[32, 64]) == pytest.approx((64.0, 32.0))
    rows, columns = warp.rigid(65, (2.0, -1.0), 0.0)
    assert (rows[10, 10], columns[10, 10]) == pytest.approx((8.0, 11.0))


def test_diameters_of_a_bar_by_hand():
    mask = np.zeros((20, 20), np.uint8)
    mask[5:9, 3:15] = 1
    longest, across = diameters(mask, 0.5)
    assert longest == pytest.approx((np.hypot(3, 11) + 1) * 0.5)
    assert across < longest
    with pytest.raises(ValueError, match="at least one pixel"):
        diameters(np.zeros((4, 4), np.uint8), 0.5)
    with pytest.raises(ValueError, match="at least one pixel"):
        outline(np.zeros((4, 4), np.uint8))
