import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from namd.data.schema import SPLITS
from namd.data.settings import SplitFractions
from namd.data.splits import assign_split, evaluation_subset

patients = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


def table_of(ids: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient_id": ids,
            "split": [assign_split(name, 3) for name in ids],
            "label": [float(len(name) % 2) for name in ids],
        }
    )


@given(patients, st.integers(0, 2**32))
def test_a_patient_is_in_one_split_whoever_else_is_there(ids, seed):
    alone = {name: assign_split(name, seed) for name in ids}
    together = {name: assign_split(name, seed) for name in [*ids, "someone", "else"]}
    assert all(together[name] == split for name, split in alone.items())
    assert set(alone.values()) <= set(SPLITS)


def test_shares_hold_in_expectation_and_the_seed_moves_patients():
    splits = [assign_split(f"patient-{i}", 0) for i in range(4000)]
    for name, share in {"train": 0.6, "validation": 0.1, "test": 0.3}.items():
        assert splits.count(name) / 4000 == pytest.approx(share, abs=0.03)
    assert splits != [assign_split(f"patient-{i}", 1) for i in range(4000)]


def test_fractions_are_respected_at_their_limits():
    everything = SplitFractions(train=0.0, validation=0.0, test=1.0)
    assert {assign_split(f"p{i}", 0, everything) for i in range(200)} == {"test"}


@pytest.mark.parametrize("shares", [(0.5, 0.1, 0.3), (1.2, -0.3, 0.1), (float("nan"), 0, 1)])
def test_impossible_fractions_are_rejected(shares):
    with pytest.raises(ValueError, match="fractions"):
        SplitFractions(*shares)
    assert SplitFractions(0.5, 0.2, 0.3).test == 0.3


@given(patients, st.integers(1, 20), st.integers(0, 5))
def test_an_evaluation_subset_is_whole_patients_and_nested(ids, num_cases, malignant):
    table = table_of(ids)
    chosen = evaluation_subset(table, "test", num_cases, malignant)
    rows = np.flatnonzero(table["split"] == "test")
    assert set(chosen) <= set(rows)
    inside = set(table["patient_id"].iloc[chosen])
    assert {row for row in rows if table["patient_id"].iloc[row] in inside} == set(chosen)
    assert set(chosen) <= set(evaluation_subset(table, "test", num_cases + 3, malignant + 1))
    if len(chosen) < len(rows):
        assert len(chosen) >= num_cases
        assert (table["label"].iloc[chosen] == 1).sum() >= malignant


def test_no_limit_takes_the_split_and_a_limit_stops_at_it():
    table = table_of([f"patient-{i}" for i in range(300)])
    whole = (table["split"] == "test").sum()
    assert len(evaluation_subset(table, "test")) == whole
    assert len(evaluation_subset(table, "test", 10)) == 10
    assert len(evaluation_subset(table, "test", 10, minimum_malignant=10**6)) == whole


def test_a_subset_is_no_run_of_names():
    ids = [f"{source}-{i:03d}" for source in ("a", "b") for i in range(100)]
    table = pd.DataFrame({"patient_id": ids, "split": "test", "label": 0.0})
    chosen = table["patient_id"].iloc[evaluation_subset(table, "test", 40)]
    assert 10 <= chosen.str.startswith("a").sum() <= 30
