import numpy as np
import pandas as pd
import pytest

from namd.data.simulation import growth

LEVELS = np.linspace(0.0005, 0.9995, 2001)


def quantiles(law, label, levels, months=12.0):
    ratios = growth.ratio(law, LEVELS, np.full(LEVELS.shape, label), np.full(LEVELS.shape, months))
    return np.quantile(ratios, levels)


@pytest.mark.parametrize(("label", "table"), [(0, growth.NLST_BENIGN), (1, growth.NLST_MALIGNANT)])
def test_nlst_law_reproduces_its_table(label, table):
    assert np.allclose(quantiles("nlst", label, growth.LEVELS), table, atol=0.004)
    assert not np.allclose(quantiles("nlst", 1 - label, growth.LEVELS), table, atol=0.03)


def test_the_table_is_that_of_the_real_pairs(shared_data):
    pairs = pd.read_csv(shared_data / "nlstx_boxes" / "annual_growth.csv")
    first_year = pairs[pairs["interval"] == "T0-T1"]
    for letter, table in (("B", growth.NLST_BENIGN), ("M", growth.NLST_MALIGNANT)):
        real = first_year.loc[first_year["malignancy"] == letter, "ratio"]
        assert np.allclose(real.quantile(growth.LEVELS), table, atol=0.001)


def test_doubling_time_of_300_days_is_the_median_and_benign_nodules_are_stable():
    year = 365.25 / 30.4375
    grown = quantiles("doubling-time", 1, [0.5], year)[0]
    assert grown == pytest.approx(2 ** (365.25 / 900), rel=1e-3)
    assert quantiles("doubling-time", 1, [0.5], year / 2)[0] < grown
    assert np.allclose(quantiles("doubling-time", 0, [0.05, 0.95]), 1.0, atol=0.08)


def test_the_marked_law_parts_the_labels_farther_than_nlst():
    gap = {law: quantiles(law, 1, [0.5]) - quantiles(law, 0, [0.5]) for law in ("nlst", "marked")}
    assert gap["marked"] > 1.5 * gap["nlst"]
    assert np.allclose(quantiles("marked", 0, [0.1, 0.9]), quantiles("nlst", 0, [0.1, 0.9]))
