import numpy as np
import pytest

from namd.data.resampling import reaches, resample, resample_mask


def disc(size: int, spacing_mm: float, diameter_mm: float) -> np.ndarray:
    rows, columns = (np.indices((size, size)) - (size - 1) / 2) * spacing_mm
    distance = np.hypot(rows, columns) - diameter_mm / 2
    return np.clip(0.5 - distance / spacing_mm, 0, 1)


def diameter_of(area_pixels: float, spacing_mm: float) -> float:
    return 2 * np.sqrt(area_pixels / np.pi) * spacing_mm


@pytest.mark.parametrize("native_mm", [0.25, 0.46, 0.5, 0.7, 0.98])
@pytest.mark.parametrize("diameter_mm", [8.0, 14.0, 22.0])
def test_a_circle_keeps_its_diameter_in_mm(native_mm, diameter_mm):
    native = disc(151, native_mm, diameter_mm)
    hu = (-850 + 900 * native).astype(np.int16)
    crop = resample(hu, native_mm, 0.5, 64)
    share = (crop.astype(float) + 850) / 900
    assert diameter_of(share.sum(), 0.5) == pytest.approx(diameter_mm, rel=0.02)
    mask = resample_mask(native >= 0.5, native_mm, 0.5, 64)
    assert diameter_of(mask.sum(), 0.5) == pytest.approx(diameter_mm, abs=0.5)


def test_a_wrong_spacing_shows():
    crop = resample((-850 + 900 * disc(151, 0.7, 14.0)).astype(np.int16), 0.5, 0.5, 64)
    share = (crop.astype(float) + 850) / 900
    assert diameter_of(share.sum(), 0.5) != pytest.approx(14.0, rel=0.2)


def test_the_same_spacing_is_the_middle_of_the_crop():
    crop = np.arange(65 * 65, dtype=np.int16).reshape(65, 65)
    np.testing.assert_array_equal(resample(crop, 0.5, 0.5, 33), crop[16:49, 16:49])


def test_overshoot_stays_within_the_crop():
    edge = np.full((71, 71), -1000, dtype=np.int16)
    edge[:, 36:] = 400
    crop = resample(edge, 0.7, 0.5, 64)
    assert crop.min() == -1000
    assert crop.max() == 400


def test_detail_finer_than_the_new_pixels_does_not_alias():
    stripes = np.where(np.arange(257) % 2, 400, -1000).astype(np.int16)
    stripes = np.tile(stripes, (257, 1))
    assert resample(stripes, 0.125, 0.5, 32)[4:-4, 4:-4].std() < 60
    assert stripes[::4, ::4].std() == 0  # what plain picking gives: a stripe for the whole
    assert abs(resample(stripes, 0.125, 0.5, 32)[4:-4, 4:-4].mean() + 300) < 60


def test_a_crop_must_hold_every_pixel_it_is_asked_for():
    assert reaches(71, [0.46, 0.7], 64, 0.5).all()
    assert not reaches(71, 0.44, 64, 0.5)
