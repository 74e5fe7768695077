"""Worker groups: one training stage on several workers of Ray Train, published like any other.

The stage worker holds the lease, writes the metrics log and publishes, through the launcher; all
ranks run the stage's body. namd.train and namd.losses make the result independent of the size.
"""

import math
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from namd.config.errors import InputError, StageError
from namd.distributed.worker_group_host import Outcome, WorkerGroupHost
from namd.distributed.worker_group_order import WorkerGroupOrder
from namd.methods.base import StageContext, Step
from namd.pipeline.graph import Node, Plan
from namd.pipeline.launcher import Launcher
from namd.pipeline.reporting import SilentReporter
from namd.pipeline.store import open_store
from namd.storage.stage_names import StageName
from namd.study.spec import StageResources
from namd.study.worker_groups import global_batch, shareable
from namd.train.stopping import stop_requests

Relay = Callable[[StageName, str, Step], None]


@dataclass(frozen=True)
class WorkerGroupPatience:
    """Limits of retries and waits for a worker group.

    Attributes:
        worker_failures: Restarts after lost workers, and as many after preempted nodes.
        start_failures: Starts that could not be placed; Ray Train waits a minute for each.
        silent_s: Seconds without a worker after which the worker group counts as starved. An
            elastic one would wait without limit.
        leave_s: Seconds that a worker group has to save a checkpoint when it must stop.
    """

    worker_failures: int = 3
    start_failures: int = 10
    silent_s: float = 900.0
    leave_s: float = 25.0


class WorkerGroupError(StageError):
    """A worker group was never placed, or lost its workers too often; it may be retried."""


@dataclass(frozen=True)
class WorkerGroupWorld:
    """The worker group as its manifest describes it."""

    rank: int
    size: int
    device: str


class _RelayReporter(SilentReporter):
    """Forwards each step of each node."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    def stepped(self, nodes: Sequence[Node], step: Step) -> None:
        """Forward the step, once per node."""
        for node in nodes:
            self.relay(node.stage.recorded, node.key, step)


def build_with_worker_group(
    nodes: Sequence[Node],
    *,
    store_url: str,
    cohort: Path,
    resources: StageResources,
    relay: Relay,
    name: str,
    made_for: str = "",
    patience: WorkerGroupPatience | None = None,
) -> None:
    """Build one training stage with a worker group and publish it; blocks until it is in the store.

    Args:
        nodes: The stage's node.
        store_url: A store that all nodes of the cluster can reach.
        cohort: A folder that all nodes of the cluster can read.
        resources: Size of the worker group and what each worker reserves.
        relay: Receives stage, key and step, once per logged step of rank 0.
        name: The study's name, for Ray's lists.
        made_for: Name of the study that is charged, for the manifest.
        patience: Limits of retries and waits.

    Raises:
        InputError: The cluster or the batch does not allow such a worker group; has the numbers.
        WorkerGroupError: The worker group was starved, or lost its workers too often.
        StageError: The body cannot continue; DivergedError among others, unchanged.
        SystemExit: SIGTERM arrived; a checkpoint was saved if the body can.
    """
    store = open_store(store_url, answered=True)
    plan = Plan(tuple(nodes))
    device = "cuda" if resources.gpus else "cpu"
    if any(store.find(node.stage.name, node.key) is None for node in nodes):
        for node in nodes:
            shareable(node.label, global_batch(node), resources)
            require_room(node.label, resources)
    place = Path(cohort).absolute()
    worker_group = _WorkerGroup(place, resources, name, patience or WorkerGroupPatience())
    Launcher(
        store,
        place,
        _RelayReporter(relay),
        world=lambda: WorkerGroupWorld(0, resources.workers, device),
        made_for=made_for,
        execute=worker_group.execute,
    ).build(plan)


class _WorkerGroup:
    """Runs a body as a worker group."""

    def __init__(
        self, cohort: Path, resources: StageResources, name: str, patience: WorkerGroupPatience
    ) -> None:
        self.cohort = cohort
        self.resources = resources
        self.name = name
        self.patience = patience

    def execute(self, nodes: Sequence[Node], context: StageContext) -> Generator[Step, None, None]:
        """Yield the steps of rank 0 without those that a restarted worker group repeats."""
        order = self._order(nodes[0], context)
        host = _start_host()
        running = host.fit.remote(order)
        try:
            # Without this, a signal between two steps would end the group without a checkpoint.
            with stop_requests() as stop_requested:
                yield from self._steps(order, context, host, running, stop_requested)
            outcome: Outcome = ray.get(running)
        except RayActorError as error:
            raise WorkerGroupError(
                f"{order.label}: the process that ran the worker group died"
            ) from error
        finally:
            # This also ends controller and workers, in any state.
            ray.kill(host)
        if outcome.lost is not None:
            raise WorkerGroupError(
                f"{order.label}: no worker group of {self._size()} finished "
                f"({len(outcome.groups)} starts, {self.patience.worker_failures} restarts "
                f"allowed); last error: {outcome.lost}"
            )
        if outcome.left:
            raise SystemExit(143)
        _record(outcome, order, context)

    def _steps(
        self,
        order: WorkerGroupOrder,
        context: StageContext,
        host: Any,  # noqa: ANN401 - an actor handle; ray is untyped
        running: Any,  # noqa: ANN401
        stop_requested: Callable[[], bool],
    ) -> Generator[Step, None, None]:
        newest, written, ended = -1, 0, False
        given_up_at = math.inf
        while True:
            if stop_requested() and given_up_at == math.inf:
                given_up_at = time.monotonic() + self.patience.leave_s
                ray.get(host.leave.remote())
            if time.monotonic() > given_up_at:
                raise SystemExit(143)
            events = ray.get(host.poll.remote(written))
            for line in events.warnings:
                context.warn(line)
            for step in events.steps:
                if step.index > newest or step.finished is not None:
                    newest = step.index
                    yield step
                written += 1
            if events.failure is not None:
                raise events.failure
            if ended and not events.steps:
                return
            ended = bool(ray.wait([running], timeout=0)[0])
            if events.silent_s > self.patience.silent_s:
                raise WorkerGroupError(
                    f"{order.label}: no worker for {events.silent_s:.0f} s; a worker group of "
                    f"{self._size()} needs {_needs(order)} each and the cluster has free "
                    f"{_listed(ray.available_resources())}"
                )

    def _size(self) -> str:
        least, most = self.resources.least, self.resources.workers
        return f"{most} workers" if least == most else f"{least} to {most} workers"

    def _order(self, node: Node, context: StageContext) -> WorkerGroupOrder:
        batch = global_batch(node)
        most = shareable(node.label, batch, self.resources)
        return WorkerGroupOrder(
            label=node.label,
            run_name=f"{self.name}-{node.stage.name}-{node.key[:12]}-{uuid.uuid4().hex[:8]}",
            stage=node.stage,
            settings=node.settings,
            cohort_path=self.cohort,
            inputs=dict(context.inputs),
            outputs=dict(context.outputs),
            checkpoints=context.checkpoints,
            batch_size=batch,
            least=self.resources.least,
            most=most,
            cores=self.resources.cores,
            gpus=self.resources.gpus,
            num_threads=node.num_threads,
            worker_failures=self.patience.worker_failures,
            start_failures=self.patience.start_failures,
        )


def require_room(label: str, resources: StageResources) -> None:
    """Raise InputError if even the idle cluster cannot place the smallest worker group."""
    needs = {"CPU": resources.cores, "GPU": resources.gpus}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(_workers_on(node, needs) for node in alive)
    growth = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    if max(room, _workers_on(growth, needs)) < resources.least:
        raise InputError(
            f"{label}: a worker group of at least {resources.least} workers with "
            f"{_needs(resources)} each cannot be placed; the cluster's {len(alive)} nodes have "
            f"{_listed(ray.cluster_resources())}, enough for {room}"
        )


def _workers_on(resources: Mapping[str, float], needs: Mapping[str, float]) -> int:
    counts = [
        int((resources.get(kind, 0.0) + 1e-9) // need) for kind, need in needs.items() if need
    ]
    return min(counts)


def _needs(worker: StageResources | WorkerGroupOrder) -> str:
    return f"{worker.cores:g} CPU" + (f" and {worker.gpus:g} GPU" if worker.gpus else "")


def _listed(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{resources.get(kind, 0.0):g} {kind}" for kind in ("CPU", "GPU"))


def _start_host() -> Any:  # noqa: ANN401
    """Start the worker group's host on this node, so that it ends with its stage worker.

    With a soft affinity Ray placed it on another node although this one had free resources.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_concurrency=16)(WorkerGroupHost)
    return actor.options(scheduling_strategy=here).remote()


def _record(outcome: Outcome, order: WorkerGroupOrder, context: StageContext) -> None:
    """Record the number of workers and every restart in the manifest."""
    ends = [*(group.began for group in outcome.groups[1:]), outcome.ended]
    seconds = [end - group.began for end, group in zip(ends, outcome.groups, strict=True)]
    sizes = [group.workers for group in outcome.groups]
    last = outcome.groups[-1]
    context.world = WorkerGroupWorld(0, last.workers, last.device)
    if len(set(sizes)) > 1:
        weighed = sum(n * s for n, s in zip(sizes, seconds, strict=True))
        context.workers = weighed / max(sum(seconds), 1e-9)
    context.notes |= outcome.notes
    context.notes["worker_group"] = {
        "backend": order.backend,
        "restarts": len(outcome.groups) - 1,
        "groups": [
            {"workers": g.workers, "seconds": round(s, 3), "resumed_from": g.resumed_from}
            for g, s in zip(outcome.groups, seconds, strict=True)
        ],
    }
