"""What this machine has to run a study on; neither Ray nor torch is asked."""

import os
from pathlib import Path

from namd.config.cpus import available_cpus
from namd.study.plan import Cluster

DRIVER = Path("/proc/driver/nvidia/gpus")


def this_machine() -> Cluster:
    """Return the cores that this process may use, and the devices that it may see."""
    return Cluster(cpus=float(available_cpus()), gpus=float(_visible_gpus()))


def _visible_gpus() -> int:
    """Return this machine's NVIDIA devices, as far as CUDA_VISIBLE_DEVICES shows them."""
    present = len(list(DRIVER.iterdir())) if DRIVER.is_dir() else 0
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return present
    return min(present, len([word for word in shown.split(",") if word.strip() not in ("", "-1")]))
