import numpy as np

from namd.data.intensity import HIGH_HU, LOW_HU, to_hu, to_unit


def test_every_hu_of_the_window_returns():
    hu = np.arange(LOW_HU, HIGH_HU + 1, dtype=np.int16)
    np.testing.assert_array_equal(to_hu(to_unit(hu)), hu)


def test_the_window_is_the_unit_interval_and_what_lies_outside_is_clipped():
    unit = to_unit(np.array([-1024, LOW_HU, -300, HIGH_HU, 3071], dtype=np.int16))
    np.testing.assert_allclose(unit, [-1, -1, 0, 1, 1], atol=1e-6)
    assert unit.dtype == np.float32
    np.testing.assert_array_equal(to_hu([-3.0, 3.0]), [LOW_HU, HIGH_HU])


def test_the_input_is_left_alone():
    hu = np.array([0.0, 10.0], dtype=np.float32)
    to_unit(hu)
    np.testing.assert_array_equal(hu, [0.0, 10.0])
