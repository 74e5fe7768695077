import dataclasses

import numpy as np
import pytest

from namd.data.simulation import signs, warp
from namd.data.simulation.contour import outline
from namd.data.simulation.settings import SignSettings

SIZE, SPACING, RADIUS_PX = 64, 0.5, 12.0
SIGN = signs.Sign(
    core=True, core_offset=0.3, core_angle=1.0, num_spicules=6, spicule_mm=3.0, spicule_phase=0.4
)


def scene(core, level=-600.0):
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    distance = np.hypot(axis[:, None], axis[None, :])
    mask = (distance <= RADIUS_PX).astype(np.uint8)
    sign = dataclasses.replace(SIGN, core=core)
    reach = signs.reach_mm(sign, SignSettings())
    rows, columns = warp.rigid(SIZE, (0.0, 0.0), 0.0)
    _, _, near, polar = warp.grown(outline(mask), 1.0, SPACING, rows, columns, reach)
    hu = np.where(mask > 0, level, -860.0)
    return hu, mask, distance, near, polar, sign


def draw(core, settings=None, level=-600.0):
    hu, mask, distance, near, polar, sign = scene(core, level)
    after = hu.copy()
    after[near] = signs.add(hu[near], polar, SPACING, sign, settings or SignSettings())
    return hu, after, mask, distance, sign


def test_a_core_raises_density_inside_the_nodule_alone():
    before, after, mask, _, _ = draw(core=True)
    assert (after >= before).all()
    outside = mask == 0
    border = signs.EDGE_MM / SPACING
    assert np.allclose(after[outside & (scene(True)[2] > RADIUS_PX + border)], -860.0)
    assert (after[mask > 0] - before[mask > 0]).max() > 500
    assert after.max() <= SignSettings().core_hu + 1e-6


def test_spicules_reach_beyond_the_border_and_no_farther_than_said():
    before, after, mask, distance, sign = draw(core=False, level=0.0)
    assert (after >= before).all()
    reach = RADIUS_PX + signs.reach_mm(sign, SignSettings()) / SPACING + 1
    assert np.allclose(after[distance > reach], before[distance > reach])
    ring = (mask == 0) & (distance < reach)
    changed = (after[ring] - before[ring]) > 300
    assert 0.1 < changed.mean() < 0.8
    # A core is all inside: the ring separates the two signs.
    core_before, core_after, *_ = draw(core=True)
    assert ((core_after[ring] - core_before[ring]) > 300).mean() < 0.05


def test_spicules_are_wide_enough_for_a_coarse_autoencoder():
    before, after, _, distance, _ = draw(core=False, level=0.0)
    circle = np.abs(distance - (RADIUS_PX + 1.5)) < 0.5
    changed_mm = ((after - before)[circle] > 200).sum() * SPACING
    assert changed_mm / SIGN.num_spicules >= 1.5


@pytest.mark.parametrize("core", [True, False])
def test_nothing_comes_near_calcium_and_strength_scales_the_change(core):
    weak = draw(core, SignSettings(strength=0.3))
    strong = draw(core, SignSettings(strength=1.0))
    assert strong[1].max() < 130
    assert (strong[1] - strong[0]).sum() > 1.5 * (weak[1] - weak[0]).sum() > 0
