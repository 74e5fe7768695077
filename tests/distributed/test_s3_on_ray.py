"""The S3 of a real study on Ray goes away: one line, and the same command continues it later.

Everything is as a user has it: the command line in a process of its own, preset tiny, real stages
in Ray's stage workers. Only the server is this machine's, behind a line that the test cuts or
stops.
"""

import json
import subprocess
import sys
import time

import pytest

from namd.cli.main import main
from namd.ledger.reading import study_names
from namd.ledger.view import StudyView, read_view
from namd.storage.opening import open_storage
from namd.storage.s3 import PATIENCE_VARIABLE

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1500)]

PATIENCE_S = 600.0
STUDY = """
name: clouded
question: Does the study outlive its S3?
base: {preset: tiny, method: namd}
seeds: 1
ablation:
  design: leave-one-out
  toggles:
    pretrain: {pretrain.num_steps: 0}
evaluate: {split: test, num_draws: 2, primary: auroc}
"""


@pytest.fixture
def command(s3_url, tmp_path, monkeypatch) -> list[str]:
    """`namd study run` of a small study on an S3 that is waited for eight seconds."""
    monkeypatch.setenv(PATIENCE_VARIABLE, "8")
    cohort, file = tmp_path / "cohort", tmp_path / "clouded.yaml"
    build = ["cohort", "build", "phantom", "--cases", "300", "--replicates", "4"]
    assert main([*build, "--seed", "2", "--out", str(cohort)]) == 0
    file.write_text(STUDY)
    run = [sys.executable, "-m", "namd", "study", "run", str(file), "--cohort", str(cohort)]
    return [*run, "--store", s3_url, "--wandb", "off", "--json"]


def await_stages(process: subprocess.Popen, url: str, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        begun = "clouded" in study_names(open_storage(url))
        if begun and len(seen(url).executions()) >= count:
            return
        time.sleep(1.0)
    raise AssertionError(f"the study never built {count} stages")


def seen(url: str) -> StudyView:
    return read_view(open_storage(url), "clouded")


@pytest.mark.parametrize("outage", ["cut", "stop"])
def test_a_study_on_ray_whose_s3_dies_says_so_in_one_line_and_is_continued(
    s3_line, s3_url, command, tmp_path, outage
):
    errors = tmp_path / "errors.txt"
    with errors.open("w") as stream:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True)
    try:
        await_stages(process, s3_url, 3)
        getattr(s3_line, outage)()
        began = time.monotonic()
        code = process.wait(PATIENCE_S)
        line_after_s = time.monotonic() - began
    finally:
        process.kill()
    said = errors.read_text()
    assert code == 1, said
    assert "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert s3_url in last
    assert "--resume" in last
    s3_line.mend()
    before = seen(s3_url)
    assert before.counts()["failed"] == 0
    again = subprocess.run(
        [*command, "--resume"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["trials"]["completed"] == 2
    after = seen(s3_url)
    assert after.ended == "closed"
    assert set(after.executions().values()) == {1}
    assert set(before.executions()) <= set(after.executions())
    figures = {
        "outage": outage,
        "line_after_s": round(line_after_s, 1),
        "ended_after_s": round(time.monotonic() - began, 1),
        "stages_before": len(before.executions()),
        "stages": len(after.executions()),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
