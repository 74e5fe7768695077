"""Effects and interactions: recovered where they are known, over the seeds and arms that count."""

import csv
import io
import itertools
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from made_study import MadeCohort, MadeStudy, ablation, made_ablation
from scipy.stats import norm

from analysis.study_effects import design_effects, effect_name
from analysis.study_measures import Measured, combine
from analysis.study_report import effects_csv, make_report, to_markdown, write_report
from analysis.study_table import study_table
from namd.ledger import schema
from namd.ledger.view import StudyView, read_view
from namd.statistics.testing import holm
from namd.study.designs import make_arms, make_fraction

TIMES = " \u00d7 "
ALONE = {"align": -0.13, "predict": 0.0, "ehr": -0.08, "pretrain": 0.0}
"""What applying one toggle does to the true AUROC of 0.85, all else on."""
TOGETHER = {frozenset(["align", "ehr"]): 0.06}
"""What is added where both are applied: the one interaction."""
AVERAGED = {"align": -0.10, "predict": 0.0, "ehr": -0.05, "pretrain": 0.0}
"""The effects over all combinations: alone, and half the interaction."""


def true_auroc(applied) -> float:
    more = sum(value for pair, value in TOGETHER.items() if pair <= set(applied))
    return 0.85 + sum(ALONE[name] for name in applied) + more


def shift_for(auroc: float) -> float:
    """Scores with one draw are normal with variance 1 + 0.25, shifted for malignant cases."""
    return float(norm.ppf(auroc) * np.sqrt(2 * 1.25))


def toggles_of(names) -> dict:
    return {name: {f"vae.{name}.weight": 0} for name in names}


def specification(design: str, names, seeds: int, resolution=None) -> dict:
    found = {"design": design, "toggles": toggles_of(names), "resolution": resolution}
    return ablation("made", seeds, {}, ablation=found)


def made_design(
    folder, design, names, seeds=3, cases=600, resolution=None, failed=(), recorded=True, swap=None
) -> MadeStudy:
    """A study whose arms rank with their true AUROC.

    Args:
        failed: (arm, seed) of trials that failed.
        swap: Two arms whose combinations are recorded the wrong way round.
    """
    arms = make_arms(design, toggles_of(names), resolution)
    combinations = {arm.name: [list(arm.applied)] for arm in arms}
    if swap:
        one, other = swap
        combinations[one], combinations[other] = combinations[other], combinations[one]
    study = MadeStudy(
        folder / "store",
        MadeCohort.write(folder / "cohort", cases),
        specification(design, names, seeds, resolution),
        combinations=combinations if recorded else None,
    )
    for seed, arm in itertools.product(range(seeds), arms):
        if (arm.name, seed) in failed:
            study.end(study.queue(arm.name, seed), schema.FAILED, "loss is not finite")
        else:
            shift = shift_for(true_auroc(arm.applied))
            study.run(arm.name, seed, shift, draws=1, overrides=dict(arm.overrides))
    return study


def table_of(study: MadeStudy):
    return study_table(study.storage, read_view(study.storage, study.name))


def holds(effect: dict, truth: float) -> bool:
    return effect["estimate"]["low"] <= truth <= effect["estimate"]["high"]


@pytest.fixture(scope="module")
def two_by_two(tmp_path_factory):
    study = made_design(tmp_path_factory.mktemp("two"), "factorial", ["align", "ehr"])
    study.close()
    return study


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cube")
    return made_design(folder, "factorial", ["align", "predict", "ehr"])


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    return made_design(folder, "fractional", ["align", "predict", "ehr"], resolution=3)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return made_design(folder, "pairwise", ["align", "predict", "ehr"])


def test_a_factorial_of_two_recovers_effects_and_interaction(two_by_two):
    table = table_of(two_by_two)
    assert [e["effect"] for e in table.effects] == ["align", "ehr", f"align{TIMES}ehr"]
    for name, truth in [("align", -0.10), ("ehr", -0.05), (f"align{TIMES}ehr", 0.06)]:
        effect = table.effect(name)
        assert holds(effect, truth), (name, effect["estimate"])
        assert not holds(effect, -truth), (name, effect["estimate"])
        assert effect["estimate"]["p_holm"] < 0.05
        assert effect["estimate"]["seeds"] == 3


def test_a_toggle_that_does_nothing_is_not_significant(cube):
    table = table_of(cube)
    names = ["align", "predict", "ehr"]
    for name in names:
        assert holds(table.effect(name), AVERAGED[name])
    for one, other in itertools.combinations(names, 2):
        truth = TOGETHER.get(frozenset([one, other]), 0.0)
        assert holds(table.effect(effect_name([one, other])), truth)
    significant = {e["effect"] for e in table.effects if e["estimate"]["p_holm"] < 0.05}
    assert significant == {"align", "ehr", f"align{TIMES}ehr"}


def test_swapped_membership_gives_other_effects(tmp_path):
    """The twin: the same scores, and two arms taken for one another."""
    names = ["align", "predict", "ehr"]
    swapped = made_design(tmp_path, "factorial", names, swap=("no_align", "no_predict"))
    table = table_of(swapped)
    assert not holds(table.effect("align"), AVERAGED["align"])
    assert not holds(table.effect("predict"), AVERAGED["predict"])
    assert holds(table.effect("ehr"), AVERAGED["ehr"])


def test_effects_are_the_coefficients_of_a_regression(cube):
    """Least squares on columns of -1 and 1, seed by seed, knows nothing of weights."""
    table = table_of(cube)
    names = ["align", "predict", "ehr"]
    applied = {arm.name: arm.applied for arm in make_arms("factorial", toggles_of(names))}
    rows = [np.array([1 if n in applied[row["arm"]] else -1 for n in names]) for row in table.rows]
    signs = np.array(rows)
    columns = {effect_name([n]): signs[:, i] for i, n in enumerate(names)}
    for (i, one), (j, other) in itertools.combinations(enumerate(names), 2):
        columns[effect_name([one, other])] = signs[:, i] * signs[:, j]
    design = np.column_stack([np.ones(len(signs)), *columns.values(), signs.prod(axis=1)])
    for metric, seed in itertools.product(["auroc", "ssim"], range(3)):
        values = [row[metric]["per_seed"][str(seed)] for row in table.rows]
        found = np.linalg.lstsq(design, np.array(values), rcond=None)[0][1:-1]
        for (name, _), coefficient in zip(columns.items(), found, strict=True):
            effect = table.effect(name)
            scale = 2 * len(effect["toggles"])
            shown = effect["estimates"][metric]["per_seed"][str(seed)]
            assert shown == pytest.approx(scale * coefficient, abs=1e-9)


def test_a_half_fraction_names_what_it_mixes(half):
    table = table_of(half)
    assert [e["effect"] for e in table.effects] == ["align", "predict", "ehr"]
    assert table.design.resolution == 3
    mixed = table.effect("predict")
    assert mixed["aliases"] == [f"align{TIMES}ehr"]
    assert mixed["shows"] == "predict less half of it"
    half_of = TOGETHER[frozenset(["align", "ehr"])] / 2
    assert holds(mixed, AVERAGED["predict"] - half_of)
    assert not holds(mixed, AVERAGED["predict"] + half_of)
    for name in ("align", "ehr"):
        assert holds(table.effect(name), AVERAGED[name])


def test_pairwise_effects_are_against_the_full_method(pairs):
    table = table_of(pairs)
    assert len(table.effects) == 3 + 3
    for name in ("align", "predict", "ehr"):
        effect = table.effect(name)
        assert holds(effect, ALONE[name])
        difference = table.row(f"no_{name}")["difference"]
        assert effect["estimate"]["mean"] == difference["mean"]
        assert effect["estimate"]["p"] == difference["p"]
    both = table.effect(f"align{TIMES}ehr")
    assert both["arms"] == {"full": 1, "no_align": -1, "no_ehr": -1, "no_align_no_ehr": 1}
    assert holds(both, 0.06)
    assert not holds(both, -0.06)
    assert table.effect(f"align{TIMES}predict")["estimate"]["p_holm"] > 0.05


def test_an_effect_is_as_sure_as_its_arms_are_paired(two_by_two):
    """Its patients are resampled together: the spread of single arms does not add up."""
    table = table_of(two_by_two)
    effect = table.effect("ehr")["estimate"]
    width = effect["high"] - effect["low"]
    arms = [row["auroc"]["high"] - row["auroc"]["low"] for row in table.rows]
    assert width < 0.7 * np.sqrt(np.sum(np.square(arms))) / 2


def test_holm_takes_toggles_and_interactions_of_a_metric_as_one_family(cube):
    table = table_of(cube)
    for metric in ("auroc", "auprc"):
        p = [e["estimates"][metric]["p"] for e in table.effects]
        found = [e["estimates"][metric]["p_holm"] for e in table.effects]
        assert found == pytest.approx(list(holm(np.array(p))))
        assert len(found) == 6


def test_an_effect_is_over_the_seeds_that_all_its_arms_have(tmp_path):
    failed = [("no_ehr", 2)]
    names = ["align", "predict", "ehr"]
    table = table_of(made_design(tmp_path, "pairwise", names, cases=90, failed=failed))
    assert table.effect("ehr")["estimate"]["seeds"] == 2
    assert set(table.effect(f"align{TIMES}ehr")["estimate"]["per_seed"]) == {"0", "1"}
    assert table.effect(f"align{TIMES}predict")["estimate"]["seeds"] == 3


def test_an_effect_without_a_common_seed_says_so_and_keeps_its_place_in_the_family(tmp_path):
    failed = [("no_align", 0), ("no_align", 1), ("no_ehr", 2)]
    study = made_design(tmp_path, "factorial", ["align", "ehr"], cases=90, failed=failed)
    table = table_of(study)
    found = "no training seed that all its 4 arms have completed"
    assert [e["missing"] for e in table.effects] == [found] * 3
    view = read_view(study.storage, study.name)
    assert f"| align | 0 of 3 | {found} | - | - |" in to_markdown(make_report(study.storage, view))
    pairwise = made_design(
        tmp_path / "b", "pairwise", ["align", "ehr"], cases=90, failed=[*failed[:2], ("full", 2)]
    )
    table = table_of(pairwise)
    assert table.effect("align")["missing"] == found.replace("4", "2")
    alone = table.effect("ehr")["estimate"]
    assert alone["seeds"] == 2
    assert alone["p_holm"] == pytest.approx(min(1.0, 3 * alone["p"]))


def test_a_ledger_of_before_combinations_were_recorded_gives_the_same_effects(tmp_path, half):
    names = ["align", "predict", "ehr"]
    older = made_design(tmp_path, "fractional", names, resolution=3, recorded=False)
    assert json.dumps(table_of(older).effects) == json.dumps(table_of(half).effects)


def test_a_fraction_that_is_not_queued_whole_has_no_effects_yet(tmp_path):
    names = ["align", "predict", "ehr"]
    cohort = MadeCohort.write(tmp_path / "cohort", 90)
    study = MadeStudy(tmp_path / "store", cohort, specification("fractional", names, 1, 3))
    arms = make_arms("fractional", toggles_of(names), 3)
    for arm in arms[:-1]:
        study.run(arm.name, 0, 1.0)
    assert table_of(study).effects == ()
    assert any("does not name all arms" in note for note in table_of(study).notes)
    study.run(arms[-1].name, 0, 1.0)
    assert len(table_of(study).effects) == 3
    assert not any("does not name all arms" in note for note in table_of(study).notes)


def test_combinations_that_were_merged_count_through_the_arm_that_stands_for_them(tmp_path):
    """Without alignment the second toggle changes nothing: both together are the first alone."""
    combinations = {"full": [[]], "no_align": [["align"], ["align", "ehr"]], "no_ehr": [["ehr"]]}
    study = MadeStudy(
        tmp_path / "store",
        MadeCohort.write(tmp_path / "cohort", 90),
        specification("factorial", ["align", "ehr"], 2),
        combinations=combinations,
    )
    for seed, (arm, shift) in itertools.product(
        range(2), [("full", 1.5), ("no_align", 0.5), ("no_ehr", 1)]
    ):
        study.run(arm, seed, shift)
    table = table_of(study)
    assert table.effect("align")["arms"] == {"full": -0.5, "no_align": 1.0, "no_ehr": -0.5}
    assert table.effect("ehr")["arms"] == {"full": -0.5, "no_ehr": 0.5}
    assert table.effect(f"align{TIMES}ehr")["arms"] == {"full": 1.0, "no_ehr": -1.0}
    assert table.effect("ehr")["estimate"]["mean"] == pytest.approx(
        table.row("no_ehr")["difference"]["mean"] / 2
    )


def test_a_ledger_without_combinations_says_which_effects_need_a_merged_arm(tmp_path):
    cohort = MadeCohort.write(tmp_path / "cohort", 90)
    study = MadeStudy(
        tmp_path / "store", cohort, specification("pairwise", ["align", "ehr", "predict"], 1)
    )
    for arm in make_arms("pairwise", toggles_of(["align", "ehr", "predict"])):
        if arm.name != "no_align_no_ehr":
            study.run(arm.name, 0, 1.0)
    table = table_of(study)
    missing = table.effect(f"align{TIMES}ehr")
    assert missing["estimate"] is None
    assert missing["missing"] == "1 of its combinations have no arm in the ledger"
    assert table.effect(f"align{TIMES}predict")["estimate"] is not None


def test_what_rounding_leaves_of_equal_arms_is_nothing():
    """0.1 + 0.2 - 0.3 is 5.6e-17 in every seed, which a test would find without doubt."""
    arms = [(w, Measured((0, 1), np.array([v, v]))) for w, v in [(1, 0.1), (1, 0.2), (-1, 0.3)]]
    assert 0.1 + 0.2 - 0.3 != 0
    assert list(combine(arms).values) == [0.0, 0.0]
    arms[2] = (-1, Measured((1, 2), np.array([0.3 - 1e-9, 0.0])))
    assert combine(arms).seeds == (1,)
    assert combine(arms).values[0] == pytest.approx(1e-9, rel=1e-4)


def bare_view(design: str, names, arms, resolution=None, combinations=None) -> StudyView:
    view = StudyView("made", specification(design, names, 1, resolution))
    view.about = {"combinations": combinations or {a.name: [list(a.applied)] for a in arms}}
    return view


def test_a_toggle_that_changes_nothing_at_all_has_nothing_to_measure():
    same = {"full": [[], ["align"]]}
    effects = design_effects(bare_view("factorial", ["align"], (), combinations=same))
    assert effects.effects[0].weights == {}
    other = {"full": [[]], "no_align": [["align"]]}
    effects = design_effects(bare_view("factorial", ["align"], (), combinations=other))
    assert effects.effects[0].weights == {"no_align": 1.0, "full": -1.0}


@pytest.mark.parametrize("count", range(3, 9))
@pytest.mark.parametrize("resolution", [3, 4, 5])
def test_aliases_and_resolution_are_those_of_the_designs_own_words(count, resolution):
    names = [f"t{n}" for n in range(count)]
    fraction = make_fraction(names, resolution)
    arms = make_arms("fractional", toggles_of(names), resolution)
    found = design_effects(bare_view("fractional", names, arms, resolution))
    whole = len(arms) == 2**count
    assert found.resolution == (None if whole else fraction.resolution)
    for effect in found.effects:
        expected = [e for e in fraction.aliases(frozenset(effect.toggles), 2) if len(e) == 2]
        assert {frozenset(alias.split(TIMES)) for alias in effect.aliases} == set(expected)
    shown = sum(1 + len(effect.aliases) for effect in found.effects)
    assert shown == count + count * (count - 1) // 2


@pytest.mark.parametrize("resolution", [3, 4])
def test_what_an_effect_shows_is_the_sum_that_it_says(resolution):
    """Single effects and interactions drawn at random, arms without any other part."""
    names = ["a", "b", "c", "d", "e", "f"]
    random = np.random.default_rng(resolution)
    single = dict(zip(names, random.normal(size=6), strict=True))
    double = {pair: random.normal() for pair in itertools.combinations(names, 2)}

    def value(applied) -> float:
        x = {n: 0.5 if n in applied else -0.5 for n in names}
        return sum(single[n] * x[n] for n in names) + sum(
            w * x[i] * x[j] for (i, j), w in double.items()
        )

    arms = make_arms("fractional", toggles_of(names), resolution)
    values = {arm.name: value(arm.applied) for arm in arms}
    found = design_effects(bare_view("fractional", names, arms, resolution))
    words = set()
    for effect in found.effects:
        shown = sum(weight * values[arm] for arm, weight in effect.weights.items())
        others = sum(double[tuple(alias.split(TIMES))] for alias in effect.aliases)
        if len(effect.toggles) == 1:
            assert shown == pytest.approx(single[effect.name] - others / 2)
        else:
            assert shown == pytest.approx(double[effect.toggles] + others)
        words.add(effect.shows.replace(effect.toggles[0], "T"))
    assert words & {"T less half of it", "T less half of their sum", "the sum of both"}


def test_designs_of_one_toggle_at_a_time_have_no_effects(tmp_path):
    table = table_of(made_ablation(tmp_path, seeds=1))
    assert table.effects == ()
    assert table.design is None


def test_the_report_gives_effects_signs_and_aliases_in_words(half, tmp_path):
    view = read_view(half.storage, half.name)
    report = make_report(half.storage, view)
    page = write_report(report, tmp_path)
    text = page.read_text()
    ElementTree.fromstring(text.partition("\n")[2])
    for found in (
        "toggle applied minus not applied",
        "below zero means that switching the part off lowered the metric",
        "a fraction of resolution 3: 4 of 8 combinations are run",
        "align \u00d7 ehr (shown: predict less half of it)",
        "Every effect on the other metrics",
        "fractional: 4 of 8 combinations, resolution 3",
    ):
        assert found in text, found
    assert (tmp_path / "figures" / "effects.png").is_file()
    lines = list(csv.DictReader(io.StringIO(effects_csv(report.table))))
    line = next(r for r in lines if (r["effect"], r["metric"]) == ("predict", "auroc"))
    assert float(line["low"]) == report.table.effect("predict")["estimate"]["low"]
    assert line["aliased_with"] == f"align{TIMES}ehr"
    assert (tmp_path / "effects.csv").read_bytes().decode() == effects_csv(report.table)
    assert json.loads((tmp_path / "effects.json").read_text())[1]["effect"] == "predict"


def test_a_report_of_all_combinations_speaks_of_no_alias(two_by_two, tmp_path):
    view = read_view(two_by_two.storage, two_by_two.name)
    text = to_markdown(make_report(two_by_two.storage, view))
    assert "aliased with" not in text
    assert "resolution" not in text
    assert "| align \u00d7 ehr | 3 |" in text
