"""A warm process that builds stages, one order at a time, and obeys requests to stop.

It reserves its resources for its whole life. torch is imported once, by its first body.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError

from namd.config.account import complete_account
from namd.config.errors import InputError, NotFiniteError, StageError
from namd.distributed.rows import run_values
from namd.distributed.source_identity import SourceError, require_same_source
from namd.distributed.work import (
    Bench,
    Outcome,
    RunRows,
    StageWorkerLost,
    Work,
    ended,
    no_rows,
    one_line,
)
from namd.methods.base import Step
from namd.pipeline.graph import Node, Plan
from namd.pipeline.launcher import Launcher
from namd.pipeline.reporting import SilentReporter
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Store, open_store
from namd.storage.stage_names import StageName
from namd.study.spec import StageResources

RAY_UNIT = 1e-4
RELAY_EVERY_S = 0.5
"""Interval between bundles of steps: a remote call may take longer than a short step."""


class StageWorker:
    """The actor. It has one thread, so bodies run in the main thread and receive SIGTERM.

    Args:
        bench: Store and cohort.
        stage_scheduler: Receives steps and says whether to stop.
    """

    def __init__(self, bench: Bench, stage_scheduler: ActorHandle) -> None:
        complete_account()
        self._bench = bench
        self._stage_scheduler = stage_scheduler
        self._store: Store | None = None

    def build(self, work: Work) -> Outcome:
        """Build the nodes of an order and publish them."""
        try:
            require_same_source(self._bench.source)
        except SourceError as error:
            return ended(error)
        relay = _Relay(self._stage_scheduler)
        try:
            with _stoppable(self._stage_scheduler, work.number):
                self._execute(work, relay)
        except SystemExit:
            return Outcome("stopped", "stopped by SIGTERM")
        except NotFiniteError as error:
            return Outcome("diverged", one_line(error))
        except (StageError, InputError, OSError, MemoryError) as error:
            return ended(error)
        finally:
            relay.flush()
        return Outcome("built")

    def evaluate(self, configuration: RunConfiguration, nodes: Sequence[Node]) -> RunRows:
        """Form the rows of a run whose nodes are all in the store; record them."""
        try:
            require_same_source(self._bench.source)
        except SourceError as error:
            return no_rows(error)
        try:
            values = run_values(
                configuration,
                Plan(tuple(nodes)),
                self._bench.cohort,
                self._open(),
                self._bench.parts.tabulate,
            )
        except (StageError, InputError, OSError, ValueError) as error:
            return no_rows(error)
        return RunRows(values)

    def _execute(self, work: Work, relay: "_Relay") -> None:
        bench = self._bench
        if work.manner == "worker_group":
            from namd.distributed.worker_group import build_with_worker_group

            build_with_worker_group(
                work.nodes,
                store_url=bench.store_url,
                cohort=bench.cohort,
                resources=work.resources,
                relay=relay.step,
                name=bench.study,
                made_for=bench.study,
            )
        elif work.manner == "drawing":
            from namd.distributed.drawing import draw_and_score

            draw_and_score(
                work.nodes,
                store_url=bench.store_url,
                cohort=bench.cohort,
                resources=work.resources,
                relay=relay.step,
                made_for=bench.study,
            )
        else:
            launcher = Launcher(
                self._open(), bench.cohort, relay, bench.parts.world, made_for=bench.study
            )
            launcher.build(Plan(work.nodes))

    def _open(self) -> Store:
        """Return the store, opened by the first order: a bad store must not kill the process."""
        if self._store is None:
            self._store = open_store(self._bench.store_url, create=False, answered=True)
        return self._store


class RayStageWorker:
    """A stage worker's handle: translates Ray's errors into `StageWorkerLost`."""

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle

    async def build(self, work: Work) -> Outcome:
        """Build and publish nodes."""
        try:
            return await self._handle.build.remote(work)
        except RayTaskError as error:
            return Outcome("failed", one_line(error.cause or error))
        except (RayActorError, TaskCancelledError) as error:
            raise StageWorkerLost(one_line(error)) from error

    async def evaluate(self, configuration: RunConfiguration, nodes: Sequence[Node]) -> RunRows:
        """Form the rows of a finished run and record them."""
        try:
            return await self._handle.evaluate.remote(configuration, nodes)
        except RayTaskError as error:
            return RunRows(None, one_line(error.cause or error))
        except (RayActorError, TaskCancelledError) as error:
            raise StageWorkerLost(one_line(error)) from error

    def stop(self) -> None:
        """End its process."""
        ray.kill(self._handle)


def start_worker(
    bench: Bench, stage_scheduler: ActorHandle, resources: StageResources
) -> RayStageWorker:
    """Start a stage worker that reserves one worker's resources; returns before it is up."""
    # Ray's unit is a ten-thousandth; a waiting worker reserves less than that.
    cpus = resources.cores if resources.cores >= RAY_UNIT else 0
    actor = ray.remote(num_cpus=cpus, num_gpus=resources.gpus)(StageWorker)
    return RayStageWorker(actor.remote(bench, stage_scheduler))


def start_worker_here(bench: Bench, resources: StageResources) -> RayStageWorker:
    """Start a stage worker that reports to the actor in which this is called."""
    return start_worker(bench, ray.get_runtime_context().current_actor, resources)


def member_step(nodes: Sequence[Node], step: Step) -> tuple[Node, Step]:
    """Return the node that a step belongs to, and the step with that node's own total.

    A body that builds a family counts its members; a finished member is complete even if others
    are not.
    """
    for node in nodes:
        if step.finished is not None and node.stage.index == step.finished:
            return node, replace(step, total=step.index)
    return nodes[0], step


class _Relay(SilentReporter):
    """Forwards steps and warnings to the stage scheduler, in bundles."""

    def __init__(self, stage_scheduler: ActorHandle) -> None:
        self._stage_scheduler = stage_scheduler
        self._bundle: list[tuple[StageName, str, Step]] = []
        self._sent = time.monotonic()

    def stepped(self, nodes: Sequence[Node], step: Step) -> None:
        """Forward a step with the node that it belongs to."""
        node, step = member_step(nodes, step)
        self.step(node.stage.recorded, node.key, step)

    def warned(self, node: Node, line: str) -> None:
        """Forward a line for the user."""
        self._stage_scheduler.note.remote(f"{node.label}: {line}")

    def step(self, stage: StageName, key: str, step: Step) -> None:
        """Keep a step for the next bundle."""
        self._bundle.append((stage, key, step))
        if time.monotonic() - self._sent >= RELAY_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send the pending steps."""
        if self._bundle:
            self._stage_scheduler.relay.remote(self._bundle)
        self._bundle, self._sent = [], time.monotonic()


@contextmanager
def _stoppable(stage_scheduler: ActorHandle, number: int) -> Iterator[None]:
    """Send this process SIGTERM, which bodies handle, once the stage scheduler stops this order.

    A thread waits for the request. Python handles signals in the main thread only, which is where
    a single-threaded actor runs its calls; body and launcher save a checkpoint and exit. A signal
    before or after them must not end the process.
    """
    lock, over = threading.Lock(), threading.Event()

    def wait() -> None:
        try:
            wanted = ray.get(stage_scheduler.asked_to_stop.remote(number))
        except RayActorError:
            wanted = True
        with lock:
            if wanted and not over.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    def leave(_number: int, _frame: Any) -> None:  # noqa: ANN401 - a frame
        if not over.is_set():
            raise SystemExit(143)

    previous: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, leave)
    threading.Thread(target=wait, name=f"order {number}", daemon=True).start()
    try:
        yield
    finally:
        # A signal may arrive on this line: it finds `over` set, or raises from here.
        over.set()
        with lock:
            signal.signal(signal.SIGTERM, previous)
