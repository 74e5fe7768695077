"""Single crops of a split: both time points, their own diameters, labels and angles."""

import numpy as np
import pytest

from namd.data.features import NoduleFeatures
from namd.data.intensity import to_unit
from namd.methods.shared.crop_set import CropSet, read_split
from namd.methods.shared.settings import ImageSettings
from tests.methods import made

RAW = NoduleFeatures("raw")
LONG, PERPENDICULAR = 2, 3
TRAIN = [*made.SPLITS["train"], *(case + 0.5 for case in made.FOLLOWED["train"])]


def crops(cohort=None, rotations="none", features=RAW):
    chosen = (cohort or made.cohort()).select(made.SPLITS["train"])
    return CropSet(chosen, ImageSettings(made.SIZE, rotations), features)


def test_every_baseline_and_every_followup_that_exists_is_a_crop_with_its_case_and_label():
    held = crops()
    batch = held.batch(np.arange(len(held)))
    assert made.which(batch.images) == TRAIN
    assert held.case_ids.tolist() == [f"c{int(case):02d}" for case in TRAIN]
    wanted = [np.nan if int(case) in made.UNLABELLED else int(case) % 2 for case in TRAIN]
    np.testing.assert_array_equal(batch.labels.numpy(), wanted)


def test_a_followup_has_the_diameters_that_were_measured_on_it():
    batch = crops().batch(np.arange(len(TRAIN)))
    for case, row in zip(TRAIN, batch.features.tolist(), strict=True):
        later = case % 1 != 0
        assert row[LONG] == (35 if later else 5) + int(case)
        assert row[PERPENDICULAR] == (34 if later else 4) + int(case)
        assert row[4] == 1 + int(case) % 3, "the margin is the baseline's"


def test_a_followup_without_diameters_of_its_own_is_not_complete():
    unmeasured = made.cohort(followup_SCT_PERP_DIA=np.nan)
    batch = crops(unmeasured).batch(np.arange(len(TRAIN)))
    assert batch.complete.tolist() == [float(case % 1 == 0) for case in TRAIN]
    assert not batch.features[8:].any()
    assert crops().batch(np.arange(len(TRAIN))).complete.all()
    assert not crops(features=None).batch(np.arange(3)).complete.any()


def test_turn_picks_the_angle_of_each_crop_and_without_one_none_is_turned():
    held = crops(rotations="quarter")
    index, turn = np.array([2, 9, 4]), np.array([1, 0, 3])
    plain, turned = held.batch(index).images, held.batch(index, turn).images
    for row, quarter in enumerate(turn):
        wanted = np.rot90(plain[row, 0].numpy(), quarter)
        np.testing.assert_array_equal(turned[row, 0].numpy(), wanted)
    assert not np.array_equal(plain[0], turned[0])


def test_turns_cover_every_angle_and_differ_by_seed_step_and_purpose():
    held = crops(rotations="all")
    drawn = [held.turns(*key, 64) for key in (("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("b", 0, 0))]
    assert all(set(turns) == set(range(8)) for turns in drawn)
    assert all(not np.array_equal(x, y) for i, x in enumerate(drawn) for y in drawn[:i])


@pytest.mark.parametrize("split", list(made.SPLITS))
def test_a_split_is_read_without_the_others(tmp_path, split):
    context = made.context(tmp_path)
    held = read_split(context.cohort, split)
    assert made.which(to_unit(held.baseline[:, 4:-4, 4:-4])) == list(made.SPLITS[split])
