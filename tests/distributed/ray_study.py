"""Runs a toy study on a Ray of its own, in a process that a test may kill."""

import os
import sys
from pathlib import Path

import toy_study as toy
from play import PARTS, Recorder

from namd.distributed.driver import run_study
from namd.pipeline.interruption import interruptible

BASE = {"finetune.pause_s": 0.25, "finetune.steps": 12, "finetune.checkpoint_every": 3}


def spec():
    resources = {"concurrency": 2, "default": {"cpus": 1.0}}
    return toy.ablation(seeds=2, base=BASE, resources=resources)


def run(folder: Path, resume: bool):
    return run_study(
        spec(),
        cohort=Path("none"),
        store_url=str(folder),
        address=None,
        resume=resume,
        reporter=Recorder(),
        methods=toy.METHODS,
        preset={},
        parts=PARTS,
    )


if __name__ == "__main__":
    # Ray's workers import the toy study too.
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    with interruptible():
        run(Path(sys.argv[1]), resume=True)
