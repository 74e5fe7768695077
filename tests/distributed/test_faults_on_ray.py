"""One SIGKILL each of a stage worker, a trial driver, the study driver and the head, while
training.

And what ends it in peace: SIGTERM, and the SIGHUP of a terminal to all of its processes.

After `--resume`: no trial lost or doubled, no process left, the same table, and no more steps
repeated than lie between two checkpoints.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ray_study
import toy_study as toy
from play import Theatre

from namd.cli.study_inputs import Ledger, read_whole
from namd.ledger.view import read_view
from namd.storage.opening import open_storage

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 300.0
SCRIPT = Path(__file__).with_name("ray_study.py")
INTERVAL = ray_study.BASE["finetune.checkpoint_every"]


@pytest.fixture(autouse=True)
def ray_folder(monkeypatch):
    """Where a study keeps Ray's files; its name must be short."""
    with tempfile.TemporaryDirectory(prefix="nf-", dir="/tmp", ignore_cleanup_errors=True) as place:
        monkeypatch.setenv("RAY_TMPDIR", place)
        yield Path(place)


def start(folder: Path) -> subprocess.Popen:
    with said(folder).open("a") as output:
        command = [sys.executable, str(SCRIPT), str(folder)]
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)


def said(folder: Path) -> Path:
    """What the processes of a study print."""
    return folder.with_name(f"{folder.name}.out")


def await_that(condition: Callable[[], object], what: str) -> object:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"never came: {what}")


def training(folder: Path) -> int | None:
    """The process id of a stage worker that is past its first checkpoint of `finetune`."""
    begun: dict[str, str] = {}
    for line in toy.read_diary(folder):
        words = line.split()
        if words[0] == "finetune" and words[2] == "from":
            begun[words[1]] = words[-1]
        elif words[0] == "finetune" and words[2:] == ["step", str(INTERVAL + 2)]:
            return int(begun[words[1]])
    return None


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def named(process: subprocess.Popen, word: str) -> psutil.Process:
    return next(p for p in descendants(process) if word in " ".join(p.cmdline()))


def trial_driver(process: subprocess.Popen) -> psutil.Process | None:
    """The process of a trial: Ray's, and neither stage worker nor stage scheduler nor waiting for
    work.

    A trial is built for before its process is there.
    """
    others = ("StageWorker", "StageScheduler", "IDLE", "Agent")
    titles = {p: " ".join(p.cmdline()) for p in descendants(process)}
    found = (
        p
        for p, title in titles.items()
        if title.startswith("ray::") and not any(word in title for word in others)
    )
    return next(found, None)


def check(folder: Path, before: list[psutil.Process]) -> dict[str, int]:
    """Assert what must hold once the study is through; return the figures."""
    await_that(
        lambda: not [p for p in before if p.is_running() and p.status() != psutil.STATUS_ZOMBIE],
        "an end of every process of the killed run",
    )
    view = read_view(open_storage(str(folder)), "toys")
    assert view.ended == "closed"
    assert view.counts()["completed"] == 6
    assert set(view.executions().values()) == {1}
    unbroken = Theatre(folder.parent / "unbroken", ray_study.spec()).play()
    assert [(t.trial, t.values) for t in view.trials.values()] == [
        (t.trial, t.values) for t in unbroken.trials.values()
    ]
    steps = Counter(line for line in toy.read_diary(folder) if " step " in line)
    wasted = Counter(line.split()[1] for line, count in steps.items() for _ in range(count - 1))
    assert max(wasted.values(), default=0) <= INTERVAL
    return {"wasted": sum(wasted.values()), "attempts": view.attempt}


REASONS = {"sigterm": "stopped by SIGTERM", "terminal": "interrupted by SIGHUP"}


def check_words(folder: Path, ray_folder: Path, victim: str) -> None:
    """Assert that the user sees no word of Ray's, and the ledger the reason of an end in peace."""
    if victim in ("study_driver", "head"):
        return
    assert "Traceback" not in said(folder).read_text()
    assert "raylet" not in said(folder).read_text()
    # Ray's account of a trial that died stays to be read; nothing else does.
    logs = [log.read_text() for log in ray_folder.glob("namd-*/ray.log")]
    assert len(logs) == (victim == "trial_driver")
    assert all("Trial task failed" in log for log in logs)
    if victim in REASONS:
        ledger = Ledger(str(folder), "toys", open_storage(str(folder)))
        assert read_whole(ledger).stopped.startswith(REASONS[victim])


@pytest.mark.parametrize(
    "victim", ["stage_worker", "trial_driver", "study_driver", "head", "sigterm", "terminal"]
)
def test_a_kill_costs_at_most_a_checkpoint_interval(tmp_path, ray_folder, victim):
    folder = tmp_path / "store"
    process = start(folder)
    try:
        stage_worker = await_that(lambda: training(folder), "a checkpoint")
        processes = descendants(process)
        if victim == "stage_worker":
            os.kill(stage_worker, signal.SIGKILL)
        elif victim == "trial_driver":
            await_that(lambda: trial_driver(process), "a trial's process").kill()
        elif victim == "head":
            named(process, "gcs_server").kill()
        elif victim == "study_driver":
            process.kill()
        elif victim == "terminal":
            os.killpg(process.pid, signal.SIGHUP)
        else:
            process.terminate()
        code = process.wait(PATIENCE_S)
        expected = {"stage_worker": 0, "trial_driver": 0, "study_driver": -9}
        expected |= {"sigterm": 143, "terminal": 143}
        assert code == expected.get(victim, code)
        check_words(folder, ray_folder, victim)
        if victim in ("head", "study_driver", "sigterm", "terminal"):
            again = start(folder)
            try:
                assert again.wait(PATIENCE_S) == 0
            finally:
                again.kill()
        figures = check(folder, processes)
        sys.stdout.write(f"{victim}: exit {code}, {figures}\n")
    finally:
        if process.poll() is None:
            process.kill()
