"""The registration undoes a known motion of the background, and no growth of the nodule."""

import numpy as np
import pytest
from scipy import ndimage

from namd.data.intensity import to_unit
from namd.methods.corrflownet.registration import (
    Motion,
    background_correlation,
    background_weights,
    find_motion,
    registered,
)
from namd.methods.corrflownet.settings import RegistrationSettings

SIZE = 64
SEARCH = RegistrationSettings(maximum_shift=6)


def crop(seed=0, diameter=8.0):
    """A lung of smooth noise with a bright nodule in its middle, in HU."""
    texture = np.random.default_rng(seed).standard_normal((SIZE, SIZE))
    texture = ndimage.gaussian_filter(texture, 2)
    hu = -800 + 150 * texture / texture.std()
    row, column = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    hu[np.hypot(row, column) < diameter / 2] = 50
    return hu.round().astype(np.int16)


@pytest.mark.parametrize(("degrees", "shift"), [(0, (3, -2)), (6, (0, 0)), (-3, (-2.5, 4))])
def test_a_known_motion_is_undone(degrees, shift):
    before = crop()
    after = Motion(degrees, shift).of(before).round().astype(np.int16)
    back, motion = registered(before, after, SEARCH)
    weights = background_weights(SIZE, SEARCH.nodule_share, SEARCH.maximum_shift)
    still, moved = (
        background_correlation(to_unit(before), to_unit(image), weights) for image in (after, back)
    )
    assert motion.degrees == -degrees
    assert moved > 0.9
    assert still < moved - 0.1  # twin: left as it is, the backgrounds agree less


def test_a_nodule_that_grows_moves_nothing():
    before, grown = crop(), crop(diameter=16.0)
    assert find_motion(before, grown, SEARCH) == Motion()
    assert np.array_equal(registered(before, grown, SEARCH)[0], grown)


def test_only_the_background_is_compared():
    weights = background_weights(SIZE, 0.3, 6)
    assert weights[SIZE // 2, SIZE // 2] == 0
    assert weights[0].sum() == 0
    one = to_unit(crop())
    other = one.copy()
    other[weights == 0] = 1
    assert background_correlation(one, other, weights) == pytest.approx(1)
    # Twin: over the whole crop it is not.
    assert background_correlation(one, other, np.ones_like(weights)) < 0.9


def test_a_motion_that_gains_little_is_not_made():
    before = crop()
    after = Motion(0, (3, -2)).of(before).round().astype(np.int16)
    strict = RegistrationSettings(maximum_shift=6, minimum_gain=0.99)
    assert find_motion(before, after, strict) == Motion()
    assert find_motion(before, after, SEARCH) != Motion()


def test_translation_alone_turns_nothing():
    before = crop()
    after = Motion(6, (2, 1)).of(before).round().astype(np.int16)
    shifts = RegistrationSettings(motion="translation", maximum_shift=6)
    assert find_motion(before, after, shifts).degrees == 0
    assert find_motion(before, after, SEARCH).degrees == -6


def test_a_constant_crop_stands_still():
    flat = np.full((SIZE, SIZE), -800, np.int16)
    assert find_motion(flat, flat, SEARCH) == Motion()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"step_degrees": 0.0}, "step_degrees above 0"),
        ({"maximum_degrees": 90.0}, "45 at most"),
        ({"maximum_shift": 0}, "maximum_shift"),
        ({"nodule_share": 1.0}, "nodule_share"),
        ({"minimum_gain": 1.0}, "minimum_gain"),
    ],
)
def test_an_impossible_search_is_refused(values, word):
    with pytest.raises(ValueError, match=word):
        RegistrationSettings(**values)
