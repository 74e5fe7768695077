import json

import numpy as np
import pandas as pd
import pytest

from namd.data.features import NoduleFeatures
from namd.data.schema import NODULE_FEATURES


def nodules(**columns) -> pd.DataFrame:
    base = {
        "SCT_PRE_ATT": [1.0, 2.0, 1.0, 3.0],
        "SCT_EPI_LOC": [1.0, 1.0, 4.0, 6.0],
        "SCT_LONG_DIA": [4.0, 8.0, 12.0, 20.0],
        "SCT_PERP_DIA": [4.0, 6.0, 9.0, 15.0],
        "SCT_MARGINS": [2.0, 2.0, 1.0, 3.0],
    }
    return pd.DataFrame({**base, **columns})


def test_standardised_diameters_have_mean_0_and_deviation_1():
    values, complete = NoduleFeatures.fit(nodules()).transform(nodules())
    assert complete.all()
    np.testing.assert_allclose(values[:, :2].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(values[:, :2].std(axis=0), 1, atol=1e-6)


def test_two_different_codes_are_one_apart_and_the_same_none():
    features = NoduleFeatures.fit(nodules())
    same = nodules(SCT_LONG_DIA=8.0, SCT_PERP_DIA=6.0, SCT_EPI_LOC=1.0, SCT_MARGINS=2.0)
    values, _ = features.transform(same)
    assert np.linalg.norm(values[0] - values[1]) == pytest.approx(1.0, abs=1e-6)
    assert np.linalg.norm(values[0] - values[2]) == 0


def test_raw_is_the_five_columns_as_they_are():
    table = nodules()
    values, complete = NoduleFeatures.fit(table, "raw").transform(table)
    np.testing.assert_array_equal(values, table[list(NODULE_FEATURES)].to_numpy(np.float32))
    assert complete.all()


@pytest.mark.parametrize("normalisation", ["standardised", "raw"])
@pytest.mark.parametrize("name", NODULE_FEATURES)
def test_a_missing_feature_leaves_its_case_out_and_only_it(name, normalisation):
    table = nodules()
    features = NoduleFeatures.fit(table, normalisation)
    table.loc[1, name] = np.nan
    values, complete = features.transform(table)
    assert complete.tolist() == [True, False, True, True]
    assert not values[1].any()
    assert np.isfinite(values).all()


def test_statistics_are_those_of_the_fitted_table_and_survive_json():
    features = NoduleFeatures.fit(nodules())
    again = NoduleFeatures.from_mapping(json.loads(json.dumps(features.to_mapping())))
    assert again == features
    other = nodules(SCT_LONG_DIA=30.0)
    np.testing.assert_array_equal(again.transform(other)[0], features.transform(other)[0])
    assert features.transform(other)[0].shape[1] == len(features.names)


def test_equal_diameters_do_not_divide_by_zero_and_none_at_all_is_an_error():
    table = nodules(SCT_LONG_DIA=5.0)
    assert np.isfinite(NoduleFeatures.fit(table).transform(table)[0]).all()
    with pytest.raises(ValueError, match="SCT_LONG_DIA"):
        NoduleFeatures.fit(nodules(SCT_LONG_DIA=np.nan))


def test_an_unknown_normalisation_is_rejected():
    # Under the type checker of the tests a TypeError comes first; without it, a ValueError.
    with pytest.raises((ValueError, TypeError), match="whitened"):
        NoduleFeatures("whitened")  # type: ignore[arg-type]
