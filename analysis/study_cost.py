"""The cost of a study per stage, the savings by reuse, its failures, and its programs' versions.

Everything comes from the ledger and the manifests; nothing is estimated.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from analysis.study_scores import needed_stages
from namd.ledger.view import StudyView
from namd.storage.artifacts import read_manifest
from namd.storage.base import Storage


@dataclass(frozen=True)
class StageCost:
    """One stage of a study.

    Attributes:
        stage: Its name, draws of one split together.
        wanted: Artifacts that the trials needed, each counted in every trial.
        distinct: Number of different artifacts.
        executed: Builds in this study.
        device_seconds: Device seconds of these builds.
        alone_seconds: Device seconds if every trial had built its own; None if the
            cost of a found artifact is no longer known.
    """

    stage: str
    wanted: int
    distinct: int
    executed: int
    device_seconds: float
    alone_seconds: float | None

    @property
    def saved_seconds(self) -> float | None:
        """Device seconds that reuse saved."""
        return None if self.alone_seconds is None else self.alone_seconds - self.device_seconds


@dataclass(frozen=True)
class Failure:
    """Why trials ended early.

    Attributes:
        state: failed, diverged or pruned.
        reason: The reason in the ledger.
        trials: The trials: `arm, seed 2` or `proposal 7, seed 0`.
    """

    state: str
    reason: str
    trials: tuple[str, ...]


def stage_costs(storage: Storage, view: StudyView) -> list[StageCost]:
    """Return the cost per stage name, in the order in which stages first appeared."""
    wanted: dict[str, Counter[str]] = {}
    built: dict[str, dict[str, float]] = {}
    for trial in view.trials.values():
        for done in needed_stages(trial):
            wanted.setdefault(done.stage.name, Counter())[done.key] += 1
        for done in trial.stages:
            if not done.cached:
                # One execution may be recorded by two attempts, the first of which was killed.
                which = done.artifact or f"{trial.trial} {done.attempt}"
                built.setdefault(done.key, {})[which] = done.device_seconds
    return [_cost(storage, name, keys, built) for name, keys in wanted.items()]


def total(costs: Iterable[StageCost]) -> StageCost:
    """Return the sum over stages."""
    costs = list(costs)
    alone = [cost.alone_seconds for cost in costs]
    return StageCost(
        "all stages",
        sum(cost.wanted for cost in costs),
        sum(cost.distinct for cost in costs),
        sum(cost.executed for cost in costs),
        sum(cost.device_seconds for cost in costs),
        None if any(a is None for a in alone) else sum(a for a in alone if a is not None),
    )


def failures(view: StudyView) -> list[Failure]:
    """Return the trials that ended early, grouped by reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for trial in view.trials.values():
        if trial.state in ("failed", "diverged", "pruned"):
            proposal = None if trial.queued is None else trial.queued.proposal
            name = f"{trial.arm or f'proposal {proposal}'}, seed {trial.seed}"
            found.setdefault((trial.state, trial.reason), []).append(name)
    return [Failure(*what, tuple(who)) for what, who in sorted(found.items())]


def environments(storage: Storage, view: StudyView) -> list[dict[str, Any]]:
    """Return the different programs that built the study's artifacts, the most frequent first.

    Python and library versions, git commit and whether the tree was changed; hosts are left out.
    """
    found: Counter[str] = Counter()
    needed = [done for trial in view.trials.values() for done in needed_stages(trial)]
    for key, name in {done.key: done.stage.name for done in needed}.items():
        manifest = read_manifest(storage, name, key)
        environment: Mapping[str, Any] = (manifest or {}).get("environment", {})
        if environment:
            kept = {
                n: environment.get(n) for n in ("python", "git_commit", "git_dirty", "libraries")
            }
            found[json.dumps(kept, sort_keys=True)] += 1
    return [json.loads(text) | {"artifacts": number} for text, number in found.most_common()]


def _cost(
    storage: Storage, stage: str, keys: Counter[str], built: Mapping[str, Mapping[str, float]]
) -> StageCost:
    alone: float | None = 0.0
    for key, times in keys.items():
        seconds = max(built[key].values()) if built.get(key) else _recorded(storage, stage, key)
        alone = None if alone is None or seconds is None else alone + times * seconds
    spent = [seconds for key in keys for seconds in built.get(key, {}).values()]
    return StageCost(stage, keys.total(), len(keys), len(spent), sum(spent), alone)


def _recorded(storage: Storage, stage: str, key: str) -> float | None:
    manifest = read_manifest(storage, stage, key)
    return None if manifest is None else float(manifest["device_seconds"])
