"""The table of the misses: read from result tables, averaged over seeds."""

import numpy as np
import pytest

from experiments.misses import Misses, misses_of, summary, table


def rows(share=0.8, coverage=0.8, small=0.5, top=-0.06):
    def faithful(covered, bias):
        return {
            "rule": {
                "coverage": {"value": covered, "low": 0.7, "high": 0.9},
                "crps_mm": {"value": 1.2, "low": 1.1, "high": 1.3},
                "bias_mm": 0.1,
            },
            "small": {"bias_mm": {"value": bias, "low": 0.0, "high": 1.0}, "unmeasured": 0.02},
        }

    quintiles = [{"mean": 0.1 + d, "ideal": 0.1} for d in (0.01, 0.0, 0.0, 0.02, top)]
    return [
        {"row": "real_baseline", "quintiles": None, "diameter": None},
        {"row": "ideal_sampler", "diameter": faithful(0.885, 0.0)},
        {
            "row": "namd",
            "share_of_ideal": {"value": share},
            "diameter": faithful(coverage, small),
            "quintiles": quintiles,
        },
    ]


def test_it_reads_the_methods_row_beside_the_ideal_samplers():
    found = misses_of(rows())
    assert (found.share, found.coverage, found.ideal_coverage) == (0.8, 0.8, 0.885)
    assert (found.small_bias_mm, found.small_unmeasured) == (0.5, 0.02)
    assert found.worst_quintile == pytest.approx(-0.06)
    assert misses_of(rows(top=0.01)).worst_quintile == pytest.approx(0.02)


def test_what_was_not_measured_is_absent_and_no_zero():
    found = misses_of([{"row": "namd", "share_of_ideal": None, "diameter": None}])
    assert found == Misses(None, None, None, None, None, None, None)
    (row,) = summary({"full": {23: found}})
    assert (row["share"], row["share_std"], row["worst_quintile"]) == (None, None, None)
    assert "| - |" in table([row])


def test_seeds_are_averaged_and_the_share_has_their_deviation():
    shares = {23: 0.95, 24: 0.94, 25: 0.57}
    trials = {seed: misses_of(rows(share=value)) for seed, value in shares.items()}
    (row, alone) = summary({"full": trials, "one": {23: trials[23]}, "none": {}})
    assert row["seeds"] == [23, 24, 25]
    assert row["share"] == pytest.approx(np.mean(list(shares.values())))
    assert row["share_std"] == pytest.approx(np.std(list(shares.values()), ddof=1))
    assert alone["share_std"] is None
    assert "0.82" in table([row])
    assert "0.22" in table([row])
