"""What a study will run and cost, before it runs. Nothing is built and nothing is written here."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from namd.config.errors import InputError
from namd.ledger.view import StudyView
from namd.methods.base import Stage
from namd.methods.source_hash import source_hash
from namd.pipeline.digests import DigestCache
from namd.pipeline.estimate import nearest_cost
from namd.pipeline.graph import Fingerprint, Node, make_plan
from namd.pipeline.store import Store
from namd.storage.errors import StoreError
from namd.study.designs import Fraction
from namd.study.engine import Engine, Exhausted, Outcome
from namd.study.spec import ResourcesSpec, StageResources, StudySpec
from namd.study.trials import (
    Configurator,
    Trial,
    ablation_arms,
    ablation_trials,
    confirmation_seeds,
    proposal_trials,
)
from namd.study.worker_groups import (
    batch_refusal,
    device_seconds,
    devices_of_worker,
    num_workers,
    occupied,
)

SECONDS_PER_HOUR = 3600.0
SAY_EVERY_S = 5.0

Say = Callable[[str], None]

_Item = TypeVar("_Item")

_RECORDED = 20
"""Manifests read per stage name: the nearest is found among the latest so many keys."""


@dataclass(frozen=True)
class Cluster:
    """What there is to run on.

    Attributes:
        cpus: Cores of all nodes together.
        gpus: Accelerators of all nodes together.
        node_cpus: Cores of the largest node; None: one node has them all.
        node_gpus: Accelerators of the largest node; None: one node has them all.
    """

    cpus: float
    gpus: float = 0.0
    node_cpus: float | None = None
    node_gpus: float | None = None


@dataclass(frozen=True)
class StageEstimate:
    """What one stage of a study comes to.

    Attributes:
        stage: Its name.
        distinct: Artifacts the study needs, each counted once.
        in_store: How many of them are there.
        seconds_each: Device seconds that building one is charged; None: unknown.
        source: Where that number comes from: `recorded`, `calibration`, `nothing to build` or
            `unknown`.
        other_source: How many of those in the store were made by other project source.
        role: The stage's role; trainings cost alike sooner than others.
        devices: Devices that are occupied while one is built.
    """

    stage: str
    distinct: int
    in_store: int
    seconds_each: float | None
    source: str
    other_source: int = 0
    role: str = ""
    devices: float = 1.0

    @property
    def wall_seconds_each(self) -> float | None:
        """Seconds that pass while one is built; None: unknown."""
        return None if self.seconds_each is None else self.seconds_each / self.devices

    @property
    def seconds(self) -> float:
        """Device seconds still to spend; 0 if unknown."""
        return (self.distinct - self.in_store) * (self.seconds_each or 0.0)


@dataclass(frozen=True)
class StudyPlan:
    """The answer of `namd study plan`.

    Attributes:
        study: Its name.
        arms: Arm names with the names merged into each; empty for a search.
        trials: Trials, confirmation of a search's winner included.
        stages: One line per stage name, upstream first.
        stages_total: Artifacts that the trials need, each counted in every trial.
        peak_concurrency: Most stages that are built at once.
        spent_hours: Device hours that the ledger has already recorded.
        budget_hours: None: no limit.
        estimated: Whether later proposals were guessed, since they depend on outcomes.
        refused: None, or why it cannot run, with the numbers.
        fraction: Of a fractional design, else None.
        resources: What stages reserve, the choices that the file leaves open made.
    """

    study: str
    arms: Mapping[str, tuple[str, ...]]
    trials: int
    stages: Sequence[StageEstimate]
    stages_total: int
    peak_concurrency: int
    spent_hours: float
    budget_hours: float | None
    estimated: bool
    refused: str | None
    fraction: Fraction | None = None
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)

    @property
    def device_hours(self) -> float:
        """Device hours still to spend, unknown stages left out."""
        return sum(stage.seconds for stage in self.stages) / SECONDS_PER_HOUR

    @property
    def wall_seconds(self) -> float:
        """Seconds that pass if all is built one after the other, unknown stages left out."""
        return sum(stage.seconds / stage.devices for stage in self.stages)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Stages to build whose cost nothing is known of; device_hours is then a lower bound."""
        return tuple(s.stage for s in self.stages if s.source == "unknown")

    def to_mapping(self) -> dict[str, Any]:
        """Return what `namd study plan --json` prints."""
        return {
            "study": self.study,
            "arms": [{"arm": arm, "aliases": list(same)} for arm, same in self.arms.items()],
            "fraction": None if self.fraction is None else self.fraction.to_mapping(),
            "trials": self.trials,
            "stages_total": self.stages_total,
            "stages_distinct": sum(stage.distinct for stage in self.stages),
            "stages_in_store": sum(stage.in_store for stage in self.stages),
            "device_hours": round(self.device_hours, 4),
            "unknown_stages": list(self.unknown),
            "spent_device_hours": round(self.spent_hours, 4),
            "budget_device_hours": self.budget_hours,
            "peak_concurrency": self.peak_concurrency,
            "estimated": self.estimated,
            "refused": self.refused,
            "stages": [
                {
                    "stage": s.stage,
                    "distinct": s.distinct,
                    "in_store": s.in_store,
                    "device_seconds_each": s.seconds_each,
                    "source": s.source,
                    "made_by_other_source": s.other_source,
                }
                for s in self.stages
            ],
        }


@dataclass
class Holdings:
    """What a store holds, looked up without fetching a payload.

    Attributes:
        store: None: nothing is held.
    """

    store: Store | None
    _manifests: dict[tuple[str, str], Mapping[str, Any] | None] = field(default_factory=dict)
    _recorded: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def manifest(self, stage: str, key: str) -> Mapping[str, Any] | None:
        """Return an artifact's manifest, or None if it is not published.

        Raises StoreError if it is damaged.
        """
        if self.store is None:
            return None
        if (stage, key) not in self._manifests:
            self._manifests[stage, key] = self.store.manifest(stage, key)
        return self._manifests[stage, key]

    def recorded(self, stage: str) -> list[Mapping[str, Any]]:
        """Return manifests of other artifacts of a stage name; damaged ones are left out."""
        if self.store is None:
            return []
        if stage not in self._recorded:
            keys = self.store.backend.names(stage)[:_RECORDED]
            found = []
            for key in keys:
                with suppress(StoreError):
                    found.append(self.manifest(stage, key))
            self._recorded[stage] = [manifest for manifest in found if manifest is not None]
        return self._recorded[stage]


def make_study_plan(
    spec: StudySpec,
    configurator: Configurator,
    cluster: Cluster,
    *,
    cohort: Path | None = None,
    store: Store | None = None,
    view: StudyView | None = None,
    calibration: Mapping[str, float] | None = None,
    cohort_digest: Fingerprint | None = None,
    hash_source: Callable[[Any], str] = source_hash,
    say: Say | None = None,
) -> StudyPlan:
    """Plan a study.

    Args:
        spec: The study.
        configurator: Makes its configurations.
        cluster: What there is to run on.
        cohort: The cohort's folder.
        store: Where artifacts may already be.
        view: The study's ledger, if it was started before.
        calibration: Stage name to seconds of one worker, for stages without a manifest.
        cohort_digest: Replaces the cohort's own fingerprint.
        hash_source: Replaces the digest of a stage's source.
        say: Called every few seconds with how far the plan of a large study is.

    Raises:
        InputError: A path does not fit, the cohort cannot be read, or weights are missing.
    """
    configurator.check()
    configurator.check_measured()
    trials, estimated = planned_trials(spec, configurator, view, say)
    needed = _needed(_counted(trials, "keys", say), cohort, cohort_digest)
    families = needed.families()
    holdings = Holdings(store)
    resources = configurator.resources()
    known = calibration or {}
    estimates = [_estimate(alike, holdings, known, resources, hash_source) for alike in families]
    missing = [node for place, node in needed.nodes.items() if holdings.manifest(*place) is None]
    plan = StudyPlan(
        study=spec.name,
        arms=_arms(spec, configurator),
        trials=len(trials),
        stages=estimates,
        stages_total=needed.total,
        peak_concurrency=peak_concurrency(missing, resources, cluster),
        spent_hours=view.device_seconds() / SECONDS_PER_HOUR if view is not None else 0.0,
        budget_hours=spec.budget.device_hours if spec.budget is not None else None,
        estimated=estimated,
        refused=None,
        fraction=spec.ablation.fraction if spec.ablation is not None else None,
        resources=resources,
    )
    refused = (
        worker_group_refusal((alike[0].stage for alike in families), resources, cluster)
        or batch_refusal(missing, resources)
        or _over_budget(plan)
    )
    return replace(plan, refused=refused)


@dataclass
class _Needed:
    """The distinct nodes that trials need, by stage name and key, and how many with repetitions."""

    nodes: dict[tuple[str, str], Node] = field(default_factory=dict)
    total: int = 0

    def families(self) -> list[list[Node]]:
        """Return the nodes of each stage name together, in the order in which they were met."""
        found: dict[str, list[Node]] = {}
        for (name, _), node in self.nodes.items():
            found.setdefault(name, []).append(node)
        return list(found.values())


def _needed(
    trials: Iterable[Trial], cohort: Path | None, cohort_digest: Fingerprint | None
) -> _Needed:
    needed, digests = _Needed(), DigestCache()
    for trial in trials:
        configuration = trial.configuration
        plan = make_plan(
            configuration.stages(),
            configuration.config,
            cohort,
            digests=digests,
            cohort_digest=cohort_digest,
        )
        needed.total += len(plan.nodes)
        for node in plan.nodes:
            needed.nodes.setdefault((node.stage.name, node.key), node)
    return needed


def planned_trials(
    spec: StudySpec,
    configurator: Configurator,
    view: StudyView | None = None,
    say: Say | None = None,
) -> tuple[list[Trial], bool]:
    """Return the trials of a study, and whether some of them are guesses.

    Grid and random proposals do not depend on outcomes and are exact. Of tpe and nsga2 the
    proposals in the ledger are exact, the rest stands in: random points of the same space. So
    does the first proposal for the winner that is confirmed on fresh seeds.
    """
    if spec.search is None:
        return ablation_trials(spec, configurator), False
    overrides, guessed = _search_overrides(spec, view)
    found = {
        trial.trial: trial
        for number, values in enumerate(_counted(overrides, "configurations", say))
        for trial in proposal_trials(spec, configurator, number, values)
    }
    for seed in confirmation_seeds(spec):
        trial = configurator.trial(overrides[0], seed)
        found.setdefault(trial.trial, trial)
    return list(found.values()), guessed


def _counted(items: Sequence[_Item], what: str, say: Say | None) -> Iterator[_Item]:
    """Yield the items, and say every few seconds how many there were."""
    last = time.monotonic()
    for number, item in enumerate(items):
        if say is not None and time.monotonic() - last >= SAY_EVERY_S:
            last = time.monotonic()
            say(f"planning: {what} of {number:,} of {len(items):,}")
        yield item


def worker_group_refusal(
    stages: Iterable[Stage], resources: ResourcesSpec, cluster: Cluster
) -> str | None:
    """Return why a stage's smallest worker group can never be placed, or None."""
    for stage in stages:
        need = occupied(stage, resources.of(stage.name, stage.family))
        for word, per_worker, whole, node in (
            ("GPUs", need.gpus, cluster.gpus, cluster.node_gpus),
            ("CPUs", need.cores, cluster.cpus, cluster.node_cpus),
        ):
            if need.least * per_worker > whole:
                return (
                    f"stage {stage.name} needs {need.least} workers x {per_worker:g} {word} = "
                    f"{need.least * per_worker:g}, the cluster has {whole:g}"
                )
            if node is not None and per_worker > node:
                return (
                    f"stage {stage.name} needs {per_worker:g} {word} for one worker, the largest "
                    f"node has {node:g}"
                )
    return None


def peak_concurrency(nodes: Sequence[Node], resources: ResourcesSpec, cluster: Cluster) -> int:
    """Return how many of the missing stages are built at once at most.

    Stages at the same depth are independent of each other; the widest depth bounds what there
    is to do, the cluster's resources and `resources.concurrency` what can be done.
    """
    depths: dict[str, int] = {}
    widths: dict[int, dict[StageResources, int]] = {}
    for node in nodes:
        depth = 1 + max((depths.get(key, 0) for _, key in node.inputs.values()), default=0)
        depths[node.key] = depth
        needs = widths.setdefault(depth, {})
        need = occupied(node.stage, resources.of(node.stage.name, node.stage.family))
        needs[need] = needs.get(need, 0) + 1
    peak = max((_placed(needs, cluster) for needs in widths.values()), default=0)
    return peak if resources.concurrency is None else min(peak, resources.concurrency)


def _placed(needs: Mapping[StageResources, int], cluster: Cluster) -> int:
    """Return how many of the stages of one depth fit side by side, the smallest first."""
    gpus, cpus, placed = cluster.gpus, cluster.cpus, 0
    for need, count in sorted(needs.items(), key=lambda pair: (pair[0].gpus, pair[0].cores)):
        fit = math.floor(cpus / (need.least * need.cores))
        if need.gpus:
            fit = min(fit, math.floor(gpus / (need.least * need.gpus)))
        taken = min(count, fit)
        gpus -= taken * need.least * need.gpus
        cpus -= taken * need.least * need.cores
        placed += taken
    return placed


def _estimate(
    nodes: Sequence[Node],
    holdings: Holdings,
    calibration: Mapping[str, float],
    reserved: ResourcesSpec,
    hash_source: Callable[[Any], str],
) -> StageEstimate:
    stage = nodes[0].stage
    name = stage.name
    resources = reserved.of(name, stage.family)
    manifests = [holdings.manifest(name, node.key) for node in nodes]
    held = [(n, m) for n, m in zip(nodes, manifests, strict=True) if m is not None]
    other = sum(m.get("source_hash") != hash_source(n.stage) for n, m in held)
    missing = [node for node, manifest in zip(nodes, manifests, strict=True) if manifest is None]
    estimate = partial(
        StageEstimate,
        name,
        len(nodes),
        len(held),
        other_source=other,
        role=stage.role,
        devices=num_workers(stage, resources) * devices_of_worker(resources),
    )
    if not missing:
        return estimate(0.0, "nothing to build")
    recorded = [nearest_cost(node, holdings.recorded(name)) for node in missing]
    known = [cost for cost in recorded if cost is not None]
    if known:
        return estimate(device_seconds(statistics.fmean(known), resources), "recorded")
    if name in calibration:
        return estimate(device_seconds(calibration[name], resources), "calibration")
    return estimate(None, "unknown")


def _over_budget(plan: StudyPlan) -> str | None:
    budget = plan.budget_hours
    if budget is None or plan.spent_hours + plan.device_hours <= budget:
        return None
    return (
        f"{plan.device_hours:.2f} device hours to go and {plan.spent_hours:.2f} spent "
        f"exceed the budget of {budget:g}; raise budget.device_hours, or take "
        "fewer seeds, arms, trials or steps"
    )


def _arms(spec: StudySpec, configurator: Configurator) -> dict[str, tuple[str, ...]]:
    if spec.ablation is None:
        return {}
    return {arm.name: arm.aliases for arm in ablation_arms(spec, configurator)}


def _search_overrides(
    spec: StudySpec, view: StudyView | None
) -> tuple[list[Mapping[str, Any]], bool]:
    """Return the overrides of every proposal, and whether some are guesses."""
    if spec.search is None:
        raise InputError(f"study {spec.name} is no search")
    known = view.proposals if view is not None else {}
    found: list[Mapping[str, Any]] = [known[n].overrides for n in sorted(known)]
    engine = Engine(spec.search)
    guessed = spec.search.sampler in ("tpe", "nsga2")
    for number in range(engine.limit):
        try:
            proposal = engine.propose(number)
        except Exhausted:
            break
        if guessed:
            # Outcomes that teach nothing keep the sampler at random points.
            engine.tell(number, Outcome("failed"))
        if number >= len(found):
            found.append(proposal.overrides)
    return found, guessed and len(known) < engine.limit
