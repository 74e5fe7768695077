import numpy as np
import pandas as pd
import pytest

from namd.data.simulation import record
from namd.data.simulation.settings import RecordSettings


def drawn(num=4000, **changes):
    patients = pd.Series([f"p{n}" for n in range(num)])
    return record.draw_records(RecordSettings(**changes), 5, patients, patients.index * 0)


def test_records_follow_the_stated_figures():
    table = drawn()
    assert table["age"].between(55, 76).all()
    assert table["age"].mean() == pytest.approx(63.6, abs=0.5)
    assert (table["gender"] == 1).mean() == pytest.approx(0.57, abs=0.03)
    assert table["diagemph"].mean() == pytest.approx(0.25, abs=0.03)
    assert table[list(record.FAMILY)].mean().to_numpy() == pytest.approx(0.05, abs=0.015)
    assert drawn(male=0.2)["gender"].eq(1).mean() < 0.3


def test_one_patient_has_one_record_and_each_replicate_another():
    patients = pd.Series(["a", "a", "a", "b"])
    table = record.draw_records(RecordSettings(), 5, patients, pd.Series([0, 0, 1, 0]))
    assert table.iloc[0].equals(table.iloc[1])
    assert not table.iloc[0].equals(table.iloc[2])
    assert not table.iloc[0].equals(table.iloc[3])


@pytest.mark.parametrize(
    ("side", "z_frac", "lobe"),
    [("R", 0.9, 1), ("R", 0.5, 2), ("R", 0.1, 3), ("L", 0.9, 4), ("L", 0.5, 5), ("L", 0.1, 6)],
)
def test_thirds_of_height_place_the_lobe(side, z_frac, lobe):
    assert record.draw_lobe(1, "case", side, z_frac) == lobe


def test_a_nodule_of_unknown_place_gets_any_lobe():
    lobes = [record.draw_lobe(1, f"case{n}", None, None) for n in range(600)]
    assert set(lobes) == {1, 2, 3, 4, 5, 6}
    assert record.draw_lobe(1, "case", "R", np.nan) in record.ALL_LOBES
    assert {record.draw_lobe(1, f"case{n}", "R", 0.9) for n in range(50)} == {1}
