"""Laws of the share of the ideal sampler's gain, at several draws and with an interval."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from namd.config.seeding import generator
from namd.evaluate.ideal_share import draw_blocks, share_of_ideal
from namd.evaluate.rendering import to_csv, to_markdown, to_text
from namd.evaluate.settings import EvaluateSettings
from namd.evaluate.table import RowScores, build_table
from tests.evaluate.test_table import frame, make_cases

LEVEL = 0.95


def replicates(value, spread=0.01, seed=0, count=4000):
    random = generator("test-share", seed)
    return np.concatenate([[value], value + spread * random.normal(size=count)])


def test_blocks_are_means_of_consecutive_draws_and_leave_the_rest():
    values = np.arange(12.0)[:, None] * np.ones((1, 3))
    blocks = draw_blocks(values)
    assert list(blocks) == [5, 10]
    assert blocks[5][:, 0].tolist() == [2.0, 7.0]
    assert blocks[10][:, 0].tolist() == [4.5]
    assert draw_blocks(values[:1]) == {}
    assert list(draw_blocks(values[:5])) == []  # all five are no block: they are the mean


def test_the_interval_is_of_the_ratio_and_pairs_numerator_and_denominator():
    ideal = replicates(0.74, seed=1)
    row = {1: ideal - 0.02, 20: 0.6 + 0.5 * (ideal - 0.6)}
    share = share_of_ideal(row, {1: ideal, 20: ideal}, np.full_like(ideal, 0.6), None, LEVEL)
    assert share.value == pytest.approx(0.5)
    assert (share.low, share.high) == (pytest.approx(0.5), pytest.approx(0.5))
    apart = {1: ideal, 20: replicates(0.67, seed=2)}
    free = share_of_ideal(apart, {1: ideal, 20: ideal}, np.full_like(ideal, 0.6), None, LEVEL)
    assert free.low < 0.4 < free.value < 0.6 < free.high


def test_a_share_of_a_gain_that_may_be_none_has_no_bounds():
    baseline, row = np.full(4001, 0.6), {1: replicates(0.6), 20: replicates(0.65)}
    clear = {1: replicates(0.7, 0.01), 20: replicates(0.7, 0.01)}
    unclear = {1: replicates(0.7, 0.06), 20: replicates(0.7, 0.06)}
    assert share_of_ideal(row, clear, baseline, None, LEVEL).low is not None
    found = share_of_ideal(row, unclear, baseline, None, LEVEL)
    assert (found.low, found.high) == (None, None)
    assert found.value == pytest.approx(0.5)


def test_judges_widen_the_bounds_by_what_moves_their_share_alone():
    ideal = replicates(0.74, seed=1)
    row, base = 0.6 + 0.5 * (ideal - 0.6), np.full_like(ideal, 0.6)

    def share(*shifts, patients=60):
        rows, ideals = (
            np.stack([part + shift[i] for shift in shifts]) for i, part in enumerate((row, ideal))
        )
        baseline = np.stack([base] * len(shifts))
        return share_of_ideal(
            {1: rows, 20: rows}, {1: ideals, 20: ideals}, baseline, None, LEVEL, patients
        )

    alike = share((0, 0), (0, 0), (0, 0))
    assert alike.value == pytest.approx(0.5)
    assert (alike.low, alike.high) == (pytest.approx(0.5), pytest.approx(0.5))
    scaled = share((0, 0), (0.01, 0.02), (-0.01, -0.02))
    assert (scaled.low, scaled.high) == (pytest.approx(0.5), pytest.approx(0.5))
    apart = share((0, 0), (0.01, 0), (-0.01, 0))
    assert apart.value == pytest.approx(0.5)
    assert apart.low < 0.45 < 0.55 < apart.high
    unclear = share((0, 0), (0, 0.2), (0, -0.2))
    assert (unclear.low, unclear.high) == (None, None)
    assert unclear.value == pytest.approx(0.5)
    assert [entry.num_draws for entry in apart.by_draws] == [1, 20]
    assert apart.by_draws[1].share["low"] == apart.low


def test_blocks_of_an_ensemble_of_logits_are_means_of_logits():
    values = np.linspace(0.05, 0.95, 12)[:, None] * np.ones((1, 3))
    logits = np.log(values[:5] / (1 - values[:5])).mean(axis=0)
    block = draw_blocks(values, "logit")[5][0]
    np.testing.assert_allclose(np.log(block / (1 - block)), logits)
    assert not np.allclose(block, draw_blocks(values)[5][0])


@pytest.fixture(scope="module")
def table():
    cases = make_cases()
    rows = {
        "real_baseline": RowScores(frame(cases, 1, 0.5, 1)),
        "real_followup": RowScores(frame(cases, 1, 2.5, 2)),
        "ideal_predictor": RowScores(frame(cases, 1, 3.0, 5)),
        "ideal_sampler": RowScores(frame(cases, 20, 1.2, 3, noise=2.0)),
        "namd": RowScores(frame(cases, 20, 1.0, 4, noise=2.0)),
    }
    settings = EvaluateSettings(num_bootstrap=100)
    return build_table(rows, cases, settings, simulated=True), rows, cases


def test_the_table_has_the_share_at_1_5_10_and_20_draws(table):
    built, rows, cases = table
    found = built.row("namd").share_of_ideal.by_draws
    assert [entry.num_draws for entry in found] == [1, 5, 10, 20]
    wide = {
        name: row.frame.pivot(index="k", columns="case_id", values="score").to_numpy()
        for name, row in rows.items()
    }

    def auroc(values):
        return roc_auc_score(cases["label"], values)

    def at(name, k):
        values = wide[name]
        blocks = [values[i : i + k].mean(axis=0) for i in range(0, len(values) - k + 1, k)]
        return np.mean([auroc(block) for block in blocks])

    base, predictor = auroc(wide["real_baseline"][0]), auroc(wide["ideal_predictor"][0])
    for entry in found:
        row, ideal = at("namd", entry.num_draws), at("ideal_sampler", entry.num_draws)
        assert entry.auroc == pytest.approx(row)
        assert entry.share["value"] == pytest.approx((row - base) / (ideal - base))
        assert entry.gap_to_predictor["value"] == pytest.approx(row - predictor)
        assert entry.gap_to_predictor["low"] < entry.gap_to_predictor["value"]
    assert found[0].auroc + 0.02 < found[-1].auroc  # averaging noise away ranks better
    whole = built.row("namd").share_of_ideal
    assert (whole.value, whole.low) == (found[-1].share["value"], found[-1].share["low"])
    assert built.row("real_followup").share_of_ideal.by_draws == ()


def test_it_is_shown_wherever_the_table_is(table):
    built, *_ = table
    for shown in (to_text(built, 250), to_markdown(built)):
        assert "K = 5" in shown
        assert "minus ideal predictor" in shown
    assert "share_of_ideal.by_draws.1.share.value" in to_csv(built).splitlines()[0]
