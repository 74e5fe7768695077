"""What runs show follows from the records alone: live, resumed and rebuilt are the same."""

from dataclasses import replace

import pytest
from tracked_study import (
    SECRETS,
    ablation,
    drive,
    opened,
    records,
    search,
    steps_of_key,
)

from namd.config.errors import StageError
from namd.distributed.pairs import Coverage
from namd.ledger.view import read_view
from namd.storage.local import LocalStorage
from namd.tracking.privacy import clean, clean_text
from namd.tracking.protocol import Tracker
from namd.tracking.publishing import publish
from namd.tracking.runs import History, StudyRuns, flat_row
from namd.tracking.wandb_tracker import MAX_BUFFERED, WandbTracker

ROWS = [
    {"arm": "full", "auroc": {"mean": 0.8, "low": 0.7}, "difference": None, "case_id": "case-0817"},
    {"arm": "no_align", "auroc": {"mean": 0.7, "low": None}, "difference": {"mean": -0.1}},
]


class MemoryWriter:
    """Keeps runs as they would be written."""

    def __init__(self, streaming: bool = False) -> None:
        self.streaming = streaming
        self.runs = {}
        self.open_now = self.max_open = 0

    def open(self, content):
        self.open_now += 1
        self.max_open = max(self.max_open, self.open_now)
        return MemoryRun(self, content)

    def close(self):
        assert not self.open_now

    def abandon(self):
        pass


class MemoryRun:
    def __init__(self, writer, content) -> None:
        self.writer, self.lines = writer, []

    def log(self, step, metrics):
        assert not self.lines or step > self.lines[-1][0]
        self.lines.append((step, dict(metrics)))

    def finish(self, content, *, tables=None, images=()):
        self.writer.open_now -= 1
        content = replace(content, history=tuple(self.lines))
        self.writer.runs[content.run_id] = (content, tables, tuple(images))


def run(folder, spec, streaming=False):
    writer = MemoryWriter(streaming)
    tracker = WandbTracker(writer)
    with opened(folder, spec, tracker) as record:
        drive(record, tracker)
    tracker.table(ROWS)
    tracker.close()
    return writer


def published(folder, study):
    writer = MemoryWriter()
    publish(records(folder, study), steps_of_key, ROWS, WandbTracker(writer))
    return writer.runs


def test_effects_stand_in_the_artifact_only_where_a_design_has_them():
    effects = [{"effect": "align", "arms": {"full": -1.0, "no_align": 1.0}}]

    def tables(*effects):
        writer = MemoryWriter()
        tracker = WandbTracker(writer)
        tracker.event(None, 1, "opened", {"specification": {"name": "toys"}})
        tracker.table(ROWS, *effects)
        tracker.close()
        ((_, found, _),) = writer.runs.values()
        return found

    assert tables().keys() == {"table"}
    assert tables(effects)["effects"] == [
        {"effect": "align", "arms.full": -1.0, "arms.no_align": 1.0}
    ]


@pytest.mark.parametrize("spec", [ablation(), search()], ids=["ablation", "search"])
@pytest.mark.parametrize("streaming", [False, True])
def test_publishing_shows_what_was_shown_live(tmp_path, spec, streaming):
    live = run(tmp_path, spec, streaming)
    assert live.runs == published(tmp_path, spec.name)
    assert live.runs
    with_more = published(tmp_path, spec.name)
    with_more.popitem()
    assert live.runs != with_more


def test_every_attempt_and_every_stage_has_one_run(tmp_path):
    spec = ablation()
    runs = [content for content, _, _ in run(tmp_path, spec).runs.values()]
    view = read_view(LocalStorage(tmp_path), spec.name)
    shown = {c.config["trial"]: c for c in runs if "trial" in c.config}
    assert set(shown) == set(view.trials)
    stages = {c.config["key"]: c for c in runs if c.job_type == "stage"}
    assert set(stages) == {s.key for t in view.trials.values() for s in t.stages}
    for name, trial in view.trials.items():
        content = shown[name]
        assert content.job_type == trial.body["arm"]
        assert content.tags == (trial.state,)
        assert content.config["seed"] == trial.body["seed"]
        assert content.config["configuration"]["train_seed"] == trial.body["seed"]
        weight = content.config["configuration"]["encoder"]["align"]["weight"]
        assert weight == trial.body["overrides"].get("encoder.align.weight", 1.0)
        assert {k: content.summary[k] for k in trial.values} == trial.values
        links = content.config["stages"]
        assert {(label, link["key"]) for label, link in links.items()} == {
            (s.stage.label, s.key) for s in trial.stages
        }
        assert all(link["run_id"] == stages[link["key"]].run_id for link in links.values())
    (study,) = [c for c in runs if c.job_type == "study"]
    assert study.summary["trials"]["completed"] == view.counts()["completed"]
    assert study.summary["stages_built"] == len(view.executions())


def test_a_resumed_study_is_shown_as_one_that_was_not_killed(tmp_path):
    spec, writer = ablation(3), MemoryWriter()
    first = WandbTracker(writer)
    with opened(tmp_path, spec, first) as record:
        drive(record, first, most=2)
        started = record.next_trials(1)[0].trial
        record.start(started)
    forgetful = MemoryWriter()
    forgetful.runs = dict(writer.runs)
    resumed = WandbTracker(writer, earlier=lambda: records(tmp_path, spec.name))
    ignorant = WandbTracker(forgetful)
    with opened(tmp_path, spec, Both(resumed, ignorant)) as record:
        drive(record, Both(resumed, ignorant))
    for tracker in (resumed, ignorant):
        tracker.table(ROWS)
        tracker.close()
    assert writer.runs == published(tmp_path, spec.name)
    assert forgetful.runs != writer.runs
    attempts = [c for c, _, _ in writer.runs.values() if c.config.get("trial") == started]
    assert sorted(c.summary["outcome"] for c in attempts) == ["completed", "interrupted"]


class Both:
    def __init__(self, *trackers):
        self.trackers = trackers

    def event(self, *record):
        for tracker in self.trackers:
            tracker.event(*record)

    def step(self, *record):
        for tracker in self.trackers:
            tracker.step(*record)


def test_nothing_that_names_a_person_or_a_machine_is_shown(tmp_path):
    shown = str(run(tmp_path, ablation()).runs)
    assert not [word for word in SECRETS if word in shown]
    assert "no space left" in shown
    assert "case-less" in shown
    assert "x.bin" not in shown
    assert "OSError" not in shown
    assert "RuntimeError" in shown


def test_texts_and_mappings_are_cleaned_but_not_emptied():
    assert clean_text("read ~/private/a/model.bin of s3://bucket/x/y") == "read … of …"
    cleaned = clean({"case_id": "a", "x": [{"patient_id": 3, "y": float("nan")}], "cases": 12})
    assert cleaned == {"x": [{"y": None}], "cases": 12}


@pytest.mark.parametrize("case", ["100012-1", "mine-7 (left), b", "a/b/c"])
def test_a_trial_that_failed_over_a_case_does_not_name_it(case):
    coverage = Coverage("draws-test", [case, f"{case}x"], [0, 12])
    coverage.add([case], [0])
    with pytest.raises(StageError) as raised:
        coverage.require()
    assert case in str(raised.value)
    reducer = StudyRuns()
    reducer.event("t", 0, "queued", {"arm": "full", "proposal": None, "seed": 0, "overrides": {}})
    reducer.event("t", 1, "started", {})
    content = reducer.event("t", 1, "failed", {"reason": str(raised.value)})
    assert content.summary["reason"] == (
        "draws-test: pairs (a case, k=0), (a case, k=12), (a case, k=12) did not return"
    )
    for other in ("(one case, k=3)", "(case closed, 3 left)", "of a case, k=3"):
        assert clean_text(other) == other


def test_a_history_is_bounded_ordered_and_replaced_where_a_body_resumed():
    history = History(limit=100)
    for index in range(1, 1001):
        history.add(index, {"loss": 1.0, "bad": float("inf")})
    assert len(history.lines) <= 100
    indices = [index for index, _ in history.lines]
    assert indices == sorted(set(indices))
    assert indices[-1] > 980
    history = History()
    for index in (1, 2, 3, 2, 3, 4):
        history.add(index, {"loss": float(index)})
    assert [index for index, _ in history.lines] == [1, 2, 3, 4]
    history.add(5, {"loss": float("nan")})
    assert len(history.lines) == 4


def test_steps_of_stages_that_nobody_publishes_do_not_pile_up():
    tracker = WandbTracker(MemoryWriter())
    for number in range(3 * MAX_BUFFERED):
        tracker.step("vae", f"key{number}", 1, 1, {"loss": 1.0})
    assert len(tracker._building) == MAX_BUFFERED


def test_pictures_only_where_the_study_file_asks(tmp_path):
    for wanted in (False, True):
        spec = ablation(1, tracking={"images": wanted})
        writer = MemoryWriter()
        images = [("draw 0", b"png")] * 20
        tracker = WandbTracker(writer, images_of_key=lambda label, key, found=images: found)
        with opened(tmp_path / str(wanted), spec, tracker) as record:
            drive(record, tracker)
        tracker.close()
        found = [pictures for _, _, pictures in writer.runs.values() if pictures]
        assert bool(found) == wanted
        assert all(len(pictures) == 8 for pictures in found)


def test_it_is_a_tracker_and_rows_are_flattened():
    assert isinstance(WandbTracker(MemoryWriter()), Tracker)
    assert not isinstance(MemoryWriter(), Tracker)
    assert flat_row(ROWS[1])["auroc.mean"] == 0.7
