"""How a process that trains on CUDA is set up; the settings can be looked at without a device."""

import json
import subprocess
import sys

from namd.train import world

LOOK = """
import json, os, torch
from namd.train.world import compute_repeatably
before = torch.are_deterministic_algorithms_enabled()
compute_repeatably()
print(json.dumps([
    before,
    torch.are_deterministic_algorithms_enabled(),
    torch.is_deterministic_algorithms_warn_only_enabled(),
    torch.backends.cudnn.allow_tf32,
    torch.backends.cuda.matmul.allow_tf32,
    os.environ["CUBLAS_WORKSPACE_CONFIG"],
]))
"""


def test_repeatable_means_deterministic_kernels_and_no_tf32():
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True, True, False, False, ":4096:8"]


def test_a_world_on_cuda_asks_for_it_and_one_on_the_processor_does_not(monkeypatch):
    asked = []
    monkeypatch.setattr(world, "compute_repeatably", lambda: asked.append(True))
    world.current_world("cpu")
    assert not asked
    assert world.current_world("cuda:0").device == "cuda:0"
    assert asked == [True]
