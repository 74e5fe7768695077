"""What a log and a terminal hear of a running study."""

import io

import toy_studies as toys
from rich.console import Console

from namd.cli.study_progress import PlainStudyReporter, RichStudyReporter
from namd.storage.stage_names import StageName
from namd.study.plan import StageEstimate, StudyPlan
from namd.study.reporting import StudyReporter
from namd.study.spec import parse_study


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plan(seconds=10.0, source="recorded", peak=2):
    stages = [StageEstimate("vae", 6, 2, seconds, source), StageEstimate("latents", 6, 6, 0.0, "")]
    return StudyPlan("parts", {}, 6, stages, 24, peak, 0.0, None, False, None)


def recorded(clock=None, folder=None, mapping=toys.ABLATION, drive=None):
    """Lines that a log gets of a toy study."""
    reporter = PlainStudyReporter(clock or Clock())
    lines = []
    reporter.line = lines.append
    reporter.planned(plan())

    def listener(event, view):
        reporter.event(event.identity.trial, event.identity.transition, event.body, view)

    with toys.opened(folder, parse_study(mapping), listener=listener) as record:
        (drive or toys_drive)(record)
    return reporter, lines


def toys_drive(record):
    while not record.finished:
        for trial in record.next_trials(2):
            toys.finish_trial(record, trial)
    record.close()


def test_both_are_study_reporters():
    assert isinstance(PlainStudyReporter(), StudyReporter)
    assert isinstance(RichStudyReporter(Console(file=io.StringIO())), StudyReporter)


def test_a_log_has_the_plan_what_was_built_and_how_trials_ended(studies):
    _, lines = recorded(folder=studies)
    text = "\n".join(lines)
    assert lines[0] == (
        "parts: 6 trials need 24 stages, 12 of them distinct; 8 are in the store, 4 to build"
    )
    assert "about 20 s with 2 stages at once" in lines[1]
    assert text.count("vae: built in 2 s, first for ") == 6
    assert "full, seed 0: completed (auroc 0.750); 1 of 6 trials, 1 of 4 stages" in text
    assert text.count("latents") == 0
    assert lines[-1].startswith("study parts is finished: 6 trials, ")


def test_failures_prunings_and_resumption_are_said(studies):
    def drive(record):
        first, second = record.next_trials(2)
        record.start(first.trial)
        record.fail(first.trial, "no room")
        record.start(second.trial)
        record.interrupt(second.trial, "its driver process died")
        record.message("a node has left")
        record.stopped("enough")

    _, lines = recorded(folder=studies, drive=drive)
    text = "\n".join(lines)
    assert "full, seed 0: failed (no room); 1 of 6 trials" in text
    assert "no_align, seed 0: interrupted (its driver process died)" in text
    assert "a node has left" in lines
    assert lines[-1] == "stopped: enough"
    _, lines = recorded(folder=studies)
    assert "study parts is open (attempt 2)" in lines
    assert lines[-1].startswith("study parts is finished: 6 trials, ")


def test_steps_are_summed_up_now_and_then(studies):
    clock = Clock()
    reporter, lines = recorded(clock, studies)
    before = len(lines)
    for index in range(1, 20):
        clock.now += 1
        reporter.step(StageName("finetune"), "k1", index, 100, {"loss": 1.0})
    assert len(lines) == before
    clock.now += 30
    reporter.step(StageName("vae"), "k2", 1, 10, {})
    assert lines[before:] == [
        f"building finetune 19 of 100, vae 1 of 10; {reporter.summary()}",
    ]


def test_the_terminal_shows_builds_trials_and_the_time_left(studies):
    clock = Clock()
    stream = io.StringIO()
    reporter = RichStudyReporter(Console(file=stream, width=100), clock)
    reporter.planned(plan())
    reporter.step(StageName("finetune"), "k1", 30, 100, {"loss": 0.25})
    for number in range(9):
        reporter.step(StageName("draws", number), f"d{number}", 1, 2, {})
    reporter.console.print(reporter)
    text = stream.getvalue()
    for words in ("finetune", "30 of 100", "loss 0.25", "0 of 6 trials", "and 2 more", "left"):
        assert words in text


def test_a_step_that_is_heard_after_its_stage_was_recorded_is_not_a_build(studies):
    reporter, _ = recorded(Clock(), studies)
    over = next(iter(reporter._over))
    reporter.step(StageName("vae"), over, 9, 10, {})
    assert reporter.builds == {}
    reporter.step(StageName("vae"), "another", 9, 10, {})
    assert list(reporter.builds) == ["another"]


def test_a_build_that_was_lost_begins_again(studies):
    clock = Clock()
    reporter, _ = recorded(clock, studies)
    for now, index in ((0.0, 10), (40.0, 50), (60.0, 30), (80.0, 40)):
        clock.now = now
        reporter.step(StageName("finetune"), "k1", index, 100, {})
    assert reporter.builds["k1"].seconds == 200.0
