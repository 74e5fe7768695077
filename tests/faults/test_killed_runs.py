"""Killed anywhere, a run that is started again ends where an undisturbed one ends."""

import os
import signal
import time

import pytest
from toy_run import TIMING, toy_run
from toy_stages import read_diary

from namd.config.fingerprint import file_digest
from namd.pipeline.collection import collect
from namd.pipeline.run import recorded_runs
from namd.pipeline.store import open_store

pytestmark = pytest.mark.serial

NODES = 2 + 2 + 2
DRAWS = "evaluate.num_draws=2"


def contents(store):
    """Return the digest of every payload file and the metrics, by stage, key and place."""
    found = {}
    for entry in store.entries():
        assert entry.committed
        artifact = store.find(entry.stage, entry.key)
        for place in artifact.files:
            if place != "manifest.json":
                found[entry.stage, entry.key, place] = file_digest(artifact.folder / place)
    return found


def assert_tidy(store):
    """One attempt per key, no lease, no checkpoint, nothing damaged."""
    for entry in store.entries():
        folder = f"{entry.stage}/{entry.key}"
        assert store.backend.names(folder) == ["COMMIT", "attempts"]
        assert len(store.backend.names(f"{folder}/attempts")) == 1
        assert store.verify(entry.stage, entry.key) == []


@pytest.fixture
def undisturbed(tmp_path):
    store = open_store(str(tmp_path / "undisturbed"), TIMING)
    result = toy_run(store, DRAWS)
    return contents(store), result.rows


CRASHES = [
    "before-lease",
    "after-lease",
    "before-attempt",
    "after-attempt",
    "before-link:3",
    "after-link:3",
    "train-step-3",
    "train-step-7",
    "during-checkpoint",
    "during-checkpoint:2",
    "after-checkpoint",
    "after-checkpoint:3",
    "before-note:5",
    "after-note:12",
    "before-manifest",
    "after-manifest",
    "before-upload",
    "after-upload",
    "before-commit",
    "after-commit",
    "before-tidy",
    "before-forget",
    "after-tidy",
    "encode",
    "draw-0",
    "draw-1",
    "before-commit:3",
    "after-commit:3",
    "before-commit:4",
    "score-1",
    "after-commit:6",
    "before-record",
    "after-record",
]
QUICK = {"after-lease", "train-step-7", "during-checkpoint:2", "before-commit", "after-commit:3"}


@pytest.mark.parametrize(
    "crash",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CRASHES],
)
def test_killed_at_every_transition_a_second_run_ends_the_same(
    crash, tmp_path, diary, start, undisturbed
):
    diary.unlink()
    process = start(tmp_path / "store", DRAWS, crash=crash)
    assert ended(process) == -signal.SIGKILL
    store = open_store(str(tmp_path / "store"), TIMING)
    result = toy_run(store, DRAWS)
    payloads, rows = undisturbed
    collect(store)
    assert contents(store) == payloads
    assert list(result.rows) == list(rows)
    assert_tidy(store)
    assert list(recorded_runs(store)) == [result.run]
    lines = read_diary(diary)
    # At most the steps since the last checkpoint, or the one unpublished member, were repeated.
    assert lines.count("encode") <= 2
    assert sum(line.startswith("train step") for line in lines) <= 12 + 4
    assert sum(line in ("draw 0", "draw 1") for line in lines) <= 3


def test_a_point_that_is_never_reached_kills_nothing(tmp_path, start):
    process = start(tmp_path / "store", DRAWS, crash="train-step-99")
    assert ended(process) == 0
    assert len(list(open_store(str(tmp_path / "store"), TIMING).entries())) == NODES


def test_a_killed_training_continues_from_its_checkpoint(tmp_path, diary, start):
    ended(start(tmp_path / "store", DRAWS, crash="train-step-7"))
    toy_run(open_store(str(tmp_path / "store"), TIMING), DRAWS)
    steps = [line for line in read_diary(diary) if line.startswith("train")]
    assert steps[0] == "train from 0"
    assert steps.index("train from 4") == 8
    assert steps[-1] == "train step 12"


def test_without_its_checkpoint_it_starts_again(tmp_path, diary, start):
    ended(start(tmp_path / "store", DRAWS, crash="train-step-7"))
    (checkpoint,) = (tmp_path / "store").glob("train/*/checkpoints/state.json")
    checkpoint.unlink()
    toy_run(open_store(str(tmp_path / "store"), TIMING), DRAWS)
    assert read_diary(diary).count("train from 0") == 2


def test_sigterm_gives_the_lease_back_and_the_same_command_continues(tmp_path, diary, start):
    process = start(tmp_path / "store", DRAWS, "train.pause_s=0.1")
    wait_for(lambda: "train step 6" in read_diary(diary))
    process.terminate()
    assert ended(process) == 143
    store = open_store(str(tmp_path / "store"), TIMING)
    (entry,) = store.entries()
    assert not entry.held
    assert not entry.committed
    assert store.backend.names(f"{entry.stage}/{entry.key}/attempts") == []
    toy_run(store, DRAWS, "train.pause_s=0.1")
    assert "train from 4" in read_diary(diary)


def test_two_processes_build_each_key_once(tmp_path, diary, start):
    store = tmp_path / "store"
    processes = [start(store, DRAWS, "train.pause_s=0.05") for _ in range(2)]
    for process in processes:
        assert ended(process) == 0
    lines = read_diary(diary)
    for once in ("train from 0", "train step 12", "encode", "draw 0", "draw 1", "score 0"):
        assert lines.count(once) == 1, once
    assert_tidy(open_store(str(store), TIMING))


def test_two_different_runs_share_nothing_they_should_not(tmp_path, diary, start):
    store = tmp_path / "store"
    processes = [start(store, DRAWS, f"train_seed={seed}") for seed in (1, 2)]
    for process in processes:
        assert ended(process) == 0
    assert read_diary(diary).count("train from 0") == 2


def test_a_waiter_takes_over_from_a_killed_stage_worker(tmp_path, diary, start):
    store = tmp_path / "store"
    first = start(store, DRAWS, "train.pause_s=0.3")
    wait_for(lambda: "train step 5" in read_diary(diary))
    second = start(store, DRAWS, "train.pause_s=0.3")
    time.sleep(0.8)
    assert read_diary(diary).count("train from 0") == 1
    first.kill()
    assert ended(second) == 0
    lines = read_diary(diary)
    assert any(f"train from {step}" in lines for step in (4, 8))
    assert lines.count("train step 12") == 1


def test_a_stage_worker_that_slept_too_long_loses_and_nothing_is_doubled(tmp_path, diary, start):
    store = tmp_path / "store"
    first = start(store, DRAWS, "train.pause_s=0.1")
    wait_for(lambda: "train step 5" in read_diary(diary))
    os.kill(first.pid, signal.SIGSTOP)
    second = start(store, DRAWS, "train.pause_s=0.1")
    assert ended(second) == 0
    os.kill(first.pid, signal.SIGCONT)
    assert ended(first) == 0
    opened = open_store(str(store), TIMING)
    collect(opened)
    assert_tidy(opened)
    assert read_diary(diary).count("encode") == 1


def ended(process):
    process.join(timeout=60)
    return process.exitcode


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
