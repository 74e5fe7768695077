from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from namd.config.errors import InputError
from namd.config.seeding import generator
from namd.data.checks import find_problems
from namd.data.settings import CropSettings
from namd.data.sources.columns import CropFiles, read_columns, read_mapping
from namd.data.sources.crops import build

SETTINGS = CropSettings(size=17)
COUNT = 8


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = generator("test-crops")
    votes = np.zeros((COUNT, 21, 21), dtype=np.uint8)
    votes[:, 6:15, 6:15] = 2
    votes[:, 8:13, 8:13] = 4
    return {
        "hu": rng.integers(-900, 300, (COUNT, 21, 21)).astype(np.int16),
        "votes": votes,
        "nodule_id": np.arange(100, 100 + COUNT),
    }


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row": range(COUNT),
            "nodule_id": range(100, 100 + COUNT),
            "patient_id": [f"P{i // 2}" for i in range(COUNT)],
            "lesion_group": range(COUNT),
            "pixel_spacing_mm": 0.5,
            "n_readers": 4,
            "label": [0, 1, -1, 0, 1, 0, "", 1],
            "SCT_PRE_ATT": [1, 2, 3, 9, ".M", 1, 1, 1],
            "SCT_MARGINS": 2,
            "SCT_LONG_DIA": [5, 6, 7, 8, 9, 10, 25, 3],
            "SCT_PERP_DIA": [4, 4, 4, 4, 4, 4, 4, 3],
            "side": "R",
            "z_frac": 0.4,
        }
    )


class Bench:
    """Writes what a test has bent and builds it."""

    def __init__(self, folder: Path, arrays: dict[str, np.ndarray], table: pd.DataFrame) -> None:
        self.folder, self.arrays, self.table = folder, arrays, table

    def build(self, select: bool = False, settings: CropSettings = SETTINGS, **files):
        np.savez(self.folder / "crops.npz", **self.arrays)
        self.table.to_csv(self.folder / "crops.csv", index=False)
        paths = CropFiles(self.folder / "crops.npz", self.folder / "crops.csv", **files)
        return build(paths, settings, seed=1, select=select)


@pytest.fixture
def bench(tmp_path, arrays, table) -> Bench:
    return Bench(tmp_path, arrays, table)


def test_crops_become_a_sound_cohort(bench):
    cohort = bench.build()
    assert len(cohort) == COUNT
    assert find_problems(cohort) == []
    assert cohort.size == 17
    assert not cohort.has_followup.any()
    assert cohort.table["case_id"].iloc[0] == "crops-00100"
    assert cohort.table["label"].isna().tolist() == [v in (-1, "") for v in bench.table["label"]]
    assert cohort.table["SCT_PRE_ATT"].isna().sum() == 2


def test_a_mask_holds_what_half_of_the_readers_marked(bench):
    four = bench.build().mask[0].sum()
    bench.table["n_readers"] = 8
    assert four == 81
    assert bench.build().mask[0].sum() == 25


def test_selection_keeps_what_can_be_simulated_and_counts_the_rest(bench):
    bench.table.loc[0, "n_readers"] = 1
    bench.arrays["votes"][1] = 0
    cohort = bench.build(select=True)
    assert cohort.table["SCT_LONG_DIA"].tolist() == [7, 8, 9, 10]
    assert cohort.card["excluded"] == {
        "fewer than 2 readers": 1,
        "not 4-22 mm": 2,
        "no contour": 1,
    }
    assert len(bench.build()) == COUNT


def test_the_table_may_name_its_columns_otherwise(bench, tmp_path):
    bench.table = bench.table.rename(columns={"patient_id": "who", "pixel_spacing_mm": "mm"})
    with pytest.raises(InputError, match="no column patient_id"):
        bench.build()
    (tmp_path / "map.yaml").write_text("patient_id: who\nspacing_mm: mm\nlabel: null\n")
    cohort = bench.build(columns=read_mapping(tmp_path / "map.yaml"))
    assert cohort.table["patient_id"].nunique() == 4
    assert cohort.table["label"].isna().all()


def test_a_word_or_column_that_does_not_exist_is_named(bench):
    with pytest.raises(InputError, match="did you mean label"):
        bench.build(columns={"labels": "label"})
    with pytest.raises(InputError, match="no column malignant"):
        bench.build(columns={"label": "malignant"})


def test_real_follow_ups_are_real_pairs(bench):
    bench.arrays["followup_hu"] = bench.arrays["hu"][:, ::-1].copy()
    bench.arrays["has_followup"] = np.arange(COUNT) != 3
    with pytest.raises(InputError, match="months"):
        bench.build()
    bench.table["months"] = 12
    cohort = bench.build()
    assert find_problems(cohort) == []
    assert cohort.has_followup.tolist() == [i != 3 for i in range(COUNT)]
    np.testing.assert_array_equal(cohort.followup[0], cohort.baseline[0][::-1])
    assert "followup" in cohort.card["real"]
    assert "simulation" not in cohort.card


def test_a_follow_up_has_its_own_spacing(bench):
    bench.arrays["followup_hu"] = bench.arrays["hu"]
    bench.table["months"] = 12
    bench.table["followup_pixel_spacing_mm"] = 0.8
    cohort = bench.build()
    assert not np.array_equal(cohort.followup[0], cohort.baseline[0])
    bench.table["followup_pixel_spacing_mm"] = 0.5
    cohort = bench.build()
    np.testing.assert_array_equal(cohort.followup[0], cohort.baseline[0])


def spoil(name):
    def nan(arrays, table):
        arrays["hu"] = arrays["hu"].astype(np.float32)
        arrays["hu"][2, 3, 3] = np.nan

    def padding(arrays, table):
        arrays["hu"][2, 0, 0] = -2000

    def short(arrays, table):
        table.loc[2, "pixel_spacing_mm"] = 0.3

    def spacing(arrays, table):
        table["pixel_spacing_mm"] = table["pixel_spacing_mm"].astype(object)
        table.loc[2, "pixel_spacing_mm"] = ""

    def word(arrays, table):
        table["SCT_MARGINS"] = table["SCT_MARGINS"].astype(object)
        table.loc[2, "SCT_MARGINS"] = "smooth"

    def order(arrays, table):
        table["row"] = table["row"].to_numpy()[::-1]

    def row(arrays, table):
        table.loc[2, "row"] = 99

    return locals()[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "102 is NaN or not within"),
        ("padding", "102 is NaN or not within -1024...3071"),
        ("short", "cases 102 are smaller"),
        ("spacing", "spacing_mm of cases 102 is missing"),
        ("word", "SCT_MARGINS of cases 102 is no number"),
        ("order", "cases 100, 101"),
        ("row", "rows 99"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_ids(bench, name, message):
    assert len(bench.build()) == COUNT
    spoil(name)(bench.arrays, bench.table)
    with pytest.raises(InputError, match=message):
        bench.build()


def test_broken_files_are_named(bench, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        build(CropFiles(tmp_path / "no.npz", tmp_path / "no.csv"), SETTINGS, 1)
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\); --table takes a CSV"):
        read_columns(tmp_path)
    bench.arrays["hu"] = bench.arrays["hu"][0]
    with pytest.raises(InputError, match="must be"):
        bench.build()


@pytest.mark.parametrize("name", ["hu", "followup_hu"])
def test_normalised_intensities_are_not_taken_for_hu(bench, name):
    bench.arrays["followup_hu"] = bench.arrays["hu"].copy()
    bench.table["months"] = 12
    bench.build()
    bench.arrays[name] = (bench.arrays[name] + 1000) / 1400
    with pytest.raises(InputError, match=f"{name} lies within .* give Hounsfield units"):
        bench.build()


def test_pickled_arrays_are_not_read(bench):
    bench.arrays["extra"] = np.array([{"a": 1}], dtype=object)
    with pytest.raises(InputError, match="plain arrays"):
        bench.build()


def test_what_is_no_npz_is_refused_without_a_word_of_pickles(tmp_path):
    hu = np.zeros((2, 8, 8), np.int16)
    np.save(tmp_path / "one.npy", hu)
    np.savez_compressed(tmp_path / "whole.npz", hu=hu)
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").touch()
    for name in ("one.npy", "short.npz", "text.npz", "empty.npz"):
        with pytest.raises(InputError, match=f"{name}: not an npz, or cut short") as raised:
            build(CropFiles(tmp_path / name, tmp_path / "no.csv"), SETTINGS, 1)
        assert "pickle" not in str(raised.value)


def test_an_npz_that_cannot_be_unpacked_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, hu=np.zeros((2, 8, 8), np.int16))
    spoilt = bytearray(path.read_bytes())
    place = spoilt.index(b"NUMPY") + 200
    spoilt[place : place + 1] = b"x"
    path.write_bytes(bytes(spoilt))
    with pytest.raises(InputError, match=r"c\.npz: not an npz of plain arrays"):
        build(CropFiles(path, tmp_path / "no.csv"), SETTINGS, 1)


@pytest.mark.slow
def test_real_crops(shared_data):
    folder = shared_data / "lidc_nodules2d"
    files = CropFiles(folder / "nodules.npz", folder / "nodules.csv")
    cohort = build(files, CropSettings(), seed=23, select=True)
    assert find_problems(cohort) == []
    assert len(cohort) > 1000
    assert cohort.card["licence"] == "CC BY 3.0"
    # The mask is drawn at 0.5 mm, the diameter measured at native spacing: both give one size.
    area_mm2 = cohort.mask.sum(axis=(1, 2)) * 0.25
    product = cohort.table["SCT_LONG_DIA"] * cohort.table["SCT_PERP_DIA"] * np.pi / 4
    assert np.corrcoef(area_mm2, product)[0, 1] > 0.95


class Wide:
    """Crops of 121 pixels, which at 0.5 mm hold 92, at 0.3 mm 73 and at 0.2 mm 49."""

    def __init__(self, bench: Bench) -> None:
        hu = generator("test-wide-crops").integers(-900, 300, (COUNT, 121, 121)).astype(np.int16)
        bench.arrays = {"hu": hu, "nodule_id": bench.arrays["nodule_id"]}
        self.bench = bench

    def build(self, spacings, **settings):
        self.bench.table["pixel_spacing_mm"] = spacings
        return self.bench.build(settings=CropSettings(**settings))


@pytest.fixture
def wide(tmp_path, arrays, table) -> Wide:
    return Wide(Bench(tmp_path, arrays, table))


def test_crops_are_stored_with_room_for_a_turn_if_all_of_them_reach(wide):
    cohort = wide.build(0.5)
    assert cohort.baseline.shape == (COUNT, 92, 92)
    assert "remarks" not in cohort.card


def test_one_crop_that_ends_before_makes_all_smaller_and_is_named(wide):
    cohort = wide.build([0.5] * 6 + [0.3, 0.5])
    assert cohort.baseline.shape == (COUNT, 64, 64)
    (remark,) = cohort.card["remarks"]
    assert "1 of 8 crops hold less than 92 pixels" in remark
    assert "cases 106" in remark
    assert "keeps the other 7" in remark
    with pytest.raises(InputError, match="cases 106 are smaller than 64 pixels"):
        wide.build([0.5] * 6 + [0.2, 0.5])
    with pytest.raises(InputError, match=r"cases 106 are smaller than 92 .* --leave-out-short"):
        wide.build([0.5] * 6 + [0.3, 0.5], size=92)


def test_crops_that_end_before_are_left_out_by_name_if_asked(wide):
    whole = wide.build(0.5)
    cohort = wide.build([0.5] * 6 + [0.3, 0.5], leave_out_short=True)
    kept = [place for place in range(COUNT) if place != 6]
    np.testing.assert_array_equal(cohort.baseline, whole.baseline[kept])
    assert cohort.card["excluded_cases"] == {"crop below 92 pixels of 0.5 mm": ["106"]}
    assert not wide.build(0.5, leave_out_short=True).card["excluded_cases"]
    with pytest.raises(InputError, match="no case is left"):
        wide.build(0.3, leave_out_short=True)
    # A spacing that is no spacing is a fault of the table, not of the crop.
    with pytest.raises(InputError, match="cases 106 is missing"):
        wide.build([0.5] * 6 + [0.001, 0.5], leave_out_short=True)
