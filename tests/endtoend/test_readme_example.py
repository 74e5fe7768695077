"""The README's Python example, run as it stands there, in a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.serial

REPOSITORY = Path(__file__).resolve().parents[2]
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def example() -> str:
    """Return the one Python block of the README."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.S | re.M
    )
    (block,) = blocks
    return block


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    environment = {name: value for name, value in os.environ.items() if name != "NAMD_STORE"}
    return folder, subprocess.run(
        [sys.executable, "-c", example()],
        cwd=folder,
        env=environment | OFFLINE | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_runs_and_shows_that_its_numbers_are_simulated(done):
    folder, process = done
    assert process.returncode == 0, process.stderr
    banner, *_ = process.stdout.splitlines()
    assert banner.startswith("SIMULATED")
    assert "auroc.mean" in process.stdout
    assert "StudyPlan(align: 2 trials)" in process.stdout
    assert sorted(path.name for path in (folder / "runs").iterdir()) == ["cohort", "store"]


def test_what_it_ran_is_found_by_the_next_process(done):
    folder, process = done
    assert process.returncode == 0, process.stderr
    code = (
        "import namd; plan = namd.plan('tiny', cohort='runs/cohort', store='runs/store', "
        "set={'vae.alignment.weight': 0}); print(plan.num_missing, namd.load_run(plan.key, "
        "'runs/store').key == plan.key)"
    )
    again = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True,
        env=os.environ | OFFLINE | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert again.stdout.split() == ["0", "True"]


def test_it_has_about_ten_lines():
    lines = [line for line in example().splitlines() if line]
    assert 8 <= len(lines) <= 12
