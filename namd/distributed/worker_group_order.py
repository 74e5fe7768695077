"""What a worker group is asked to do, and what it answers: sent between processes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from namd.distributed.source_identity import SourceIdentity, own_source
from namd.methods.base import Stage


@dataclass(frozen=True)
class WorkerGroupOrder:
    """An order to a worker group, sent between processes.

    Attributes:
        label: The stage's label, for messages.
        run_name: Ray's name of the run.
        stage: The stage to build.
        settings: The slice of the configuration that the stage declares.
        cohort_path, inputs, outputs, checkpoints: For the body's context.
        batch_size: Global batch, which the worker group's size must divide; None if unknown.
        least, most: Bounds of the worker group's size.
        cores, gpus: Resources of each worker.
        num_threads: Threads of each operation on the CPU.
        worker_failures: Restarts after lost workers.
        start_failures: Retries of starts that could not be placed.
        source: The namd that its workers must have.
    """

    label: str
    run_name: str
    stage: Stage
    settings: Any
    cohort_path: Path
    inputs: Mapping[str, Path]
    outputs: Mapping[int | None, Path]
    checkpoints: Path
    batch_size: int | None
    least: int
    most: int
    cores: float
    gpus: float
    num_threads: int
    worker_failures: int
    start_failures: int
    source: SourceIdentity = field(default_factory=own_source)

    @property
    def backend(self) -> str:
        """The process group's backend; NCCL refuses two workers on one GPU."""
        return "nccl" if self.gpus >= 1 else "gloo"


@dataclass(frozen=True)
class WorkerResult:
    """What a worker's function returns; rank 0's counts."""

    left: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
