"""The process that runs one worker group of Ray Train, between its ranks and its stage worker.

`TorchTrainer.fit` hides its controller, which lives as long as its owner. Here the
owner is our own actor: killing it ends controller and workers, at any point. torch and
ray.train are imported when a worker group starts, so stage workers need neither.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import ray

from namd.distributed.worker_group_order import WorkerGroupOrder, WorkerResult
from namd.methods.base import Step

POLL_S = 0.5
"""Longest wait of one poll by the stage worker."""

ACKNOWLEDGED_S = 60.0
"""Longest wait of rank 0 until its stage worker has logged a step."""

HEALTH_CHECK_S = "0.5"
"""Seconds between Ray Train's health checks; its default of 2 s delays every start and end."""


@dataclass(frozen=True)
class Group:
    """One start of the workers.

    Attributes:
        workers: Number of workers that compute.
        device: Device of rank 0.
        resumed_from: Optimiser step of the checkpoint at the start.
        began: Start, on the host's monotonic clock.
    """

    workers: int
    device: str
    resumed_from: int
    began: float


@dataclass
class EventBatch:
    """Events that the stage worker has not seen yet."""

    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failure: Exception | None = None
    silent_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a worker group ended.

    Attributes:
        left: Whether it stopped on request, after saving a checkpoint.
        notes: The body's notes for the manifest.
        groups: Every start, oldest first.
        ended: End, on the clock of `Group.began`.
        lost: Why Ray Train gave up; None if it did not.
    """

    left: bool
    notes: dict[str, Any]
    groups: list[Group]
    ended: float
    lost: str | None = None


class WorkerGroupHost:
    """Runs a worker group in one thread and answers workers and stage worker in others."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events = EventBatch()
        self._said = self._written = 0
        self._groups: list[Group] = []
        self._leaving = False
        self._failure: Exception | None = None
        self._heard = time.monotonic()

    def fit(self, order: WorkerGroupOrder) -> Outcome:
        """Run the worker group to its end; blocks."""
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_S)
        if sum(node["Alive"] for node in ray.nodes()) == 1:
            # Saves a process: without its only node the cluster is gone anyway.
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        from ray.train import TrainingFailedError

        myself = ray.get_runtime_context().current_actor
        try:
            result = _trainer(order, myself).fit().return_value
            lost = None
        except TrainingFailedError as error:
            result, lost = None, _one_line(error)
        done = result if isinstance(result, WorkerResult) else WorkerResult()
        return Outcome(done.left, done.notes, list(self._groups), time.monotonic(), lost)

    def begin(self, rank: int, workers: int, device: str, resumed_from: int) -> bool:
        """Register a worker; return whether it must work at all."""
        with self._changed:
            self._heard = time.monotonic()
            if rank == 0:
                self._groups.append(Group(workers, device, resumed_from, self._heard))
            return not self._leaving and self._failure is None

    def alive(self) -> bool:
        """Receive a sign of life of rank 0; return whether it must save and exit."""
        with self._changed:
            self._heard = time.monotonic()
            return self._leaving

    def say(self, step: Step) -> None:
        """Receive a step from rank 0; return once the stage worker has logged it.

        A body saves a checkpoint after its step: if the step were not logged yet, the death of the
        stage worker would lose its metrics.
        """
        with self._changed:
            self._heard = time.monotonic()
            self._events.steps.append(step)
            self._said += 1
            mine = self._said
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._written >= mine, ACKNOWLEDGED_S)

    def warn(self, line: str) -> None:
        """Receive a warning from rank 0."""
        with self._changed:
            self._events.warnings.append(line)

    def fail(self, error: Exception) -> None:
        """Receive an error that no restart can fix; the first one counts."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def poll(self, written: int) -> EventBatch:
        """Return new events, waiting for some; `written` steps were logged so far."""
        with self._changed:
            self._written = written
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._events.steps or self._failure, POLL_S)
            events, self._events = self._events, EventBatch()
            events.failure = self._failure
            events.silent_s = time.monotonic() - self._heard
            return events

    def leave(self) -> None:
        """Ask the worker group to save a checkpoint and end; later messages are still received."""
        with self._changed:
            self._leaving = True


def _trainer(order: WorkerGroupOrder, host: Any) -> Any:  # noqa: ANN401 - an actor handle; ray is untyped
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from namd.distributed.worker_group_rank import work

    elastic = order.least < order.most
    needs = {"CPU": order.cores} | ({"GPU": order.gpus} if order.gpus else {})
    return TorchTrainer(
        work,
        train_loop_config={"order": order, "host": host},
        torch_config=TorchConfig(backend=order.backend),
        scaling_config=ScalingConfig(
            num_workers=(order.least, order.most) if elastic else order.most,
            use_gpu=order.gpus > 0,
            resources_per_worker=needs,
        ),
        run_config=RunConfig(
            name=order.run_name,
            # Visible to all nodes, and removed with the checkpoints once the key is published.
            storage_path=str(order.checkpoints / "ray"),
            failure_config=FailureConfig(
                max_failures=order.worker_failures,
                controller_failure_limit=order.start_failures,
                max_preemption_failures=order.worker_failures,
            ),
        ),
    )


def _one_line(error: BaseException) -> str:
    """Return the error of the first worker, or of the controller."""
    failures = getattr(error, "worker_failures", None) or {}
    cause = next(iter(failures.values()), getattr(error, "controller_failure", error))
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else ''}"
