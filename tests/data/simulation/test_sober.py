"""The law for sceptics, each claim of it beside the default law as the twin that fails it."""

import dataclasses

import numpy as np
import pytest
from scipy.special import logit

from namd.config.errors import ConfigError
from namd.data.building import simulation_settings
from namd.data.cohort import Cohort
from namd.data.simulation import simulate as simulation
from namd.data.simulation.change import SoberChange, draw, render
from namd.data.simulation.contour import diameters
from namd.data.simulation.figures import (
    record_share,
    recorded_change,
    truth_figures,
    warp_correlation,
)
from namd.data.simulation.ideal import redraw
from namd.data.simulation.settings import (
    ScanSettings,
    SecondSliceSettings,
    SignSettings,
    SimulationSettings,
    SoberSettings,
)
from namd.data.simulation.simulate import read_nodules, simulate

SOBER, DEFAULT = SoberSettings(), SimulationSettings(replicates=1)
SEED = 101

# McWilliams et al., N Engl J Med 2013;369:910-919, full model with spiculation, typed anew.
PUBLISHED = {
    "age": 0.0287,
    "female": 0.6011,
    "family": 0.2961,
    "emphysema": 0.2953,
    "part_solid": 0.377,
    "non_solid": -0.1276,
    "upper": 0.6581,
    "spiculation": 0.7729,
    "size": -5.3854,
}


@pytest.fixture(scope="module")
def sober(nodules):
    return simulate(nodules, SOBER, SEED)


@pytest.fixture(scope="module")
def default(nodules):
    return simulate(nodules, DEFAULT, SEED)


def published_logit(table):
    """Brock's log-odds without intercept, from the cohort's own columns."""
    mm = (table["SCT_LONG_DIA"] + table["SCT_PERP_DIA"]) / 2
    family = table[["famfather", "fammother", "fambrother", "famsister", "famchild"]].max(axis=1)
    values = {
        "age": table["age"] - 62,
        "female": table["gender"] == 2,
        "family": family > 0,
        "emphysema": table["diagemph"] == 1,
        "part_solid": table["SCT_PRE_ATT"] == 3,
        "non_solid": table["SCT_PRE_ATT"] == 2,
        "upper": table["SCT_EPI_LOC"].isin([1, 4, 5]),
        "spiculation": table["SCT_MARGINS"] == 1,
        "size": (mm / 10) ** -0.5 - 1.58113883,
    }
    return sum(PUBLISHED[name] * column.astype(float) for name, column in values.items())


def spread_of_intercept(cohort):
    """How far the cohort's log-odds are from the published terms plus one number."""
    rest = logit(cohort.table["sim_p"].astype(float)) - published_logit(cohort.table)
    return float(np.ptp(rest))


def test_brocks_terms_are_the_published_ones(sober, default):
    assert spread_of_intercept(sober) < 1e-4
    assert spread_of_intercept(default) > 1


def test_each_nodule_has_one_future(nodules, sober):
    assert len(sober) == len(nodules)
    assert sober.table["lesion_id"].is_unique
    repeated = simulate(nodules.select(np.arange(4)), SimulationSettings(), SEED)
    assert repeated.table["lesion_id"].value_counts().eq(4).all()


def test_a_second_future_and_terms_turned_up_are_refused():
    assert simulation_settings("sober", 1) == simulation_settings("sober", rendered=True) == SOBER
    with pytest.raises(ConfigError, match=r"replicates must be 1, got 4; .* marked"):
        simulation_settings("sober", 4)
    assert simulation_settings("marked", 4).replicates == 4
    for name in ("record_factor", "image_factor"):
        with pytest.raises(ConfigError, match=f"{name} must be 1, got 2"):
            simulation_settings("sober", None, [f"{name}=2.0"])
        simulation_settings("marked", None, [f"{name}=2.0"])


def test_settings_of_a_slice_belong_to_sober_alone():
    chosen = simulation_settings("sober", None, ["slice.breathing_sd=0.01"])
    assert chosen == SoberSettings(slice=SecondSliceSettings(breathing_sd=0.01))
    with pytest.raises(ConfigError, match="slice"):
        simulation_settings("marked", None, ["slice.breathing_sd=0.01"])
    with pytest.raises(ValueError, match="got 'sober'"):
        SimulationSettings(law="sober")
    with pytest.raises(ValueError, match="got 'nlst'"):
        SoberSettings(law="nlst")


@pytest.mark.parametrize(
    "wrong", [{"breathing_sd": 0.5}, {"level_mm": 0.0}, {"moved_mm": (9.0, 3.0)}]
)
def test_impossible_slices_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SecondSliceSettings(**wrong)


def test_the_lung_of_the_followup_is_no_warp_of_the_baselines(sober, default):
    rows = np.arange(0, len(sober), 6)
    assert abs(warp_correlation(sober, rows)) < 0.1
    assert warp_correlation(default, rows) > 0.5


def test_recorded_draws_replay_the_followup(sober):
    quiet = dataclasses.replace(SOBER, scan=ScanSettings(noise_hu=(0.0, 0.0)))
    rows = [3, 50, 90]
    for row, nodule in zip(rows, read_nodules(sober, rows), strict=True):
        change = recorded_change(sober, row)
        assert isinstance(change, SoberChange)
        noiseless = dataclasses.replace(change, noise_hu=0.0)
        again = render(quiet, nodule, noiseless, np.random.default_rng(0)).astype(float)
        noise = sober.followup[row] - again
        assert noise.std() == pytest.approx(change.noise_hu, rel=0.05)
        other = dataclasses.replace(noiseless, slice_seed=change.slice_seed + 1)
        away = sober.followup[row] - render(quiet, nodule, other, np.random.default_rng(0))
        assert away.std() > 1.1 * noise.std()


def test_breathing_scales_what_is_measured(sober):
    nodule = next(read_nodules(sober, [int(sober.table["SCT_LONG_DIA"].to_numpy().argmax())]))
    still = dataclasses.replace(
        draw(SOBER, nodule, 0, np.random.default_rng(1)), growth_ratio=1.0, rotation_deg=0.0
    )

    def longest(scale):
        change = dataclasses.replace(still, breathing_scale=scale)
        return diameters(simulation.follow_mask(nodule, change), nodule.spacing_mm)[0]

    assert longest(1.2) / longest(1.0) == pytest.approx(1.2, abs=0.06)
    assert longest(1.0) / longest(0.9) == pytest.approx(1 / 0.9, abs=0.06)
    scales = np.log(sober.table["sim_breathing_scale"].to_numpy(float))
    assert scales.std() == pytest.approx(SOBER.slice.breathing_sd, rel=0.25)
    assert abs(scales.mean()) < 0.01


def test_signs_are_half_as_strong_and_half_as_frequent(nodules):
    usual = SignSettings()
    assert SOBER.signs.strength == usual.strength / 2
    assert SOBER.signs.sensitivity == usual.sensitivity / 2
    assert SOBER.signs.false_rate == usual.false_rate
    added = {"sober": 0.0, "default": 0.0}
    for nodule in read_nodules(nodules, range(0, 40)):
        for name, settings in (("sober", SOBER), ("default", DEFAULT)):
            change = draw(settings, nodule, 1, np.random.default_rng(5))
            shown, plain = (
                render(
                    settings,
                    nodule,
                    dataclasses.replace(change, sign=sign, growth_ratio=1.0),
                    np.random.default_rng(6),
                ).astype(float)
                for sign in (1.0, 0.0)
            )
            added[name] += np.clip(shown - plain, 0, None).sum()
    assert 0.1 < added["sober"] / added["default"] < 0.6


def test_growth_is_nlsts(sober, nodules):
    nlst = simulate(nodules, SimulationSettings(law="nlst", replicates=1), SEED)
    same = sober.table["label"] == nlst.table["label"]
    ratios = [cohort.table["sim_growth_ratio"][same] for cohort in (sober, nlst)]
    assert np.allclose(*ratios)


def labels_by_p(nodules, settings, monkeypatch, seeds=60):
    """p and labels of many simulations of which no image is drawn."""
    blank = np.zeros_like(nodules.baseline)
    monkeypatch.setattr(simulation, "_draw_followups", lambda _cohort, table, *_: (table, blank))
    tables = [simulate(nodules, settings, seed).table for seed in range(seeds)]
    return (np.concatenate([table[name] for table in tables]) for name in ("sim_p", "label"))


def test_p_is_the_frequency_of_the_label_over_many_draws(nodules, monkeypatch):
    p, label = labels_by_p(nodules, SOBER, monkeypatch)
    quintile = np.searchsorted(np.quantile(p, [0.2, 0.4, 0.6, 0.8]), p)

    def worst(claimed):
        away = []
        for part in range(5):
            inside = quintile == part
            error = np.sqrt(np.sum(claimed[inside] * (1 - claimed[inside]))) / inside.sum()
            away.append(abs(label[inside].mean() - claimed[inside].mean()) / error)
        return max(away)

    assert worst(p) < 3.5
    # A probability that is a little bolder, with the same mean, is found out.
    bolder = p**1.3 * p.mean() / (p**1.3).mean()
    assert worst(bolder) > 5


def flipped(cohort):
    return dataclasses.replace(cohort, table=cohort.table.assign(label=1 - cohort.table["label"]))


def test_the_ideal_sampler_reads_neither_label_nor_followup(sober):
    index = np.arange(30)
    drawn = redraw(sober, index, 3, 0)
    assert np.array_equal(drawn, redraw(flipped(sober), index, 3, 0))
    blind = dataclasses.replace(sober, followup=np.zeros_like(sober.followup))
    assert np.array_equal(drawn, redraw(blind, index, 3, 0))

    def peeking(cohort):
        labels = cohort.table["label"].to_numpy(dtype=int)
        rng = np.random.default_rng(0)
        nodules = enumerate(read_nodules(cohort, index))
        changes = [draw(SOBER, nodule, int(labels[row]), rng) for row, nodule in nodules]
        return [change.growth_ratio for change in changes]

    assert peeking(sober) != peeking(flipped(sober))


def test_the_ideal_sampler_draws_label_growth_slice_and_breath_anew(sober):
    first, second = redraw(sober, [8, 9], 3, 0), redraw(sober, [8, 9], 3, 1)
    assert not np.array_equal(first, second)
    assert np.array_equal(first[1], redraw(sober, [9], 3, 0)[0])
    grown = {}
    for p in (0.0, 1.0):
        likely = dataclasses.replace(sober, table=sober.table.assign(sim_p=p))
        drawn = redraw(likely, np.arange(60), 1, 0)
        grown[p] = (drawn > -400).sum(axis=(1, 2)).mean()
    assert grown[1.0] > 1.1 * grown[0.0]


def test_a_sober_cohort_survives_the_disk_and_redraws_the_same(sober, tmp_path):
    part = sober.select(np.arange(8))
    part.write(tmp_path / "C")
    back = Cohort.read(tmp_path / "C")
    assert back.card["simulation"]["settings"]["law"] == "sober"
    assert np.array_equal(redraw(back, range(8), 3, 0), redraw(part, range(8), 3, 0))
    assert recorded_change(back, 5) == recorded_change(part, 5)


def test_what_sceptics_ask_for_is_answered_from_the_cohort(sober, default):
    ours, usual = truth_figures(sober, 20), truth_figures(default, 20)
    assert (ours.law, usual.law) == ("sober", "marked")
    assert ours.odds_ratios["female"] == pytest.approx(np.exp(0.6011))
    assert usual.odds_ratios["female"] == pytest.approx(np.exp(3 * 0.6011))
    assert ours.record_share < 0.4 < usual.record_share
    assert ours.futures_per_nodule == 1
    assert abs(ours.warp_correlation) < 0.15 < 0.5 < usual.warp_correlation
    label, p = sober.table["label"].to_numpy(), sober.table["sim_p"].to_numpy()
    pairs = p[label == 1][:, None] - p[label == 0][None, :]
    assert ours.auroc_p == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


def test_shares_of_record_and_image_add_up_to_the_whole(default):
    table = default.table
    swapped = table.assign(
        sim_record_logit=table["sim_image_logit"], sim_image_logit=table["sim_record_logit"]
    )
    settings = SimulationSettings(image_factor=1.0, record_factor=1.0)
    assert record_share(table, settings) + record_share(swapped, settings) == pytest.approx(1.0)
