"""The time left follows from what stages prove to cost, and is near the truth before it is late."""

from dataclasses import dataclass

import played_studies as played
import pytest
import toy_studies as toys

from namd.cli.demo import demo_study
from namd.cli.study_progress import PlainStudyReporter
from namd.storage.stage_names import StageName
from namd.study.eta import Build, Eta
from namd.study.plan import StageEstimate, StudyPlan


def estimate(stage, number=6, in_store=2, seconds=None, role="train"):
    source = "unknown" if seconds is None else "recorded"
    return StageEstimate(stage, number, in_store, seconds, source, role=role)


def eta(*stages, trials=4, at_once=2):
    found = Eta()
    found.plan(StudyPlan("parts", {}, trials, stages, 24, at_once, 0.0, None, False, None))
    return found


def build(name, index, total=100, elapsed=50.0, first=0, member=None):
    stage = StageName(name, member)
    return {stage.label: Build(stage, index, total, {}, 100.0, first, 100.0 + elapsed)}


def test_nothing_is_reported_before_there_is_a_plan_or_when_nothing_is_to_build():
    assert Eta().left({}, 1) is None
    assert eta(estimate("vae", 6, 6, 0.0)).left({}, 4) is None


def test_the_plans_costs_are_reported_until_one_is_measured():
    found = eta(estimate("vae", seconds=100.0))
    assert found.left({}, 4) == pytest.approx(4 * 100 / 2)
    found.finish("vae", 300.0)
    assert found.left({}, 4) == pytest.approx(3 * 300 / 2)


def test_a_plan_is_as_wrong_of_the_rest_as_of_what_was_measured():
    found = eta(estimate("vae", seconds=100.0), estimate("draws", seconds=10.0, role="map"))
    found.finish("vae", 300.0)
    assert found.left({}, 4) == pytest.approx((3 * 300 + 4 * 30) / 2)


def test_a_name_not_yet_seen_costs_what_its_kind_does():
    found = eta(estimate("vae"), estimate("latents", role="map"), estimate("draws", role="map"))
    assert found.left({}, 4) is None
    found.finish("vae", 60.0)
    # Nothing shows yet what a mapping stage takes, certainly not a training.
    assert found.left({}, 4) is None
    found.finish("latents", 4.0)
    assert found.left({}, 4) == pytest.approx((3 * 60 + 3 * 4 + 4 * 4) / 2)
    found.finish("draws", 10.0)
    assert found.left({}, 4) == pytest.approx((3 * 60 + 3 * 4 + 3 * 10) / 2)


def test_a_build_under_way_shows_its_cost_by_its_own_pace():
    found = eta(estimate("vae"))
    # Half of it was there, a quarter took 50 s: 200 s each.
    assert found.left(build("vae", 75, first=50), 4) == pytest.approx(3.25 * 200 / 2)


@pytest.mark.parametrize(
    "builds",
    [
        build("vae", 25, elapsed=1.0),
        build("vae", 25, first=25),
        build("vae", 1, total=4, member=0),
    ],
    ids=["too short a look", "no step since", "member of a family"],
)
def test_a_build_that_shows_no_pace_gives_no_cost(builds):
    assert eta(estimate("vae")).left(builds, 4) is None
    assert eta(estimate("vae")).left(build("vae", 25), 4) is not None


def test_the_last_trial_builds_one_stage_at_a_time():
    found = eta(estimate("vae", 4, 0, 60.0), estimate("judge", 1, 0, 80.0))
    for trial in "abc":
        found.finish("vae", 60.0)
        found.has(trial, "vae")
    found.finish("judge", 80.0)
    assert found.left({}, 4) == pytest.approx(60)
    # Twin: two that lack theirs have a stage worker each.
    found = eta(estimate("vae", 4, 0, 60.0))
    for trial in "ab":
        found.finish("vae", 60.0)
        found.has(trial, "vae")
    assert found.left({}, 4) == pytest.approx(2 * 60 / 2)


def test_a_trial_that_has_not_begun_waits_for_one_to_end():
    found = eta(estimate("vae", 3, 0, 60.0), estimate("finetune", 3, 0, 30.0), trials=3)
    for trial in "ab":
        found.begin(trial)
        found.finish("vae", 60.0)
        found.has(trial, "vae")
    assert found.left({}, 3) == pytest.approx(30 + 60 + 30)
    # Twin: it is under way as well.
    found.begin("c")
    assert found.left({}, 3) == pytest.approx(60 + 30)


def test_what_pruned_trials_did_not_come_to_is_not_waited_for():
    found = eta(estimate("vae", 8, 0, 10.0), estimate("finetune", 8, 0, 50.0), trials=8)
    for trial in "abcdef":
        found.finish("vae", 10.0)
        found.has(trial, "vae")
        found.over(trial)
    assert found.left({}, 2) == pytest.approx(2 * (10 + 50) / 2)


def test_a_resumed_study_counts_the_trials_that_are_left():
    found = eta(estimate("vae", 8, 6, 60.0), trials=8)
    found.open(2)
    assert found.left({}, 2) == pytest.approx(2 * 60 / 2)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@dataclass(frozen=True)
class Moment:
    now: float
    estimated: float | None
    built: int
    to_build: int


def reestimated(folder, seconds):
    """Play the demo to a reporter through a ledger; return its moments, the last one its end."""
    spec, clock, moments = demo_study(), Clock(), []
    reporter = PlainStudyReporter(clock)
    reporter.line = lambda text: None
    reporter.planned(played.plan_of(spec))

    def listener(event, view):
        reporter.event(event.identity.trial, event.identity.transition, event.body, view)

    with toys.opened(folder, spec, listener=listener) as record:
        for clock.now, what in played.play(spec, seconds).run():
            apply(what, reporter, record, seconds)
            found = reporter.eta
            moments.append(Moment(clock.now, reporter.left(), found.built, found.to_build))
        record.close()
    return moments


def apply(what, reporter, record, seconds):
    if isinstance(what, played.Stepped):
        reporter.step(what.node.stage.recorded, what.node.key, what.index, what.total, {})
    elif isinstance(what, played.Began):
        record.next_trials(1)
        record.start(what.trial)
    elif isinstance(what, played.Got):
        node = what.node
        took = seconds[node.stage.name] if what.built else 0.0
        record.stage(what.trial, node.stage.recorded, node.key, cached=not what.built, seconds=took)
    else:
        record.complete(what.trial, {"auroc": 0.5, "auprc": 0.5, "ssim": 0.5})


WELL_ESTIMATED = 1.5
LAST_S = 15.0
"""Of trials' tables, which are no stages."""


def worst(moments, guess):
    """Return the largest factor between what is guessed and what was left, from a third on."""
    end = moments[-1].now
    late = [m for m in moments if end / 3 <= m.now < end - LAST_S]
    ratios = [guess(moment) / (end - moment.now) for moment in late]
    return max(max(ratio, 1 / ratio) for ratio in ratios)


def counted(moment):
    """Return what a count of stages gives, all alike."""
    return moment.now * (moment.to_build - moment.built) / moment.built


def test_from_a_third_on_the_demo_is_reported_well(studies):
    moments = reestimated(studies, played.SECONDS)
    assert moments[-1].built == moments[0].to_build
    assert moments[-1].estimated == 0
    assert worst(moments, lambda moment: moment.estimated) < WELL_ESTIMATED
    # Twin: its long stages come first, the many short ones last.
    assert worst(moments, counted) > 2 * WELL_ESTIMATED


@pytest.mark.parametrize("stage", ["vae", "language"])
def test_a_demo_of_other_costs_is_reported_well_too(studies, stage):
    seconds = {**played.SECONDS, stage: 2 * played.SECONDS[stage]}
    assert worst(reestimated(studies, seconds), lambda moment: moment.estimated) < WELL_ESTIMATED


def test_nothing_is_reported_of_the_demo_before_something_is_measured(studies):
    moments = reestimated(studies, played.SECONDS)
    silent = [moment for moment in moments if moment.estimated is None]
    assert silent == moments[: len(silent)]
    assert any(moment.built for moment in silent)
    assert silent[-1].now < moments[-1].now / 3
