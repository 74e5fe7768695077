"""What the user's files hold is used, or named: never ignored or replaced in silence."""

import json

import numpy as np
import pytest

from namd.cli.main import main
from namd.data.cohort import Cohort
from tests.data.small_source import COUNT, SmallSource

OWN_SPLIT = ["train"] * 14 + ["validation"] * 4 + ["test"] * 6
RECORD = ("age", "gender", "diagemph", "famfather", "fammother", "fambrother", "famsister")
RECORD += ("famchild", "SCT_EPI_LOC")
SIMULATE = ("--simulate-followup", "--replicates", "2")


@pytest.fixture
def source(tmp_path) -> SmallSource:
    return SmallSource(tmp_path)


def complete(source):
    """Give every case all that the simulation can draw."""
    source.follow()
    values = {"age": 61, "gender": 2, "SCT_EPI_LOC": 4}
    for name in RECORD:
        source.table[name] = values.get(name, 1)
    source.table["followup_SCT_LONG_DIA"], source.table["followup_SCT_PERP_DIA"] = 7, 6


def built(source, capsys, *words) -> tuple[dict, Cohort]:
    source.write()
    capsys.readouterr()
    assert source.build(*words, "--json") == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1]), Cohort.read(source.out)


def refused(source, capsys, *words) -> str:
    source.write()
    capsys.readouterr()
    assert source.build(*words) == 2
    assert not source.out.exists()
    return capsys.readouterr().err.splitlines()[-1]


def by_nodule(cohort, name):
    nodule = cohort.table["case_id"].str.extract(r"-n(\d+)", expand=False).astype(int)
    return dict(zip(nodule, cohort.table[name], strict=True))


# The split.


def test_a_column_split_is_the_split_and_the_card_says_so(source, capsys):
    plain, _ = built(source, capsys)
    assert plain["split_column"] is None
    source.out = source.folder / "D"
    source.table["split"] = OWN_SPLIT
    summary, cohort = built(source, capsys)
    assert by_nodule(cohort, "split") == dict(enumerate(OWN_SPLIT))
    cases = {name: split["cases"] for name, split in summary["splits"].items()}
    assert cases == {"train": 14, "validation": 4, "test": 6}
    assert summary["split_column"] == "split"
    assert cohort.card["split_seed"] is None
    assert cohort.card["fractions"] == {}
    assert main(["cohort", "card", str(source.out)]) == 0
    assert "the source's own, column split" in capsys.readouterr().out
    assert plain["fingerprint"] != summary["fingerprint"]


def test_another_column_may_be_the_split_and_spellings_are_understood(source, capsys):
    names = {"train": "Training", "validation": " VAL", "test": "testing"}
    source.table["fold"] = [names[split] for split in OWN_SPLIT]
    summary, cohort = built(source, capsys, "--split-column", "fold")
    assert by_nodule(cohort, "split") == dict(enumerate(OWN_SPLIT))
    assert summary["split_column"] == "fold"
    assert summary["unused"]["columns"] == []


def test_a_split_that_is_not_wanted_is_named_as_unused(source, capsys):
    source.table["split"] = OWN_SPLIT
    mapping = source.folder / "map.yaml"
    mapping.write_text("split: null")
    summary, cohort = built(source, capsys, "--columns", str(mapping))
    assert summary["unused"]["columns"] == ["split"]
    assert by_nodule(cohort, "split") != dict(enumerate(OWN_SPLIT))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["train", "test"] * 12, "patient in more than one split: p0"),
        (["fold1"] * COUNT, "is 'fold1'; write train, training"),
        ([*OWN_SPLIT[:-1], "NA"], "split of cases n23 is nothing"),
    ],
)
def test_a_split_that_leaks_or_cannot_be_read_is_refused(source, capsys, split, message):
    source.table["split"] = split
    assert message in refused(source, capsys)


def test_the_split_is_named_in_one_place_and_must_be_there(source, capsys):
    assert "no column fold (for split)" in refused(source, capsys, "--split-column", "fold")
    mapping = source.folder / "map.yaml"
    mapping.write_text("split: other")
    words = ["--columns", str(mapping), "--split-column", "fold"]
    assert "name it in one place" in refused(source, capsys, *words)


def test_replicates_stay_in_the_users_split(source, capsys):
    source.table["split"] = OWN_SPLIT
    _, cohort = built(source, capsys, *SIMULATE)
    assert len(cohort) == 2 * COUNT
    assert by_nodule(cohort, "split") == dict(enumerate(OWN_SPLIT))


# What is simulated.


def test_a_complete_table_is_kept_to_the_last_value(source, capsys):
    complete(source)
    plain, before = built(source, capsys)
    source.out = source.folder / "D"
    summary, after = built(source, capsys, *SIMULATE)
    assert summary["fingerprint"] == plain["fingerprint"]
    assert summary["simulated"] == []
    assert all(counts["kept"] == COUNT for counts in summary["values"].values())
    assert after.table.equals(before.table)
    assert "simulation" not in after.card


def test_with_replace_everything_is_drawn_and_counted(source, capsys):
    bare, without = built(source, capsys, *SIMULATE, "--replace")
    source.out = source.folder / "D"
    complete(source)
    summary, cohort = built(source, capsys, *SIMULATE, "--replace")
    assert cohort.table.equals(without.table)
    np.testing.assert_array_equal(cohort.followup, without.followup)
    assert all(counts["replaced"] == COUNT for counts in summary["values"].values())
    assert bare["values"]["age"] == {"kept": 0, "simulated": COUNT, "replaced": 0, "missing": 0}
    assert bare["values"]["label"]["replaced"] == COUNT
    assert set(summary["ideal_auroc"]) == {"train", "validation", "test"}


def test_only_what_is_missing_is_drawn(source, capsys):
    complete(source)
    source.arrays["has_followup"] = np.arange(COUNT) % 2
    first, lonely = 3, 4
    unfollowed = list(range(0, COUNT, 2))
    source.table = source.table.astype(object)
    source.table.loc[unfollowed, ["followup_SCT_LONG_DIA", "followup_SCT_PERP_DIA"]] = ""
    source.table.loc[[first, lonely], "label"] = ""
    source.table.loc[[10, 11], "age"] = ""
    summary, cohort = built(source, capsys, *SIMULATE)
    assert len(cohort) == 12 + 2 * 12
    labels, followed = by_nodule(cohort, "label"), source.arrays["has_followup"] == 1
    assert np.isnan(labels[first])
    assert labels[lonely] in (0, 1)
    assert all(labels[i] == i % 2 for i in range(COUNT) if i not in (first, lonely))
    ages = by_nodule(cohort, "age")
    assert [i for i, age in ages.items() if age != 61] == [10, 11]
    values = summary["values"]
    assert values["label"] == {"kept": 22, "simulated": 1, "replaced": 0, "missing": 1}
    assert values["age"] == {"kept": 22, "simulated": 2, "replaced": 0, "missing": 0}
    assert values["followup"] == {"kept": 12, "simulated": 12, "replaced": 0, "missing": 0}
    own = cohort.table["case_id"].isin([f"crops-n{i}-r0" for i in np.flatnonzero(followed)])
    assert cohort.table["sim_growth_ratio"].isna().tolist() == own.tolist()
    assert (cohort.table["followup_SCT_LONG_DIA"][own] == 7).all()
    assert "sim_p" not in cohort.table
    assert summary["ideal_auroc"] is None
    assert any("labels of 22 cases" in line for line in summary["warnings"])
    assert {"label", "age", "followup"} <= set(cohort.card["real"])
    assert "months" not in summary["simulated"]


def test_kept_follow_ups_are_the_users_own_pixels(source, capsys):
    complete(source)
    source.arrays["has_followup"] = np.arange(COUNT) % 2
    _, plain = built(source, capsys)
    source.out = source.folder / "D"
    source.table["followup_SCT_LONG_DIA"] = source.table["followup_SCT_PERP_DIA"] = ""
    _, cohort = built(source, capsys, *SIMULATE)
    whole = dict(zip(plain.table["case_id"], plain.followup, strict=True))
    for case, image in zip(cohort.table["case_id"], cohort.followup, strict=True):
        name = case.rpartition("-r")[0]
        assert np.array_equal(image, whole[name]) == bool(int(name[7:]) % 2)


def test_a_record_is_completed_from_the_patients_other_case(source, capsys):
    source.table["gender"] = [1, ""] * 12
    summary, cohort = built(source, capsys, *SIMULATE)
    assert (cohort.table["gender"] == 1).all()
    assert summary["values"]["gender"]["kept"] == COUNT


def test_drawn_labels_follow_the_kept_record(source, capsys):
    source.table["label"] = ""
    source.table["age"] = [50] * 12 + [80] * 12
    summary, cohort = built(source, capsys, *SIMULATE)
    age = by_nodule(cohort, "age")
    assert [age[i] for i in range(COUNT)] == [50] * 12 + [80] * 12
    assert summary["values"]["label"]["simulated"] == COUNT
    old = cohort.table["age"] == 80
    logit = cohort.table["sim_record_logit"]
    assert logit[old].mean() - logit[~old].mean() > 30 * 0.02
    assert summary["ideal_auroc"] is not None


def test_what_would_contradict_what_is_kept_is_refused(source, capsys):
    complete(source)
    line = refused(source, capsys, *SIMULATE, "--replace", "label")
    assert "a drawn label would contradict; add followup to --replace" in line
    del source.arrays["followup_hu"]
    assert "have followup_SCT_LONG_DIA and no follow-up" in refused(source, capsys, *SIMULATE)
    words = ["--replace", "followup_SCT_LONG_DIA", "followup_SCT_PERP_DIA"]
    summary, _ = built(source, capsys, *SIMULATE, *words)
    assert summary["values"]["followup_SCT_LONG_DIA"]["replaced"] == COUNT
    assert summary["values"]["label"]["kept"] == COUNT


@pytest.mark.parametrize(("months", "reason"), [("", "is missing"), (0, "is 0")])
def test_months_of_an_own_follow_up_are_not_drawn_and_the_ways_out_work(
    source, capsys, months, reason
):
    complete(source)
    source.table = source.table.astype(object)
    source.arrays["has_followup"] = np.ones(COUNT, dtype=int)
    source.table.loc[[4], "months"] = months
    line = refused(source, capsys, *SIMULATE)
    assert f"months {reason} beside a follow-up in crops-n4; " in line
    assert "has_followup 0, or --simulate-followup --replace followup" in line
    built(source, capsys, *SIMULATE, "--replace", "followup", "months")
    source.out = source.folder / "D"
    source.arrays["has_followup"][4] = 0
    sizes = ["followup_SCT_LONG_DIA", "followup_SCT_PERP_DIA"]
    source.table.loc[[4], ["months", *sizes]] = ""
    summary, _ = built(source, capsys, *SIMULATE)
    assert summary["values"]["months"]["simulated"] == 1
    source.out = source.folder / "E"
    line = refused(source, capsys, *SIMULATE, "--replace", "months")
    assert "23 cases keep a follow-up of their own" in line


def test_replacing_has_a_name_and_a_use(source, capsys):
    assert "did you mean label?" in refused(source, capsys, *SIMULATE, "--replace", "lable")
    assert "--replace: without effect" in refused(source, capsys, "--replace", "label")


def test_impossible_values_are_refused_before_they_steer_the_simulation(source, capsys):
    source.table["age"] = [*[60] * 23, 999]
    assert "age is not within 0...120 in crops-n23" in refused(source, capsys, *SIMULATE)
    built(source, capsys, *SIMULATE, "--replace", "age")


def test_a_follow_up_of_its_own_spares_a_nodule_the_selection(source, capsys):
    complete(source)
    source.arrays["has_followup"] = np.arange(COUNT) % 2
    source.table["followup_SCT_LONG_DIA"] = source.table["followup_SCT_PERP_DIA"] = ""
    source.table.loc[[4, 5], "SCT_LONG_DIA"] = 40
    summary, cohort = built(source, capsys, *SIMULATE)
    assert summary["left_out"] == {"not 4-22 mm": 1}
    assert summary["left_out_cases"] == {"not 4-22 mm": ["n4"]}
    assert cohort.card["excluded_cases"] == summary["left_out_cases"]
    assert "crops-n5-r0" in set(cohort.table["case_id"])


# Columns, arrays and crops.


def test_what_is_not_used_is_named_on_the_screen_in_json_and_in_the_card(source, capsys):
    source.table["dose"] = source.table["texture"] = 1
    source.table["side"], source.table["z_frac"], source.table["n_readers"] = "R", 0.5, 4
    source.table["row"] = range(COUNT)
    source.table = source.table[:20]
    source.arrays["more"] = np.arange(3)
    source.arrays["votes"] = source.arrays["mask"].astype(np.uint8)
    summary, cohort = built(source, capsys)
    columns = ["dose", "n_readers", "side", "texture", "z_frac"]
    expected = {"columns": columns, "arrays": ["more", "votes"], "crops": 4}
    assert summary["unused"] == cohort.card["unused"] == expected
    assert main(["cohort", "card", str(source.out)]) == 0
    card = capsys.readouterr().out
    assert "columns dose, n_readers, side, texture, z_frac; arrays more, votes; 4 crops" in card
    source.out = source.folder / "D"
    assert source.build() == 0
    shown = capsys.readouterr().out
    assert "not used: columns dose, n_readers" in shown
    assert "not used: 4 crops that no line of the table names" in shown


def test_what_is_used_is_not_named(source, capsys):
    source.table["side"], source.table["z_frac"], source.table["n_readers"] = "R", 0.5, 4
    summary, _ = built(source, capsys, *SIMULATE)
    assert summary["unused"] == {"columns": [], "arrays": [], "crops": 0}


def test_what_deserves_a_look_is_a_warning_at_the_build_and_later(source, capsys):
    source.arrays["mask"][3] = False
    source.table["patient_id"] = ["P-11", "P1-1"] * 12
    source.table["split"] = ["train", "test"] * 12
    source.table["comment"] = "plain"
    source.table.loc[4, "comment"] = "one\ntwo"
    summary, _ = built(source, capsys)
    remark, mask, ids = summary["warnings"][-3:]
    assert "run over lines 6-7" in remark
    assert mask == "no pixel is marked as nodule in the mask of crops-n3"
    assert "other separators in more than one split: 'P-11' and 'P1-1'" in ids
    main(["cohort", "check", str(source.out), "--json"])
    checked = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert checked["warnings"] == [mask, ids]
    assert main(["cohort", "card", str(source.out)]) == 0
    assert remark in capsys.readouterr().out


def test_rows_over_several_lines_are_refused_if_crops_are_left(source, capsys):
    source.table["row"] = range(COUNT)
    source.table["comment"] = "plain"
    source.table.loc[4, "comment"] = "one\ntwo"
    source.table = source.table[:20]
    line = refused(source, capsys)
    assert "20 rows for 24 crops, and quoted fields of the table run over lines 6-7" in line
