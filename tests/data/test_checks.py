import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from namd.config.errors import InputError
from namd.data.checks import (
    RefusedCohortError,
    check_folder,
    find_problems,
    require_sound,
    require_trainable,
)
from namd.data.cohort import CASES_FILE, Cohort
from namd.data.settings import CohortDemands


def rows_of_split(cohort: Cohort, split: str) -> np.ndarray:
    return np.flatnonzero((cohort.table["split"] == split).to_numpy())


def set_value(column, value, row=0):
    return lambda c: c.table.__setitem__(
        column, c.table[column].where(np.arange(len(c)) != row, value)
    )


def patient_in_two_splits(cohort):
    set_value("split", "test" if cohort.table["split"][0] != "test" else "train")(cohort)


def lesion_in_two_splits(cohort):
    train, test = rows_of_split(cohort, "train")[0], rows_of_split(cohort, "test")[0]
    cohort.table["lesion_id"] = cohort.table["lesion_id"].where(
        ~np.isin(np.arange(len(cohort)), [train, test]), "shared-lesion"
    )


def crop_in_two_splits(cohort):
    train, test = rows_of_split(cohort, "train")[0], rows_of_split(cohort, "test")[0]
    cohort.baseline[test] = cohort.baseline[train]


def later_crop_in_two_splits(cohort):
    followed = cohort.has_followup
    train = next(i for i in rows_of_split(cohort, "train") if followed[i])
    test = next(i for i in rows_of_split(cohort, "test") if followed[i])
    cohort.followup[test] = cohort.followup[train]


def out_of_range(cohort):
    cohort.baseline[0, 0, 0] = -2000


def blank(cohort):
    cohort.baseline[0] = -1000


def loud_mask(cohort):
    cohort.mask[0, 0, 0] = 255


FIRST = "case-000-0"
PROBLEMS = {
    "patient": (patient_in_two_splits, "patient in more than one split: patient-000"),
    "lesion": (lesion_in_two_splits, "lesion in more than one split: shared-lesion; splits go by"),
    "crop": (crop_in_two_splits, "the same baseline crop in more than one split: case-"),
    "later crop": (later_crop_in_two_splits, "the same followup crop in more than one split"),
    "range": (out_of_range, f"baseline is not within -1024...3071 HU in {FIRST}"),
    "blank": (blank, f"baseline is blank in {FIRST}"),
    "mask": (loud_mask, f"mask holds other values than 0 and 1 in {FIRST}"),
    "label": (set_value("label", 2.0), f"label 2 is none of 0, 1 or missing in {FIRST}"),
    "half a label": (set_value("label", 0.5), f"label 0.5 is none of 0, 1 or missing in {FIRST}"),
    "code": (set_value("SCT_EPI_LOC", 7.0), "SCT_EPI_LOC 7 is none of"),
    "undetermined": (set_value("SCT_MARGINS", 9.0), "SCT_MARGINS 9 is none of"),
    "gender": (set_value("gender", 0.0), f"gender 0 is none of 1, 2 or missing in {FIRST}"),
    "flag": (set_value("famchild", 3.0), "famchild 3 is none of 0, 1"),
    "diameter": (set_value("SCT_LONG_DIA", 900.0), "SCT_LONG_DIA is not within 0.5...200"),
    "age": (set_value("age", -1.0), f"age is not within 0...120 in {FIRST}"),
    "months": (set_value("months", np.nan), f"months is missing beside a follow-up in {FIRST}"),
    "split": (set_value("split", "holdout"), "split is none of train, validation, test in"),
    "patient id": (set_value("patient_id", None), f"patient_id is missing in {FIRST}"),
    "case id": (set_value("case_id", "case-000-1"), "case_id is not unique: case-000-1"),
    "spacing": (
        set_value("spacing_mm", 0.7),
        f"spacing_mm differs from the other cases' in {FIRST}",
    ),
}


def test_a_sound_cohort_has_no_problem(cohort):
    assert find_problems(cohort) == []
    require_sound(cohort)


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_problem_is_one_line_with_its_ids(cohort, name):
    spoil, message = PROBLEMS[name]
    spoil(cohort)
    found = find_problems(cohort)
    assert any(message in problem for problem in found), found
    assert not any("\n" in problem for problem in found)
    with pytest.raises(RefusedCohortError, match="cohort refused"):
        require_sound(cohort)


def test_what_looks_like_a_problem_and_is_none(cohort):
    train = rows_of_split(cohort, "train")
    cohort.baseline[train[1]] = cohort.baseline[train[0]]  # the same crop within one split
    cohort.table["lesion_id"] = cohort.table["patient_id"]
    cohort.table["label"] = np.nan
    cohort.table["SCT_EPI_LOC"] = 8.0
    cohort.mask[:] = 0
    assert find_problems(cohort) == []


def test_an_empty_cohort_is_a_problem(cohort):
    assert find_problems(cohort.select(np.zeros(len(cohort), bool))) == ["no case at all"]


def test_many_offenders_are_counted_and_not_all_listed(cohort):
    cohort.table["age"] = 300.0
    (problem,) = find_problems(cohort)
    assert problem.endswith(f"and {len(cohort) - 10} more")


class Stored:
    """A written cohort whose file a test rewrites."""

    def __init__(self, folder, cohort):
        self.folder = folder
        cohort.write(folder)
        self.table = pq.read_table(folder / CASES_FILE)

    def problems(self, table: pa.Table) -> list[str]:
        pq.write_table(table, self.folder / CASES_FILE)
        return check_folder(self.folder)[1]


@pytest.fixture
def stored(cohort, tmp_path) -> Stored:
    return Stored(tmp_path / "C", cohort)


def test_a_written_cohort_passes(stored):
    assert stored.problems(stored.table) == []


def test_columns_that_are_unknown_missing_or_of_another_type(stored):
    table = stored.table
    extra = table.append_column("diagnosis", pa.array(["x"] * len(table)))
    assert stored.problems(extra) == ["column diagnosis: unknown to the schema"]
    assert stored.problems(table.drop_columns(["age"])) == ["column age: missing"]
    place = table.schema.get_field_index("label")
    text = table.set_column(place, "label", pa.array(["1"] * len(table)))
    assert stored.problems(text) == ["column label: is string, must be int8"]


def test_crops_of_a_wrong_shape_or_type(stored):
    table = stored.table
    place = table.schema.get_field_index("followup")
    flat = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((len(table), 8, 8), np.int16))
    assert stored.problems(table.set_column(place, "followup", flat)) == [
        "columns baseline and followup: different shapes"
    ]
    floats = np.full((len(table), 16, 16), np.nan, np.float32)
    array = pa.FixedShapeTensorArray.from_numpy_ndarray(floats)
    (problem,) = stored.problems(table.set_column(place, "followup", array))
    assert "must be a fixed-shape tensor of int16" in problem


def test_cases_changed_after_the_build_are_noticed(stored):
    place = stored.table.schema.get_field_index("age")
    older = pa.array(np.full(len(stored.table), 70.0, np.float32))
    (problem,) = stored.problems(stored.table.set_column(place, "age", older))
    assert "changed after the cohort was built" in problem


def test_cases_changed_after_the_build_are_not_trained_on(stored):
    place = stored.table.schema.get_field_index("label")
    turned = pc.subtract(pa.scalar(1, pa.int8()), stored.table["label"])
    pq.write_table(stored.table.set_column(place, "label", turned), stored.folder / CASES_FILE)
    with pytest.raises(InputError, match=r"C: fingerprint: .*changed after .*; nothing was"):
        require_trainable(stored.folder)
    pq.write_table(stored.table, stored.folder / CASES_FILE)
    require_trainable(stored.folder)


def test_ids_in_two_splits_survive_as_problems_on_disk(stored):
    cohort = Cohort.read(stored.folder)
    patient_in_two_splits(cohort)
    cohort.write(stored.folder, overwrite=True)
    _, problems = check_folder(stored.folder)
    assert any("patient-000" in problem for problem in problems)
    assert isinstance(cohort.table, pd.DataFrame)


def test_a_sound_cohort_may_be_trained_on(stored):
    require_trainable(stored.folder)


def test_leaks_are_refused_before_anything_is_trained(stored):
    cohort = Cohort.read(stored.folder)
    patient_in_two_splits(cohort)
    cohort.write(stored.folder, overwrite=True)
    with pytest.raises(InputError, match=r"C: patient in more .*patient-000; .*check"):
        require_trainable(stored.folder)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_without_followup_is_refused_before_anything_is_trained(stored, split):
    cohort = Cohort.read(stored.folder)
    cohort.has_followup[rows_of_split(cohort, split)] = False
    cohort.write(stored.folder, overwrite=True)
    with pytest.raises(InputError, match=f"split {split}: no follow-up among .*--simulate-followu"):
        require_trainable(stored.folder)
    _, problems = check_folder(stored.folder)
    assert [f"split {split}: no follow-up" in problem for problem in problems] == [True]


def test_a_file_without_a_column_is_refused_before_it_is_read(stored):
    pq.write_table(stored.table.drop_columns(["followup"]), stored.folder / CASES_FILE)
    with pytest.raises(InputError, match="C: column followup: missing"):
        require_trainable(stored.folder)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_without_a_class_is_refused_before_anything_is_trained(stored, split):
    cohort = Cohort.read(stored.folder)
    inside = cohort.table["split"] == split
    cohort.table["label"] = cohort.table["label"].where(~inside, 0.0)
    cohort.write(stored.folder, overwrite=True)
    with pytest.raises(InputError, match=f"C: split {split}: no malignant case among .*nothing"):
        require_trainable(stored.folder)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split_is_refused_before_anything_is_trained(stored, split):
    cohort = Cohort.read(stored.folder)
    cohort.select(cohort.table["split"] != split).write(stored.folder, overwrite=True)
    with pytest.raises(InputError, match=f"C: split {split}: no case; more patients"):
        require_trainable(stored.folder)


def test_crops_smaller_than_the_images_are_refused_before_anything_is_trained(stored):
    require_trainable(stored.folder, CohortDemands(image_size=16))
    with pytest.raises(InputError, match=r"C: stored crops of 16 .* image\.size 17; .*nothing"):
        require_trainable(stored.folder, CohortDemands(image_size=17))


def test_crops_without_room_for_stated_turns_are_refused(stored):
    require_trainable(stored.folder, CohortDemands(image_size=11, turned=True))
    with pytest.raises(InputError, match=r"C: .* of 16 .* images of 12 by 45 .* quarter, .*17"):
        require_trainable(stored.folder, CohortDemands(image_size=12, turned=True))
    require_trainable(stored.folder, CohortDemands(image_size=12))


@pytest.mark.parametrize("name", ["SCT_LONG_DIA", "SCT_PERP_DIA"])
def test_a_train_split_without_a_diameter_is_refused_where_one_is_needed(stored, name):
    cohort = Cohort.read(stored.folder)
    inside = cohort.table["split"] == "train"
    cohort.table[name] = cohort.table[name].where(~inside, np.nan)
    cohort.write(stored.folder, overwrite=True)
    require_trainable(stored.folder)
    with pytest.raises(InputError, match=f"C: split train: no case has a {name}, .*=raw; nothing"):
        require_trainable(stored.folder, CohortDemands(diameters=True))
    first = cohort.table.index[inside][0]
    cohort.table.loc[first, name] = 6.0
    cohort.write(stored.folder, overwrite=True)
    require_trainable(stored.folder, CohortDemands(diameters=True))
