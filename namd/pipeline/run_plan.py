"""What a run would build and what it finds in the store, before anything is trained.

Nothing is built and nothing is written here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from namd.data.named_cohort import stand_in
from namd.methods.source_hash import source_hash
from namd.models.weights import WeightStatus, require_all
from namd.pipeline.estimate import estimator
from namd.pipeline.graph import missing_weights
from namd.pipeline.run import plan_run, run_key
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Store
from namd.storage.stage_names import StageName


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a planned run.

    Attributes:
        stage: Which stage.
        key: Of its artifact.
        cached: Whether the store has the artifact.
        other_source: Whether that artifact was made by other project source.
    """

    stage: StageName
    key: str
    cached: bool
    other_source: bool

    @property
    def state(self) -> str:
        """Whether it is there, in words."""
        words = "in the store" if self.cached else "to build"
        return f"{words}, made by other source" if self.other_source else words

    def to_mapping(self) -> dict[str, Any]:
        """Return what `namd run --plan --json` prints of it."""
        state = {"key": self.key, "cached": self.cached, "other_source": self.other_source}
        return {"label": self.stage.label, **self.stage.to_mapping(), **state}


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run.

    Attributes:
        run: The key that the run will have.
        stages: In order.
        seconds: Per stage to build, estimated wall seconds; None if the store has none like it.
        missing_weights: Pretrained weights without which the run is refused.
        cohort: The cohort's folder.
        cohort_built: Whether it exists; keys made from a cohort that does not are provisional.
    """

    run: str
    stages: tuple[PlannedStage, ...]
    seconds: Mapping[str, float | None]
    missing_weights: tuple[WeightStatus, ...]
    cohort: Path
    cohort_built: bool

    @property
    def provisional(self) -> bool:
        """Whether the run's keys will differ from these."""
        return bool(self.missing_weights) or not self.cohort_built

    @property
    def num_missing(self) -> int:
        """Number of stages to build."""
        return sum(not stage.cached for stage in self.stages)

    def to_mapping(self) -> dict[str, Any]:
        """Return what `namd run --plan --json` prints."""
        return {
            "run": self.run,
            "stages": [stage.to_mapping() for stage in self.stages],
            "seconds": dict(self.seconds),
            "provisional": self.provisional,
            "cohort_built": self.cohort_built,
            "missing_weights": [status.to_mapping() for status in self.missing_weights],
        }


def make_run_plan(configuration: RunConfiguration, cohort: Path, store: Store) -> RunPlan:
    """Return the plan of a run.

    Args:
        configuration: The method and its configuration.
        cohort: The cohort's folder; a phantom's need not exist yet.
        store: Where artifacts are looked for.

    Raises:
        InputError: The cohort cannot be read.
    """
    built = cohort.exists()
    plan = plan_run(
        configuration, cohort, store, None if built else stand_in(cohort), provisional=True
    )
    stages, missing = [], []
    for node in plan.nodes:
        artifact = store.find(node.stage.name, node.key, digests=False)
        other = artifact is not None and artifact.manifest()["source_hash"] != source_hash(
            node.stage
        )
        if artifact is None:
            missing.append(node)
        stages.append(PlannedStage(node.stage.recorded, node.key, artifact is not None, other))
    return RunPlan(
        run=run_key(configuration, plan),
        stages=tuple(stages),
        seconds=estimator(store)(missing),
        missing_weights=tuple(plan.missing),
        cohort=cohort,
        cohort_built=built,
    )


def require_weights(configuration: RunConfiguration) -> None:
    """Refuse a run whose weights are missing, before a cohort is built or a stage is trained.

    Raises InputError naming where they were sought, the fetching command and the fallback.
    """
    require_all(missing_weights(configuration.stages(), configuration.config))
