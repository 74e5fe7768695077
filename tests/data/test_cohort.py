import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from namd.config.errors import InputError
from namd.data import schema
from namd.data.cohort import CASES_FILE, Cohort, cohort_fingerprint

COLUMNS = ("baseline", "label", "SCT_LONG_DIA")


def assert_same(one: Cohort, other: Cohort) -> None:
    pd.testing.assert_frame_equal(one.table, other.table, check_like=True)
    np.testing.assert_array_equal(one.has_followup, other.has_followup)
    for name, stack in one.stacks.items():
        np.testing.assert_array_equal(stack, other.stacks[name])


def test_what_is_written_is_read(cohort, tmp_path):
    cohort.write(tmp_path / "C")
    read = Cohort.read(tmp_path / "C")
    assert_same(cohort, read)
    assert read.card == cohort.card


def test_rows_are_read_in_the_order_of_their_ids_whatever_the_file_holds(cohort, tmp_path):
    shuffled = cohort.select(np.arange(len(cohort))[::-1])
    shuffled.write(tmp_path / "C")
    assert_same(Cohort.read(tmp_path / "C"), cohort)


def test_splits_are_read_apart(cohort, tmp_path):
    cohort.write(tmp_path / "C")
    parts = [Cohort.read(tmp_path / "C", splits=(split,)) for split in schema.SPLITS]
    assert sum(len(part) for part in parts) == len(cohort)
    for split, part in zip(schema.SPLITS, parts, strict=True):
        assert_same(part, cohort.select((cohort.table["split"] == split).to_numpy()))


def test_reading_is_a_view_of_the_file_and_not_a_copy(cohort, tmp_path):
    cohort.write(tmp_path / "C")
    read = Cohort.read(tmp_path / "C")
    assert not read.baseline.flags.owndata
    assert not read.baseline.flags.writeable


def test_the_file_has_the_written_schema(cohort, tmp_path):
    cohort.table["sim_p"] = 0.25
    cohort.table["source_side"] = "R"
    cohort.write(tmp_path / "C")
    stored = pq.read_schema(tmp_path / "C" / CASES_FILE)
    assert stored.equals(schema.arrow_schema(cohort.size, ("sim_p",)))


def test_a_cohort_is_published_whole_or_not_at_all(cohort, tmp_path):
    cohort.table["surprise"] = 1.0
    with pytest.raises(ValueError, match="surprise"):
        cohort.write(tmp_path / "C")
    assert list(tmp_path.iterdir()) == []
    cohort.table = cohort.table.drop(columns="surprise")
    cohort.write(tmp_path / "C")
    assert [path.name for path in tmp_path.iterdir()] == ["C"]


def test_an_occupied_folder_is_refused_unless_overwriting_is_asked_for(cohort, tmp_path):
    cohort.write(tmp_path / "C")
    with pytest.raises(InputError, match="exists already"):
        cohort.write(tmp_path / "C")
    half = cohort.select(np.arange(4))
    half.write(tmp_path / "C", overwrite=True)
    assert len(Cohort.read(tmp_path / "C")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["C"]


def test_a_folder_without_a_cohort_is_named(tmp_path):
    with pytest.raises(InputError, match="namd cohort build"):
        Cohort.read(tmp_path)


def test_an_unknown_split_is_named(cohort, tmp_path):
    cohort.write(tmp_path / "C")
    with pytest.raises(InputError, match="holdout"):
        Cohort.read(tmp_path / "C", splits=("holdout",))


def test_stacks_that_do_not_fit_the_table_are_rejected(cohort):
    with pytest.raises(ValueError, match="baseline has shape"):
        Cohort(cohort.table.iloc[:3], cohort.baseline)
    # Under the type checker of the tests a TypeError comes first; without it, a ValueError.
    with pytest.raises((ValueError, TypeError), match=r"float32|f32"):
        Cohort(cohort.table, cohort.baseline.astype(np.float32))
    assert len(Cohort(cohort.table.iloc[:3], cohort.baseline[:3])) == 3


def test_the_fingerprint_is_that_of_the_cases_and_not_of_the_file(cohort, tmp_path):
    cohort.write(tmp_path / "C")
    from_memory = cohort.fingerprint(COLUMNS, ("train",))
    assert cohort_fingerprint(tmp_path / "C", COLUMNS, ("train",)) == from_memory
    stored = pq.read_table(tmp_path / "C" / CASES_FILE)
    pq.write_table(
        stored.take(np.arange(len(stored))[::-1]),
        tmp_path / "C" / CASES_FILE,
        row_group_size=3,
        compression="none",
    )
    assert cohort_fingerprint(tmp_path / "C", COLUMNS, ("train",)) == from_memory


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda c: c.table.__setitem__("label", 1.0), True),
        (lambda c: c.baseline.__setitem__((0, 0, 0), 399), True),
        (lambda c: c.table.__setitem__("age", 99.0), False),
        (lambda c: c.stacks["followup"].__setitem__((0, 0, 0), 399), False),
        (lambda c: c.table.__setitem__("split", "train"), True),
    ],
)
def test_the_fingerprint_changes_with_what_is_read_and_with_nothing_else(cohort, change, differs):
    before = cohort.fingerprint(COLUMNS)
    change(cohort)
    assert (cohort.fingerprint(COLUMNS) != before) == differs


def test_the_fingerprint_of_a_split_ignores_the_other_splits(cohort):
    before = cohort.fingerprint(COLUMNS, ("train",))
    cohort.table.loc[cohort.table["split"] == "test", "label"] = 1.0
    assert cohort.fingerprint(COLUMNS, ("train",)) == before
    cohort.table.loc[cohort.table["split"] == "train", "label"] = 1.0
    assert cohort.fingerprint(COLUMNS, ("train",)) != before


def test_a_missing_value_and_a_zero_have_different_fingerprints(cohort):
    cohort.table["label"] = 0.0
    zeros = cohort.fingerprint(("label",))
    cohort.table["label"] = np.nan
    assert cohort.fingerprint(("label",)) != zeros


def test_a_part_of_the_card_can_be_fingerprinted(cohort):
    before = cohort.fingerprint(("card.simulation",))
    cohort.card["notes"] = ["other"]
    assert cohort.fingerprint(("card.simulation",)) == before
    cohort.card["simulation"] = {"seed": 1}
    assert cohort.fingerprint(("card.simulation",)) != before


def test_a_fingerprint_of_an_unknown_column_is_rejected(cohort):
    with pytest.raises(ValueError, match="surprise"):
        cohort.fingerprint(("surprise",))


def test_a_full_disk_keeps_the_cohort_that_was_there(cohort, tmp_path, monkeypatch):
    folder = tmp_path / "C"
    cohort.write(folder)
    before = (folder / CASES_FILE).read_bytes()

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "whatever")

    for place in ("write_table", "fsync", "rename"):
        owner = {"write_table": pq, "fsync": os, "rename": Path}[place]
        with monkeypatch.context() as patch:
            patch.setattr(owner, place, full)
            with pytest.raises(
                InputError, match=r"C: .* \(No space left on device\); nothing of it"
            ):
                cohort.write(folder, overwrite=True)
        assert (folder / CASES_FILE).read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["C"]
    cohort.write(folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["C"]
