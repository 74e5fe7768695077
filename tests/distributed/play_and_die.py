"""Plays a study until its n-th record is durable, then dies as a killed process does."""

import os
import sys
from pathlib import Path

import toy_study as toy
from play import Recorder, Theatre

if __name__ == "__main__":
    folder, kind, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    steps = []

    def die(*_):
        steps.append(1)
        if len(steps) == after:
            os.kill(os.getpid(), 9)

    spec = (
        toy.ablation() if kind == "ablation" else toy.search(stop_early={"asha": {"reduction": 2}})
    )
    Theatre(folder, spec, reporter=Recorder(die)).play()
