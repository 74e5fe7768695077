"""The Slurm script: read by bash and shellcheck, and run against a Slurm made of small scripts."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from namd.cli.main import build_parser

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
DEADLINE_S = 30.0

SRUN = """#!/bin/bash
node=
while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && node=${1#*=}; shift; done
echo "srun $node $*" >> "$CALLS"
exec "$@"
"""
RAY = """#!/bin/bash
echo "ray $*" >> "$CALLS"
exec sleep 1000
"""
NAMD = """#!/bin/bash
echo "namd $*" >> "$CALLS"
trap 'sleep 0.3; echo checkpoint >> "$CALLS"; exit 143' TERM
[[ -n ${ENDS:-} ]] && exit "$ENDS"
while true; do sleep 0.05; done
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then printf '%s\\n' one two; else echo "scontrol $*" >> "$CALLS"; fi
"""
OTHERS = {
    "srun": SRUN,
    "ray": RAY,
    "namd": NAMD,
    "scontrol": SCONTROL,
    "hostname": "#!/bin/bash\necho 127.0.0.9\n",
    "python": "#!/bin/bash\ncat > /dev/null\n",
}


@pytest.fixture
def script(cluster_folder):
    return cluster_folder / "slurm.sbatch"


@pytest.fixture
def slurm(tmp_path):
    """Returns an environment in which the script finds a Slurm, and the record of its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in OTHERS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "activate").write_text("")
    calls = tmp_path / "calls"
    calls.touch()
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_JOB_ID": "31",
        "SLURM_JOB_NODELIST": "[one-two]",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
        "NAMD_VENV": str(tmp_path),
        "NAMD_STUDY": "study.yaml",
        "NAMD_STORE": "/shared/store",
        "NAMD_COHORT": "/shared/cohort",
    }
    return environment, calls


def begin(script, environment):
    return subprocess.Popen(["bash", str(script)], env=environment, start_new_session=True)


def finish(process):
    """End what is left as Slurm does at a job's end: the whole group."""
    try:
        return process.wait(DEADLINE_S)
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(calls, word):
    end = time.monotonic() + DEADLINE_S
    while word not in calls.read_text():
        assert time.monotonic() < end, calls.read_text()
        time.sleep(0.02)


def directives(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line[:7] == "#SBATCH"]


def test_bash_reads_it(script):
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def shellcheck(path):
    return subprocess.run([SHELLCHECK, path], capture_output=True, text=True, check=False)


def test_shellcheck_finds_nothing(script):
    done = shellcheck(script)
    assert done.returncode == 0, done.stdout


def test_shellcheck_would_find_something(tmp_path):
    (tmp_path / "wrong.sh").write_text("#!/bin/bash\nfor x in $*; do rm $x; done\n")
    assert shellcheck(tmp_path / "wrong.sh").returncode == 1


def test_slurm_warns_in_time_and_queues_again(script):
    text = directives(script.read_text(encoding="utf-8"))
    assert "--signal=B:TERM@120" in text
    assert "--requeue" in text
    assert "--ntasks-per-node=1" in text


def test_the_head_starts_once_every_other_node_joins_it_with_one_token(script, slurm):
    environment, calls = slurm
    process = begin(script, {**environment, "ENDS": "0"})
    assert finish(process) == 0
    lines = calls.read_text().splitlines()
    heads = [line for line in lines if line.startswith("ray start") and "--head" in line]
    joined = [line for line in lines if line.startswith("ray start") and "--address" in line]
    assert len(heads) == len(joined) == 1
    assert "--port=20031" in heads[0]
    assert "namd_driver" in heads[0]
    assert "--address=127.0.0.9:20031" in joined[0]
    assert not any(line.startswith("scontrol requeue") for line in lines)


def test_the_study_is_a_command_that_resumes(script, slurm):
    environment, calls = slurm
    finish(begin(script, {**environment, "ENDS": "0"}))
    (line,) = [line for line in calls.read_text().splitlines() if line.startswith("namd ")]
    words = shlex.split(line)[1:]
    parsed = build_parser(words).parse_args(words)
    assert parsed.resume
    assert (parsed.file, parsed.store) == ("study.yaml", "/shared/store")
    assert (parsed.cohort, parsed.address) == ("/shared/cohort", "auto")


def test_a_warned_job_lets_the_study_write_and_asks_for_another_turn(script, slurm):
    environment, calls = slurm
    process = begin(script, environment)
    wait_for(calls, "namd study run")
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process) == 143
    lines = calls.read_text().splitlines()
    assert lines[-2:] == ["checkpoint", "scontrol requeue 31"]


def test_a_failed_study_is_not_queued_again(script, slurm):
    environment, calls = slurm
    assert finish(begin(script, {**environment, "ENDS": "1"})) == 1
    assert "requeue" not in calls.read_text()


def test_a_job_without_a_study_says_so(script, slurm):
    environment, _ = slurm
    del environment["NAMD_STUDY"]
    done = subprocess.run(
        ["bash", str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "name the study file" in done.stderr
