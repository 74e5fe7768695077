"""A method of one stage that does nothing: stage workers that import it pay for nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from namd.methods.base import Method, Stage, StageContext, Step
from namd.pipeline.run import Rows
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Artifact

NAME = "noop"


@dataclass(frozen=True)
class Evaluate:
    """Asked for by every study; not read."""

    split: str = "validation"


@dataclass(frozen=True)
class Knob:
    """What is searched."""

    x: float = 0.0


@dataclass(frozen=True)
class NoopConfig:
    """One number to search."""

    method: str = NAME
    train_seed: int = 0
    knob: Knob = field(default_factory=Knob)
    evaluate: Evaluate = field(default_factory=Evaluate)


@dataclass(frozen=True)
class OneProcess:
    """The worker, without asking torch for a GPU."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"


def stages(config: NoopConfig) -> tuple[Stage, ...]:  # noqa: ARG001 - a method's signature
    """Return the one stage."""
    body = "experiments.benchmarks.noop_method:body"
    return (Stage(NAME, 1, "map", body, reads=("knob",), seeds=("train_seed",)),)


def body(context: StageContext) -> Iterator[Step]:
    """Do nothing."""
    yield Step(1, 1, {"x": context.settings.knob.x})


def tabulate(
    configuration: RunConfiguration, cohort: Path, artifacts: Mapping[str, Artifact]
) -> Rows:
    """Form one row."""
    del cohort, artifacts
    return Rows([{"row": NAME, "auroc": configuration.config.knob.x}])


METHODS = {NAME: Method(NAME, "No-op", "none", False, NoopConfig, stages, ("any",))}
