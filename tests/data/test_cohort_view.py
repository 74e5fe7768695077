"""A view of some columns: what it shows is the cohort's, what it does not show is refused."""

import numpy as np
import pandas as pd
import pytest

from namd.config.errors import InputError
from namd.data import cohort_view
from namd.data.cohort import CASES_FILE, Cohort
from namd.data.cohort_view import CohortView

COLUMNS = ("patient_id", "label", "baseline", "card.source")


class RefusedError(Exception):
    """Names the column."""


@pytest.fixture
def folder(cohort, tmp_path):
    cohort.card |= {"simulation": {"law": "x"}}
    cohort.write(tmp_path / "C")
    return tmp_path / "C"


def read(folder, columns=COLUMNS, split="train") -> CohortView:
    return CohortView.read_columns(folder, (split,), columns, RefusedError)


def test_what_it_shows_is_what_the_cohort_holds(folder):
    view, whole = read(folder), Cohort.read(folder, ("train",))
    names = ["case_id", "patient_id", "split", "label"]
    assert sorted(view.table.columns) == sorted(names)
    pd.testing.assert_frame_equal(pd.DataFrame(view.table[names]), whole.table[names])
    np.testing.assert_array_equal(view.baseline, whole.baseline)
    assert view.card["source"] == whole.card["source"]
    assert (len(view), view.size) == (len(whole), whole.size)
    paired = read(folder, ("followup",))
    np.testing.assert_array_equal(paired.has_followup, whole.has_followup)
    np.testing.assert_array_equal(paired.followup, whole.followup)


@pytest.mark.parametrize("name", ["followup", "has_followup", "mask"])
def test_other_images_are_refused(folder, name):
    for view in (read(folder), read(folder).select([0, 1])):
        with pytest.raises(RefusedError, match=name.removeprefix("has_")):
            getattr(view, name)
    assert getattr(read(folder, ("followup", "mask")), name) is not None


@pytest.mark.parametrize(
    "look",
    [
        lambda table: table["age"],
        lambda table: table[["label", "age"]],
        lambda table: table.get("age", 0),
        lambda table: "age" in table,
        lambda table: table.age,
        lambda table: table.iloc[:2]["age"],
        lambda table: table[table["label"] == 1]["age"],
        lambda table: table.set_index("case_id")["age"],
        lambda table: table.copy().get("age"),
    ],
)
def test_other_columns_are_refused_however_they_are_asked_for(folder, look):
    with pytest.raises(RefusedError, match="age"):
        look(read(folder).table)
    look(read(folder, ("label", "age")).table)


def test_a_part_of_the_card_is_refused_by_its_name(folder):
    card = read(folder).card
    with pytest.raises(RefusedError, match=r"card\.simulation"):
        card.get("simulation")
    assert read(folder, ("card.simulation",)).card.get("simulation") == {"law": "x"}
    assert read(folder, ("card.values",)).card.get("values") is None


def test_a_name_that_is_no_column_is_what_it_is_in_any_table(folder):
    table = read(folder).table
    assert "nonsense" not in table
    with pytest.raises(KeyError):
        table["nonsense"]
    with pytest.raises(AttributeError):
        _ = table.nonsense
    table["added"] = 1.0
    assert table["added"].sum() == len(table)


def test_a_column_that_may_be_read_and_is_not_stored_is_absent(folder):
    assert "sim_p" not in read(folder, ("sim_p",)).table
    with pytest.raises(RefusedError, match="sim_p"):
        _ = "sim_p" in read(folder).table


def test_everything_is_everything_but_the_rest_of_the_card(folder):
    view, whole = read(folder, ("*",)), Cohort.read(folder, ("train",))
    pd.testing.assert_frame_equal(pd.DataFrame(view.table), whole.table, check_like=True)
    assert view.stacks.keys() == whole.stacks.keys()
    assert "sim_p" not in view.table
    with pytest.raises(RefusedError, match=r"card\.source"):
        view.card.get("source")


def test_images_are_shared_and_never_copied(folder, cohort):
    stored = read(folder)
    assert not stored.baseline.flags.owndata
    assert not stored.baseline.flags.writeable
    shared = CohortView.of(cohort, COLUMNS, RefusedError)
    assert np.shares_memory(shared.baseline, cohort.baseline)
    with pytest.raises(RefusedError, match="mask"):
        _ = shared.stacks["mask"]


def test_what_may_not_be_seen_is_not_read_from_disk(folder, monkeypatch):
    asked = []

    def reading(folder, columns, splits):
        asked.append(columns)
        return read_cases(folder, columns, splits)

    read_cases = cohort_view.read_cases
    monkeypatch.setattr(cohort_view, "read_cases", reading)
    read(folder, ("label",))
    assert sorted(asked[0]) == ["case_id", "label", "split"]


def test_cases_are_chosen_as_in_a_cohort(folder):
    view, whole = read(folder), Cohort.read(folder, ("train",))
    for index in ([3, 1], (whole.table["label"] == 1).to_numpy()):
        part, same = view.select(index), whole.select(index)
        assert part.table["case_id"].tolist() == same.table["case_id"].tolist()
        assert part.table.index.equals(same.table.index)
        np.testing.assert_array_equal(part.baseline, same.baseline)


def test_a_damaged_file_is_named(folder):
    (folder / CASES_FILE).write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=CASES_FILE):
        read(folder)
