"""Laws of the result table: paired rows, per draw against mean of draws, what is absent."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from namd.config.seeding import generator
from namd.evaluate.rendering import to_csv, to_markdown, to_text
from namd.evaluate.scores import SetMetrics, plain_scores
from namd.evaluate.settings import EvaluateSettings
from namd.evaluate.table import RowScores, build_table

SETTINGS = EvaluateSettings(num_bootstrap=200)


def make_cases(num_patients=80, per_patient=3):
    random = generator("test-table", 0)
    count = num_patients * per_patient
    p = random.beta(1, 3, size=count)
    return pd.DataFrame(
        {
            "case_id": [f"c{i:04d}" for i in range(count)],
            "patient_id": np.repeat([f"p{i}" for i in range(num_patients)], per_patient),
            "label": (random.random(count) < p).astype(float),
            "followup_SCT_LONG_DIA": random.uniform(5, 20, count),
            "sim_p": p,
        }
    )


def frame(cases, num_draws, signal, seed, noise=1.0):
    random = generator("test-row", seed)
    parts = []
    for k in range(num_draws):
        logit = signal * cases["label"] - 1 + noise * random.normal(size=len(cases))
        probability = 1 / (1 + np.exp(-logit))
        drawn = cases["followup_SCT_LONG_DIA"] + random.normal(size=len(cases))
        parts.append(
            pd.DataFrame(
                {
                    "case_id": cases["case_id"],
                    "k": k,
                    "score": probability,
                    "probability": probability,
                    "ssim": 0.7,
                    "psnr": 20.0 + k,
                    "lpips": np.nan,
                    "diameter_mm": drawn,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def cases():
    return make_cases()


@pytest.fixture(scope="module")
def rows(cases):
    twin = frame(cases, 5, 0.8, 4)
    sets = [SetMetrics(k, fid_judge=1.0 + k, kid_judge=0.1) for k in range(5)]
    return {
        "real_baseline": RowScores(frame(cases, 1, 0.5, 1)),
        "real_followup": RowScores(frame(cases, 1, 2.5, 2)),
        "ideal_predictor": RowScores(
            plain_scores(cases["case_id"].to_numpy(), cases["sim_p"].to_numpy())
        ),
        "ideal_sampler": RowScores(frame(cases, 5, 1.0, 3)),
        "namd": RowScores(twin, sets, "NAMD"),
        "namd_again": RowScores(twin.sample(frac=1, random_state=0), sets),
    }


@pytest.fixture(scope="module")
def table(rows, cases):
    return build_table(rows, cases, SETTINGS, simulated=True)


def test_values_are_scikit_learns_per_draw_and_for_the_mean_of_draws(table, rows, cases):
    wide = rows["namd"].frame.pivot(index="k", columns="case_id", values="score").to_numpy()
    labels = cases["label"]
    per_draw = [roc_auc_score(labels, draw) for draw in wide]
    row = table.row("namd")
    assert row.auroc_per_draw.mean == pytest.approx(np.mean(per_draw))
    assert row.auroc_per_draw.std == pytest.approx(np.std(per_draw, ddof=1))
    assert row.auroc_per_draw.std_population == pytest.approx(np.std(per_draw))
    of_mean = roc_auc_score(labels, wide.mean(axis=0))
    assert row.auroc.mean == pytest.approx(of_mean)
    assert of_mean > np.mean(per_draw) + 0.02  # averaging independent noise ranks better
    expected = np.mean([average_precision_score(labels, draw) for draw in wide])
    assert row.auprc_per_draw.mean == pytest.approx(expected, abs=1e-6)


def test_one_draw_has_no_spread_and_both_aurocs_agree(table):
    row = table.row("real_followup")
    assert row.auroc_per_draw.std is None
    assert row.auroc_per_draw.mean == row.auroc.mean
    assert row.auroc_per_draw.low < row.auroc_per_draw.mean < row.auroc_per_draw.high
    assert table.row("namd").auroc_per_draw.std is not None


def test_rows_are_paired(table):
    baseline = table.row("real_baseline")
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert all(d == zero for d in baseline.difference_to_baseline.values())
    one, other = table.row("namd"), table.row("namd_again")
    assert one.auroc == other.auroc
    assert one.difference_to_baseline["auroc"]["low"] != 0.0


def test_gap_and_share_of_ideal_are_the_stated_ratios(table):
    row, base = table.row("namd"), table.row("real_baseline")
    follow, ideal = table.row("real_followup"), table.row("ideal_sampler")
    gap = (row.auroc_per_draw.mean - base.auroc_per_draw.mean) / (
        follow.auroc_per_draw.mean - base.auroc_per_draw.mean
    )
    assert row.gap_recovered_per_draw == pytest.approx(gap)
    assert follow.gap_recovered_per_draw == follow.gap_recovered == pytest.approx(1.0)
    numerator = row.auroc.mean - base.auroc.mean
    whole = ideal.auroc.mean - base.auroc.mean
    assert row.share_of_ideal.value == pytest.approx(numerator / whole)
    assert ideal.share_of_ideal.value == pytest.approx(1.0)
    assert row.share_of_ideal.numerator["low"] < numerator < row.share_of_ideal.numerator["high"]
    for name in ("namd", "ideal_sampler", "real_followup"):
        found = table.row(name)
        assert found.share_of_ideal.numerator == found.difference_to_baseline["auroc"]


def test_faithfulness_separates_a_calibrated_row_from_a_narrow_one(rows, cases):
    narrow = rows["ideal_sampler"].frame.copy()
    centre = narrow.groupby("case_id")["diameter_mm"].transform("mean")
    narrow["diameter_mm"] = centre + 0.1 * (narrow["diameter_mm"] - centre)
    settings = replace(SETTINGS, coverage=0.6)
    table = build_table({**rows, "narrow": RowScores(narrow)}, cases, settings, simulated=True)
    honest, squeezed = table.row("ideal_sampler").diameter, table.row("narrow").diameter
    assert honest.rule.coverage["value"] == pytest.approx(0.6, abs=0.1)
    assert squeezed.rule.coverage["value"] < 0.3
    assert squeezed.rule.crps_mm["value"] > honest.rule.crps_mm["value"]
    assert honest.table.crps_mm["value"] < honest.rule.crps_mm["value"]
    quintiles = table.row("ideal_sampler").quintiles
    assert [q.cases for q in quintiles] == [48] * 5
    assert all(q.mean == q.ideal for q in quintiles)
    assert any(q.mean != q.ideal for q in table.row("namd").quintiles)


def test_the_order_of_the_cases_does_not_matter(rows, cases, table):
    shuffled = cases.sample(frac=1, random_state=0)
    again = build_table(rows, shuffled, SETTINGS, simulated=True)
    for name in ("real_baseline", "namd"):
        assert again.row(name).auroc.mean == pytest.approx(table.row(name).auroc.mean)
        bias = table.row(name).diameter.table.bias_mm
        assert again.row(name).diameter.table.bias_mm == pytest.approx(bias)


def test_a_case_that_one_draw_has_not_scored_is_left_out(rows, cases):
    holed = rows["namd"].frame.copy()
    missing = (holed["case_id"] == "c0010") & (holed["k"] == 2)
    holed.loc[missing, "score"] = np.nan
    table = build_table({**rows, "namd": RowScores(holed)}, cases, SETTINGS, simulated=True)
    assert table.cases == len(cases) - 1
    assert np.isfinite(table.row("namd").auroc_per_draw.mean)


def test_small_nodules_that_vanish_or_widen_are_distinguished_from_those_that_do_not(rows, cases):
    few = cases.assign(SCT_LONG_DIA=np.where(np.arange(len(cases)) % 4 == 0, 5.0, 9.0))
    small = few["case_id"][few["SCT_LONG_DIA"] < 6]
    wide = rows["ideal_sampler"].frame.copy()
    wide.loc[wide["case_id"].isin(small), "diameter_mm"] += 1.0
    large = rows["ideal_sampler"].frame.copy()
    large.loc[~large["case_id"].isin(small), "diameter_mm"] += 1.0
    gone = rows["ideal_sampler"].frame.copy()
    gone.loc[gone["case_id"].isin(small) & (gone["k"] == 0), "diameter_mm"] = np.nan
    truth = rows["real_followup"].frame.copy()
    truth["diameter_mm"] = truth["case_id"].map(few.set_index("case_id")["followup_SCT_LONG_DIA"])
    frames = {"wide": wide, "large": large, "gone": gone, "real_followup": truth}
    everything = {**rows, **{name: RowScores(found) for name, found in frames.items()}}
    table = build_table(everything, few, SETTINGS, simulated=True)
    plain = table.row("ideal_sampler").diameter.small
    assert (plain.below_mm, plain.cases, plain.unmeasured) == (6.0, len(small), 0.0)
    assert plain.bias_mm["low"] < 0 < plain.bias_mm["high"]
    found = {name: table.row(name).diameter.small for name in ("wide", "large", "gone")}
    assert found["wide"].bias_mm["value"] == pytest.approx(plain.bias_mm["value"] + 1)
    assert found["large"].bias_mm["value"] == plain.bias_mm["value"]
    assert found["gone"].unmeasured == pytest.approx(1 / 5)
    assert "bias mm, baseline < 6 mm" in to_markdown(table)
    unknown = build_table(everything, few.drop(columns="SCT_LONG_DIA"), SETTINGS, simulated=True)
    assert unknown.row("wide").diameter.small is None


def test_missing_weights_give_none_and_a_note(table):
    row = table.row("namd")
    assert row.lpips is None
    assert row.fid is None
    assert row.fid_judge == pytest.approx(3.0)
    assert row.psnr == pytest.approx(22.0)
    assert any("LPIPS" in note for note in table.notes)
    assert any("FID" in note for note in table.notes)
    assert table.row("ideal_predictor").diameter is None


def test_cases_without_label_or_score_are_left_out_of_every_row(rows, cases):
    fewer = cases.copy()
    fewer.loc[:4, "label"] = np.nan
    holed = rows["namd"].frame.copy()
    holed.loc[holed["case_id"] == "c0010", "score"] = np.nan
    table = build_table({**rows, "namd": RowScores(holed)}, fewer, SETTINGS, simulated=True)
    assert table.cases == len(cases) - 6
    assert any("6 cases" in note for note in table.notes)
    one_class = cases.assign(label=0.0)
    table = build_table(rows, one_class, SETTINGS, simulated=False)
    assert table.row("namd").auroc_per_draw.mean is None
    assert any("one class" in note for note in table.notes)


def test_it_is_json_and_says_simulated_wherever_it_is_shown(table, rows, cases):
    plain = json.loads(json.dumps(table.to_mapping(), allow_nan=False))
    names = {"row", "num_draws", "auroc", "auprc", "lpips", "fid", "gap_recovered"}
    assert names <= set(plain["rows"][0])
    assert (plain["interval"], plain["level"]) == ("patient bootstrap", SETTINGS.interval)
    assert {"mean", "std", "low", "high"} <= set(plain["rows"][0]["auroc_per_draw"])
    for shown in (to_text(table), to_markdown(table), to_csv(table)):
        assert "simulated" in shown.lower()
        assert "namd" in shown.lower()
    real = build_table(rows, cases.drop(columns="sim_p"), SETTINGS, simulated=False)
    assert "simulated" not in (to_text(real) + to_markdown(real)).lower()
    assert "Research use only" in to_text(real)


def judged_anew(rows, cases, seed, sway, noise=0.0):
    """The rows as a judge of another seed scores them: each judge has a leaning of its own."""
    random = generator("test-further-judge", seed)
    leaning = {case: sway * random.normal() for case in cases["case_id"]}

    def scored(row):
        logit = np.log(row.frame["score"] / (1 - row.frame["score"]))
        logit = logit + row.frame["case_id"].map(leaning) + noise
        return row.frame[["case_id", "k"]].assign(score=1 / (1 + np.exp(-logit)))

    return {
        name: replace(row, further=(*row.further, scored(row)))
        if row.frame["probability"].notna().any()
        else row
        for name, row in rows.items()
    }


def test_values_are_means_over_judges_and_judges_widen_the_intervals(rows, table, cases):
    several = rows
    for seed in range(2):
        several = judged_anew(several, cases, seed, sway=3.0)
    found = build_table(several, cases, SETTINGS, simulated=True)
    assert found.interval == "patients x judges"
    assert any("means over 3 judges" in note for note in found.notes)
    labels = cases["label"].to_numpy()
    row = several["namd"]
    of_mean = [
        roc_auc_score(
            labels,
            each.pivot(index="k", columns="case_id", values="score")[cases["case_id"]].mean(axis=0),
        )
        for each in (row.frame, *row.further)
    ]
    assert found.row("namd").auroc.mean == pytest.approx(np.mean(of_mean))

    def width(of, name="namd"):
        return of.row(name).auroc.high - of.row(name).auroc.low

    assert width(found) > 1.5 * width(table)
    share = found.row("namd").share_of_ideal
    assert share.numerator == found.row("namd").difference_to_baseline["auroc"]
    assert share.denominator == found.row("ideal_sampler").difference_to_baseline["auroc"]
    assert share.by_draws[-1].auroc == pytest.approx(found.row("namd").auroc.mean)
    # What no judge scores has the value it had, and the same judges score every other row.
    assert found.row("ideal_predictor").auroc.mean == pytest.approx(
        table.row("ideal_predictor").auroc.mean
    )
    assert width(found, "ideal_predictor") == pytest.approx(
        width(table, "ideal_predictor"), rel=0.2
    )
    assert found.row("real_baseline").difference_to_baseline["auroc"]["high"] == 0
    assert found.row("namd").auroc == found.row("namd_again").auroc


def test_judges_that_rank_alike_leave_the_intervals_alone(rows, table, cases):
    alike = judged_anew(judged_anew(rows, cases, 0, sway=0.0), cases, 1, sway=0.0, noise=0.5)
    found = build_table(alike, cases, SETTINGS, simulated=True)
    one, other = table.row("namd").auroc_per_draw, found.row("namd").auroc_per_draw
    assert other.mean == pytest.approx(one.mean)
    assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.2)


def test_an_ensemble_of_logits_is_another_score_of_the_mean_alone(rows, table, cases):
    logits = build_table(rows, cases, replace(SETTINGS, ensemble="logit"), simulated=True)
    wide = rows["namd"].frame.pivot(index="k", columns="case_id", values="score").to_numpy()
    mean = np.log(wide / (1 - wide)).mean(axis=0)
    assert logits.row("namd").auroc.mean == pytest.approx(roc_auc_score(cases["label"], mean))
    assert logits.row("namd").auroc.mean != table.row("namd").auroc.mean
    assert logits.row("namd").auroc_per_draw == table.row("namd").auroc_per_draw
    # A predictor's values are no probabilities, and one draw is its own mean.
    assert logits.row("ideal_predictor").auroc == table.row("ideal_predictor").auroc
    assert any("logits" in note for note in logits.notes)
    assert not any("logits" in note for note in table.notes)


def test_the_deviation_that_is_shown_is_the_one_asked_for(rows, table, cases):
    population = build_table(rows, cases, replace(SETTINGS, deviation="population"), simulated=True)
    spread = table.row("namd").auroc_per_draw
    assert f"{spread.std:.3f}" != f"{spread.std_population:.3f}"
    for found, value, ddof in ((table, spread.std, 1), (population, spread.std_population, 0)):
        assert f"{spread.mean:.3f} +- {value:.3f}" in to_markdown(found)
        assert f"ddof {ddof}" in to_text(found)
