"""W&B's own run files, read back: the ledger's content, and nothing of this machine."""

import getpass
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from run_files import read_runs
from tracked_study import SECRETS, ablation, drive, opened, records, steps_of_key

from namd.config.errors import InputError
from namd.ledger.view import read_view
from namd.storage.local import LocalStorage
from namd.storage.stage_names import StageName
from namd.tracking.background import BackgroundTracker
from namd.tracking.publishing import publish
from namd.tracking.wandb_tracker import WandbTracker
from namd.tracking.wandb_writer import TrackingError, WandbWriter, wandb_mode

ROWS = [
    {"arm": "full", "auroc": {"mean": 0.8, "low": 0.7}, "case_id": "case-0817"},
    {"arm": "no_align", "auroc": {"mean": 0.7, "low": None}, "patient_id": "patient-55"},
]
EFFECTS = [{"effect": "align", "estimate": {"value": -0.1}, "case_id": "case-0817"}]


class SharedService(WandbWriter):
    """Leaves W&B's service process running: its start takes most of a test's time."""

    def close(self):
        pass


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, format="PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A toy study that was shown live: (ledger, W&B files, warnings)."""
    ledger, out = tmp_path_factory.mktemp("ledger"), tmp_path_factory.mktemp("out")
    spec = ablation(tracking={"images": True})
    pictures = [("draw 0, picture 1", png())]

    def images_of_key(stage, key):
        return pictures if stage.name == "scores" else []

    warnings = []
    inner = WandbTracker(SharedService(out), images_of_key=images_of_key)
    tracker = BackgroundTracker(inner, warnings.append)
    with opened(ledger, spec, tracker) as record:
        drive(record, tracker)
    tracker.table(ROWS, EFFECTS)
    tracker.close()
    return ledger, out, warnings


@pytest.fixture(scope="module")
def published(study, tmp_path_factory):
    """A copy of these files in which the study was published again: (W&B files, number of runs)."""
    ledger, shown, _ = study
    out = shutil.copytree(shown, tmp_path_factory.mktemp("published") / "out")
    tracker = WandbTracker(SharedService(out))
    return out, publish(records(ledger, "toys"), steps_of_key, ROWS, tracker, EFFECTS)


def test_run_files_say_what_the_ledger_says(study):
    ledger, out, warnings = study
    assert not warnings
    runs, view = read_runs(out), read_view(LocalStorage(ledger), "toys")
    trials = {r.config["trial"]: r for r in runs.values() if "trial" in r.config}
    stages = {r.config["key"]: r for r in runs.values() if r.job_type == "stage"}
    assert set(trials) == set(view.trials)
    assert set(stages) == {s.key for t in view.trials.values() for s in t.stages}
    assert len(runs) == len(trials) + len(stages) + 1
    for name, trial in view.trials.items():
        run = trials[name]
        assert (run.group, run.job_type, run.tags) == ("toys", trial.body["arm"], (trial.state,))
        assert run.exit_code == (1 if trial.state == "failed" else 0)
        assert run.config["overrides"] == trial.body["overrides"]
        assert {k: run.summary[k] for k in trial.values} == pytest.approx(trial.values)
        assert {link["run_id"] for link in run.config["stages"].values()} <= set(runs)
    for key, run in stages.items():
        label = run.config["stage"]
        lines = steps_of_key(StageName(label), key)
        found = [(line["index"], line["loss"]) for line in lines if line["loss"] is not None]
        shown = [(step, line["loss"]) for step, line in run.history if "loss" in line]
        assert shown == found
        assert any("draws" in line for _, line in run.history) == (label == "scores")
    (whole,) = [r for r in runs.values() if r.job_type == "study"]
    assert whole.artifacts == ["toys-table"]
    assert whole.summary["trials"]["failed"] == 1


def of_all_but_scores(out):
    """The content of runs by id, without those whose pictures only a live study has."""
    runs = read_runs(out)
    return {i: r.content for i, r in runs.items() if r.config.get("stage") != "scores"}


def test_publishing_replaces_what_was_shown_live_with_the_same(study, published, tmp_path):
    ledger, shown, _ = study
    out, count = published
    assert count == sum(1 for _ in records(ledger, "toys"))
    live = of_all_but_scores(shown)
    assert of_all_but_scores(out) == live
    publish(records(ledger, "toys"), steps_of_key, [], WandbTracker(SharedService(tmp_path)))
    without_table = {i: r.content for i, r in read_runs(tmp_path).items()}
    assert {i for i in live if without_table[i] != live[i]} == {
        i for i, r in read_runs(out).items() if r.job_type == "study"
    }


@pytest.mark.parametrize("again", [False, True], ids=["live", "published"])
def test_files_hold_no_identifier_and_nothing_of_this_machine(study, published, again):
    ledger, shown, _ = study
    out = published[0] if again else shown
    machine = [socket.gethostname(), getpass.getuser(), str(Path.cwd()), str(Path.home())]
    machine += [str(ledger), "pytest", "python3"]
    # A short word such as `vm` is found in any random id.
    words = [word for word in (*SECRETS, *machine) if len(word) > 4]
    paths = [path for path in out.rglob("*") if path.is_file()]
    assert len(paths) > 8
    for path in paths:
        data = path.read_bytes()
        # A staged artifact is named by its place, which `wandb sync` needs and does not send.
        data = data.replace(str(out).encode(), b"").replace(str(shown).encode(), b"")
        assert not [word for word in words if word.encode() in data], path
    assert {run.host for run in read_runs(out).values()} == {"namd"}
    staged = [path.read_bytes() for path in paths if "staging" in path.parts]
    tables = [data for data in staged if b"columns" in data]
    table, effects = sorted(map(json.loads, set(tables)), key=lambda t: t["columns"])
    assert table["columns"] == ["arm", "auroc.mean", "auroc.low"]
    assert table["data"] == [["full", 0.8, 0.7], ["no_align", 0.7, None]]
    assert effects["columns"] == ["effect", "estimate.value"]
    assert effects["data"] == [["align", -0.1]]


def test_without_a_folder_to_write_to_the_study_goes_on(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    spec, warnings = ablation(1), []
    tracker = BackgroundTracker(WandbTracker(SharedService(blocked)), warnings.append)
    with opened(tmp_path / "ledger", spec, tracker) as record:
        drive(record, tracker)
        assert record.finished
    tracker.close()
    assert len(warnings) == 1
    with pytest.raises(TrackingError, match="file"):
        publish(
            records(tmp_path / "ledger", "toys"),
            steps_of_key,
            [],
            WandbTracker(SharedService(blocked)),
        )


def test_the_mode_is_the_users_and_needs_a_key_only_online(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    key = {"WANDB_API_KEY": "0" * 40}
    assert wandb_mode(None, {}) == "offline"
    assert wandb_mode(None, {"WANDB_MODE": "disabled"}) is None
    assert wandb_mode("offline", {"WANDB_MODE": "online"}) == "offline"
    assert wandb_mode(None, {"WANDB_MODE": "online", **key}) == "online"
    assert wandb_mode("online", key) == "online"
    with pytest.raises(InputError, match="wandb login"):
        wandb_mode("online", {})
    with pytest.raises(InputError, match="'nowhere'"):
        wandb_mode("nowhere", key)


@pytest.mark.slow
def test_online_without_a_network_the_files_are_written_offline(tmp_path, monkeypatch):
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert "WANDB_MODE" not in os.environ
    spec, warnings = ablation(1), []
    writer = WandbWriter(tmp_path / "out", "online")
    tracker = BackgroundTracker(WandbTracker(writer), warnings.append, patience_s=120)
    start = time.monotonic()
    with opened(tmp_path / "ledger", spec, tracker) as record:
        drive(record, tracker)
    found = time.monotonic() - start
    tracker.close()
    assert found < 10
    assert time.monotonic() - start < 130
    assert writer.mode == "offline" or warnings
    if not warnings:
        assert len(read_runs(tmp_path / "out")) == 5


KILLED = """
import sys, time
from pathlib import Path
from namd.tracking.background import BackgroundTracker
from namd.tracking.wandb_tracker import WandbTracker
from namd.tracking.wandb_writer import WandbWriter

writer = WandbWriter(Path(sys.argv[1]))
warnings = []
tracker = BackgroundTracker(WandbTracker(writer), warnings.append, patience_s=20)

def work(trial):
    tracker.event(trial, 0, "queued", {"arm": "full", "proposal": None, "seed": 0, "overrides": {}})
    tracker.event(trial, 1, "started", {})
    tracker.event(trial, 1, "completed", {"values": {"auroc": 0.5}})

tracker.event(None, 1, "opened", {"specification": {"name": "toys"}})
work("a" * 20)
while not list(Path(sys.argv[1]).rglob("*.wandb")):
    time.sleep(0.05)
if sys.argv[2] == "kill":
    writer.abandon()
work("b" * 20)
tracker.close()
assert "torch" not in sys.modules
print(len(warnings))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("fate", "warnings"), [("kill", "1"), ("spare", "0")])
def test_a_dead_service_costs_one_warning_and_leaving_does_not_wait(tmp_path, fate, warnings):
    command = [sys.executable, "-c", KILLED, str(tmp_path), fate]
    # This process's own service would be found through its environment.
    alone = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=True, env=alone
    )
    assert done.stdout.split() == [warnings], done.stderr
    assert "Traceback" not in done.stderr
