"""How large a study's arms are and how long they trained, from what their draws depend on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.study_scores import completed, needed_stages
from namd.ledger.view import StageExecution, StudyView, TrialView
from namd.storage.artifacts import read_manifest
from namd.storage.base import Storage
from namd.storage.tensor_counts import stored_numbers


@dataclass(frozen=True)
class ArmSize:
    """What an arm's draws were made from.

    Attributes:
        parameters: Numbers stored in the artifacts that the draws read; None if they are not in
            the store, or too large to fetch.
        training_seconds: Device seconds of every training that the draws depend on, each counted
            in full although arms may share it; mean over training seeds. None if a manifest is
            gone.
    """

    parameters: int | None
    training_seconds: float | None


def arm_sizes(storage: Storage, view: StudyView, arms: Iterable[str]) -> dict[str, ArmSize]:
    """Return the size of each arm that has a completed trial."""
    found = {}
    for arm in arms:
        trials = list(completed(view, arm).values())
        if trials:
            seconds = [_training_seconds(storage, trial) for trial in trials]
            known = [each for each in seconds if each is not None]
            mean = float(np.mean(known)) if len(known) == len(seconds) else None
            found[arm] = ArmSize(_parameters(storage, trials[0]), mean)
    return found


def _parameters(storage: Storage, trial: TrialView) -> int | None:
    """Return the numbers in what a trial's draws read directly."""
    stages = {done.key: done for done in needed_stages(trial)}
    read = _upstream(storage, _first_draw(stages.values()))
    if read is None or not read <= stages.keys():
        return None
    counts = [stored_numbers(storage, stages[key].stage.name, key) for key in sorted(read)]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _training_seconds(storage: Storage, trial: TrialView) -> float | None:
    """Return the device seconds of all trainings upstream of a trial's draws."""
    stages = {done.key: done for done in needed_stages(trial)}
    first = _upstream(storage, _first_draw(stages.values()))
    if first is None:
        return None
    seconds, seen, waiting = 0.0, set[str](), sorted(first)
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        done = stages.get(key)
        manifest = None if done is None else read_manifest(storage, done.stage.name, key)
        if done is None or manifest is None:
            return None
        if done.stage.role == "train":
            seconds += float(manifest["device_seconds"])
        waiting += _named(manifest)
    return seconds


def _first_draw(stages: Iterable[StageExecution]) -> StageExecution | None:
    return next((done for done in stages if done.stage.role == "draw"), None)


def _upstream(storage: Storage, done: StageExecution | None) -> set[str] | None:
    """Return the keys that an artifact was made from; None if its manifest is gone."""
    manifest = None if done is None else read_manifest(storage, done.stage.name, done.key)
    return None if manifest is None else set(_named(manifest))


def _named(manifest: Mapping[str, Any]) -> list[str]:
    return list((manifest.get("identity", {}).get("upstream") or {}).values())
