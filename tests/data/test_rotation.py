import math

import numpy as np
import pytest

from namd.config.seeding import generator
from namd.data.rotation import EIGHTHS, QUARTERS, angles_for, centre_cut, rotated_crops, unhonoured


@pytest.fixture
def crops() -> np.ndarray:
    return generator("test-rotation").integers(-1000, 400, (3, 24, 24)).astype(np.int16)


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_eighths_need_room_for_the_corners(size):
    enough = math.ceil(math.sqrt(2) * size)
    assert angles_for(enough, size) == EIGHTHS
    assert angles_for(enough - 1, size) == QUARTERS
    assert angles_for(enough, size, "quarter") == QUARTERS
    assert angles_for(enough, size, "none") == (0,)


def test_four_quarters_are_none_and_no_value_is_invented(crops):
    turned = crops
    for _ in range(4):
        turned = rotated_crops(turned, 90, 24)
        np.testing.assert_array_equal(np.sort(turned, axis=None), np.sort(crops, axis=None))
    np.testing.assert_array_equal(turned, crops)
    assert not np.array_equal(rotated_crops(crops, 90, 24), crops)


def test_no_turn_is_the_centre_cut(crops):
    np.testing.assert_array_equal(rotated_crops(crops, 0, 16), centre_cut(crops, 16))


@pytest.mark.parametrize(("stored", "size"), [(24, 16), (23, 16), (92, 64), (91, 64)])
@pytest.mark.parametrize("angle", [45, 135, 225, 315])
def test_an_eighth_reads_stored_pixels_only(stored, size, angle):
    # Linear interpolation returns a plane exactly; beyond the stored crop there is no plane.
    rows, columns = np.indices((stored, stored)) - (stored - 1) / 2
    plane = (8 * rows + 3 * columns).astype(np.float32)[None]
    turn = math.radians(angle)
    rows, columns = np.indices((size, size)) - (size - 1) / 2
    there = math.cos(turn) * rows + math.sin(turn) * columns
    across = -math.sin(turn) * rows + math.cos(turn) * columns
    np.testing.assert_allclose(
        rotated_crops(plane, angle, size)[0], 8 * there + 3 * across, atol=1e-3
    )


def test_an_eighth_turns_as_two_eighths_make_a_quarter():
    rows, columns = np.indices((96, 96)) - 47.5
    smooth = 300 * np.exp(-(((rows + 8) / 6) ** 2) - ((columns - 14) / 9) ** 2)
    smooth = smooth[None].astype(np.int16)
    twice = rotated_crops(rotated_crops(smooth, 45, 66), 45, 46)
    np.testing.assert_allclose(twice, rotated_crops(smooth, 90, 46), atol=8)
    assert np.abs(twice - rotated_crops(smooth, 0, 46)).max() > 100


def test_an_angle_that_does_not_fit_is_rejected(crops):
    with pytest.raises(ValueError, match="does not fit"):
        rotated_crops(crops, 45, 24)
    assert rotated_crops(crops, 45, 16).shape == (3, 16, 16)
    with pytest.raises(ValueError, match="multiple of 45"):
        rotated_crops(crops, 30, 16)
    with pytest.raises(ValueError, match="cannot be cut"):
        angles_for(16, 24)


@pytest.mark.parametrize(
    ("rotations", "angles"), [("to_180", (0, 45, 90, 135, 180)), ("to_135", (0, 45, 90, 135))]
)
def test_stated_angles_are_kept_to_or_refused(rotations, angles):
    assert angles_for(91, 64, rotations) == angles
    with pytest.raises(ValueError, match=f"{rotations}: .* of 91, not 90"):
        angles_for(90, 64, rotations)


def test_turns_that_all_cannot_have_are_said():
    line = unhonoured(64, 64, "all")
    assert "64" in line
    assert "91 needed" in line
    kept = [(91, "all"), (64, "quarter"), (64, "none"), (91, "to_180")]
    assert [unhonoured(stored, 64, rotations) for stored, rotations in kept] == [""] * 4
