import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from namd.config.errors import InputError
from namd.data.cohort import Cohort
from namd.data.simulation.change import Change, draw, render
from namd.data.simulation.ideal import redraw
from namd.data.simulation.settings import RecordSettings, ScanSettings, SimulationSettings
from namd.data.simulation.simulate import read_nodules, simulate

SETTINGS = SimulationSettings(replicates=3)
SEED = 101


@pytest.fixture(scope="module")
def simulated(nodules):
    return simulate(nodules, SETTINGS, SEED)


def by_case(cohort):
    return cohort.table.set_index("case_id")


def flipped(cohort):
    return dataclasses.replace(cohort, table=cohort.table.assign(label=1 - cohort.table["label"]))


def test_every_nodule_is_repeated_under_its_patient_and_split(nodules, simulated):
    assert len(simulated) == 3 * len(nodules)
    assert simulated.table["case_id"].is_unique
    assert simulated.table.groupby("patient_id")["split"].nunique().max() == 1
    assert set(simulated.table["patient_id"]) == set(nodules.table["patient_id"])
    assert simulated.has_followup.all()


def test_prevalence_is_solved(simulated):
    assert simulated.table["sim_p"].mean() == pytest.approx(0.15, abs=1e-5)
    bare = 0.15 - simulated.table["label"].mean()
    assert abs(bare) < 3 * np.sqrt(0.15 * 0.85 / len(simulated))


def test_labels_are_the_recorded_uniform_below_p(simulated):
    table = simulated.table
    assert (table["label"] == (table["sim_label_uniform"] < table["sim_p"])).all()


def test_follow_ups_lie_about_a_year_after_their_baselines(simulated):
    months = simulated.table["months"]
    assert months.mean() == pytest.approx(12.0, abs=0.3)
    assert months.between(12 - 2.5 * 0.7 - 1e-3, 12 + 2.5 * 0.7 + 1e-3).all()
    assert months.nunique() > 10


def test_the_card_holds_the_ceilings_and_the_settings(simulated):
    ceilings = simulated.card["simulation"]["ideal_auroc"]
    for split, cases in simulated.table.groupby("split"):
        if cases["label"].nunique() == 2:
            expected = roc_auc_score(cases["label"], cases["sim_p"])
            assert ceilings[split] == pytest.approx(expected, abs=1e-12)
    assert ceilings["train"] is not None
    assert simulated.card["simulation"]["settings"]["law"] == "marked"


def test_the_same_seed_gives_the_same_cohort_and_another_does_not(nodules, simulated):
    again, other = simulate(nodules, SETTINGS, SEED), simulate(nodules, SETTINGS, SEED + 1)
    assert again.table.equals(simulated.table)
    assert np.array_equal(again.followup, simulated.followup)
    assert not other.table["age"].equals(simulated.table["age"])
    assert not np.array_equal(other.followup, simulated.followup)


def test_draws_depend_on_the_case_and_not_on_order_or_company(nodules, simulated):
    part = simulate(nodules.select(np.array([30, 4, 17])), SETTINGS, SEED)
    whole = by_case(simulated)
    drawn = ["age", "gender", "SCT_EPI_LOC", "months", "sim_label_uniform", "sim_growth_quantile"]
    assert by_case(part)[drawn].equals(whole.loc[part.table["case_id"], drawn])
    # The intercept is solved for the cohort at hand, and p with it.
    assert not by_case(part)["sim_p"].equals(whole.loc[part.table["case_id"], "sim_p"])


def test_recorded_draws_replay_the_geometry(simulated):
    rows = [0, 50, 200]
    names = [field.name for field in dataclasses.fields(Change)]
    quiet = dataclasses.replace(SETTINGS, scan=ScanSettings(noise_hu=(0.0, 0.0)))
    for row, nodule in zip(rows, read_nodules(simulated, rows), strict=True):
        recorded = {name: float(simulated.table[f"sim_{name}"][row]) for name in names}
        rng = np.random.default_rng(0)
        replayed = render(quiet, nodule, Change(**recorded | {"noise_hu": 0.0}), rng).astype(float)
        noise = simulated.followup[row] - replayed
        assert noise.std() == pytest.approx(recorded["noise_hu"], rel=0.05)
        moved = Change(**recorded | {"noise_hu": 0.0, "shift_row_mm": 4.0})
        assert (simulated.followup[row] - render(quiet, nodule, moved, rng)).std() > noise.std() * 2


def test_p_is_the_logistic_of_what_the_scan_and_the_record_say(nodules):
    factors = dataclasses.replace(SETTINGS, image_factor=0.8, record_factor=1.7)
    made = simulate(nodules, factors, SEED)
    image, record = (made.table[f"sim_{name}_logit"].to_numpy() for name in ("image", "record"))
    logit = made.card["simulation"]["intercept"] + 0.8 * image + 1.7 * record
    np.testing.assert_allclose(made.table["sim_p"], 1 / (1 + np.exp(-logit)), rtol=1e-4)
    assert record.std() > 0.1


def test_signs_mark_malignant_nodules_at_their_sensitivity(simulated):
    shown = simulated.table.groupby("label")["sim_sign"].mean()
    assert shown[1] == pytest.approx(SETTINGS.signs.sensitivity, abs=0.2)
    assert shown[0] == pytest.approx(SETTINGS.signs.false_rate, abs=0.1)


def test_a_redraw_reads_the_p_of_its_own_case(simulated):
    sure = dataclasses.replace(
        simulated, table=simulated.table.assign(sim_p=np.arange(len(simulated)) % 2 * 1.0)
    )
    whole = redraw(sure, np.arange(6), 3, 0)
    for rows in ([1], [5, 0], [3, 4]):
        assert np.array_equal(redraw(sure, rows, 3, 0), whole[rows])


def test_malignant_followups_grow_and_their_diameters_are_measured_anew(simulated):
    table = simulated.table
    change = table["followup_SCT_LONG_DIA"] / table["SCT_LONG_DIA"]
    assert np.corrcoef(change, table["sim_growth_ratio"])[0, 1] > 0.9
    assert change[table["label"] == 1].median() > change[table["label"] == 0].median() + 0.1


def test_redraws_never_read_the_label_and_a_redraw_that_does_is_caught(simulated):
    index = np.arange(40)
    assert np.array_equal(redraw(simulated, index, 3, 0), redraw(flipped(simulated), index, 3, 0))

    def peeking(cohort):
        labels = cohort.table["label"].to_numpy(dtype=int)
        rng = np.random.default_rng(0)
        return np.stack(
            [
                render(SETTINGS, nodule, draw(SETTINGS, nodule, int(labels[row]), rng), rng)
                for row, nodule in enumerate(read_nodules(cohort, index))
            ]
        )

    assert not np.array_equal(peeking(simulated), peeking(flipped(simulated)))


def test_redraws_never_read_the_followup(simulated):
    blind = dataclasses.replace(simulated, followup=np.zeros_like(simulated.followup))
    assert np.array_equal(redraw(simulated, [5, 9], 3, 1), redraw(blind, [5, 9], 3, 1))


def test_a_redraw_depends_on_seed_case_and_k_alone(simulated):
    together = redraw(simulated, [7, 3, 11], 3, 2)
    assert np.array_equal(together[1], redraw(simulated, [3], 3, 2)[0])
    assert not np.array_equal(together, redraw(simulated, [7, 3, 11], 3, 4))
    assert not np.array_equal(together, redraw(simulated, [7, 3, 11], 4, 2))


def test_redraws_are_malignant_as_often_as_p_says(simulated):
    def share(probability):
        likely = simulated.table.assign(sim_p=probability)
        cohort = dataclasses.replace(simulated, table=likely)
        grown = redraw(cohort, np.arange(60), 1, 0).astype(float) - simulated.baseline[:60]
        return np.clip(grown, 0, None).mean()

    assert share(1.0) > 1.5 * share(0.0)


def test_lobes_are_missing_only_on_request(nodules, simulated):
    assert simulated.table["SCT_EPI_LOC"].notna().all()
    asked = dataclasses.replace(SETTINGS, record=RecordSettings(missing_lobe=0.4))
    table = simulate(nodules, asked, SEED).table
    assert table["SCT_EPI_LOC"].isna().mean() == pytest.approx(0.4, abs=0.1)
    assert table["sim_lobe"].notna().all()


def test_a_simulated_cohort_survives_the_disk_and_redraws_the_same(simulated, tmp_path):
    simulated.write(tmp_path / "cohort")
    back = Cohort.read(tmp_path / "cohort")
    here = {case: row for row, case in enumerate(simulated.table["case_id"])}
    rows = [here[case] for case in back.table["case_id"][:10]]
    assert np.array_equal(redraw(back, range(10), 3, 0), redraw(simulated, rows, 3, 0))


def test_cases_without_a_border_or_size_are_refused_by_name(nodules):
    few = nodules.select(np.arange(4))
    simulate(few, SETTINGS, SEED)
    mask = few.mask.copy()
    mask[2] = 0
    with pytest.raises(InputError, match="n002"):
        simulate(dataclasses.replace(few, mask=mask), SETTINGS, SEED)
    unsized = few.table.assign(SCT_LONG_DIA=[8.0, np.nan, 8.0, 8.0])
    with pytest.raises(InputError, match="n001"):
        simulate(dataclasses.replace(few, table=unsized), SETTINGS, SEED)


def test_a_cohort_that_was_not_simulated_cannot_be_redrawn(nodules):
    with pytest.raises(InputError, match="simulate-followup"):
        redraw(nodules, [0], 1, 0)
