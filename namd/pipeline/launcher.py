"""Builds the missing nodes of a plan in this process, one body at a time; needs no torch itself."""

import json
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from namd.config.errors import InputError
from namd.config.threads import fixed_threads
from namd.methods.base import StageContext, Step, World
from namd.methods.source_hash import source_hash
from namd.pipeline import provenance
from namd.pipeline.graph import Node, Plan
from namd.pipeline.metrics_log import MetricsLog
from namd.pipeline.reporting import Reporter
from namd.pipeline.store import Artifact, Attempt, Store
from namd.storage.artifacts import MANIFEST, METRICS, key_folder
from namd.storage.errors import StoreError, explained
from namd.storage.lease import Lease
from namd.storage.stage_names import StageName

POLL_S = 0.5
"""How often a waiter looks whether another process has finished."""


Execute = Callable[[Sequence[Node], StageContext], Generator[Step, None, None]]


class LeaseLost(Exception):  # noqa: N818 - an event, not a mistake
    """Another process believed this one dead and took the key over."""


@dataclass(frozen=True)
class StageResult:
    """How one node came to be there.

    Attributes:
        stage: Which stage.
        key: Its key.
        cached: Whether this run found it instead of building it.
        seconds: What building took, now or back then.
    """

    stage: StageName
    key: str
    cached: bool
    seconds: float

    def to_mapping(self) -> dict[str, Any]:
        """Return what the record of a run says of it."""
        came = {"key": self.key, "cached": self.cached, "seconds": self.seconds}
        return {"label": self.stage.label, **self.stage.to_mapping(), **came}


@dataclass
class Task:
    """A node under construction: leased to this process, with a folder to fill.

    Attributes:
        node: What is built.
        lease: This process's, with a thread that shows life.
        attempt: The folder.
        log: Receives the measurements of its steps.
        started: Monotonic time from which `Launcher.publish` counts its seconds.
    """

    node: Node
    lease: Lease
    attempt: Attempt
    log: MetricsLog
    started: float


class Launcher:
    """Carries plans through one store.

    Args:
        store: Where artifacts are found and published.
        cohort: The cohort's folder, handed to the bodies.
        reporter: Called as things happen.
        world: Makes the workers' description when the first body needs it; the default imports
            torch to see whether there is a GPU.
        made_for: Name of the study that pays; goes into the manifests, so that a driver that was
            killed before it wrote an execution down can recognise it later as its own.
        execute: Runs the body of some nodes; the default runs it in this process.
    """

    def __init__(
        self,
        store: Store,
        cohort: Path,
        reporter: Reporter,
        world: Callable[[], World] | None = None,
        made_for: str = "",
        execute: Execute | None = None,
    ) -> None:
        self.store = store
        self.cohort = cohort
        self.reporter = reporter
        self.made_for = made_for
        self._make_world = world or _local_world
        self._world: World | None = None
        self._execute = execute or _in_this_process

    def build(self, plan: Plan) -> tuple[list[StageResult], dict[str, Artifact]]:
        """Build what is missing; return how each node came, and the artifacts by label.

        Raises:
            StageError: A body cannot go on.
            StoreError: The store is full, damaged or unwritable.
            SystemExit: SIGTERM came; the same call later continues.
        """
        artifacts: dict[str, Artifact] = {}
        results: dict[str, StageResult] = {}
        found = {node.label: self.store.find(node.stage.name, node.key) for node in plan.nodes}
        missing = [node for node in plan.nodes if found[node.label] is None]
        self.reporter.planned(plan.nodes, missing)
        with terminable():
            for group in plan.groups():
                built = self._complete(group)
                for node in group:
                    artifact = self._published(node)
                    artifacts[node.label] = artifact
                    seconds = float(artifact.manifest()["wall_seconds"])
                    cached = node.label not in built
                    results[node.label] = StageResult(
                        node.stage.recorded, node.key, cached, seconds
                    )
                    if cached:
                        self.reporter.cached(node)
        return list(results.values()), artifacts

    def _published(self, node: Node) -> Artifact:
        artifact = self.store.find(node.stage.name, node.key)
        if artifact is None:
            raise InputError(f"{node.label}: removed from {self.store.backend.name} during the run")
        return artifact

    def _complete(self, group: Sequence[Node]) -> set[str]:
        """Build or await every node of a group; return the labels of those built here."""
        built: set[str] = set()
        while missing := [n for n in group if self.store.find(n.stage.name, n.key) is None]:
            tasks = self.take(missing)
            if tasks:
                try:
                    built |= self._run_body(tasks)
                except LeaseLost:
                    continue
            else:
                self.wait(missing[0])
        return built

    def take(self, nodes: Sequence[Node]) -> list[Task]:
        """Lease the nodes that no living process holds and that are not published."""
        tasks = []
        with ExitStack() as undo, explained(self.store.backend.name, self.store.backend.folder):
            for node in nodes:
                lease = self.store.leases.acquire(key_folder(node.stage.name, node.key))
                if lease is None:
                    continue
                undo.callback(_give_back, lease)
                # The last holder may have published between the look and the lease.
                if self.store.find(node.stage.name, node.key) is not None:
                    lease.stop()
                    self.store.tidy(node.stage.name, node.key)
                    continue
                tasks.append(self._task(node, lease))
            undo.pop_all()
        return tasks

    def _task(self, node: Node, lease: Lease) -> Task:
        attempt = self.store.open_attempt(node.stage.name, node.key)
        if node.stage.index is not None:
            log = MetricsLog(renumber=True)
        else:
            log = MetricsLog(self.store.checkpoints(node.stage.name, node.key) / METRICS)
        return Task(node, lease, attempt, log, time.monotonic())

    def wait(self, node: Node) -> None:
        """Sleep a moment while another process holds a node, and report it."""
        folder = key_folder(node.stage.name, node.key)
        holder = self.store.leases.holder(folder)
        if holder is not None:
            self.reporter.waiting(node, f"process {holder.pid} on {holder.host}")
            time.sleep(POLL_S)

    def _run_body(self, tasks: list[Task]) -> set[str]:
        """Run one body for a node or for members of a family; publish each when complete."""
        open_tasks = {task.node.stage.index: task for task in tasks}
        nodes = [task.node for task in tasks]
        built: set[str] = set()
        self.reporter.started(nodes)
        try:
            with explained(self.store.backend.name, self.store.backend.folder):
                context, warnings = self._context(tasks)
                watch = LeaseWatch(self.store.leases.timing.heartbeat_s)
                body = self._execute(nodes, context)
                with closing(body):
                    for step in body:
                        self._note(step, nodes, open_tasks)
                        if step.finished is not None:
                            built |= self.publish(open_tasks, step.finished, context, warnings)
                        if watch.look(open_tasks.values()):
                            self._keep_checkpoints(open_tasks.values())
                for index in list(open_tasks):
                    built |= self.publish(open_tasks, index, context, warnings)
        except (OSError, RuntimeError) as error:
            # A process that took a key over also clears its checkpoints under the late body.
            if any(task.lease.lost() for task in open_tasks.values()):
                raise LeaseLost from error
            raise
        finally:
            for task in open_tasks.values():
                self.give_up(task)
        return built

    def _context(self, tasks: list[Task]) -> tuple[StageContext, list[str]]:
        """Return what the body may touch, and the list that its warnings go to."""
        if self._world is None:
            self._world = self._make_world()
        first = tasks[0].node
        inputs = {
            label: self._input(stage, key)
            for task in tasks
            for label, (stage, key) in task.node.inputs.items()
        }
        warnings: list[str] = []

        def warn(line: str) -> None:
            warnings.append(line)
            self.reporter.warned(first, line)

        context = StageContext(
            stage=first.stage,
            config=first.settings,
            cohort_path=self.cohort,
            artifacts=inputs,
            outputs={task.node.stage.index: task.attempt.payload for task in tasks},
            checkpoints=self.store.checkpoints(first.stage.name, first.key),
            world=self._world,
            warn=warn,
        )
        return context, warnings

    def _input(self, stage: str, key: str) -> Path:
        artifact = self.store.find(stage, key)
        if artifact is None:
            raise InputError(f"{stage}/{key[:12]}: removed from the store during the run")
        return artifact.payload

    def _note(
        self, step: Step, nodes: Sequence[Node], open_tasks: Mapping[int | None, Task]
    ) -> None:
        self.reporter.stepped(nodes, step)
        index = step.finished if step.finished is not None else next(iter(open_tasks))
        open_tasks[index].log.add(step)

    def publish(
        self,
        open_tasks: dict[int | None, Task],
        index: int | None,
        context: StageContext,
        warnings: list[str],
    ) -> set[str]:
        """Publish one node; return its label if this process won.

        Args:
            open_tasks: The nodes under construction; this one leaves them.
            index: Which of them.
            context: Has the workers and notes that go into the manifest.
            warnings: Lines that the body said.
        """
        task = open_tasks[index]
        node, folder = task.node, task.attempt.folder
        seconds = task.lease.spent_before_s + time.monotonic() - task.started
        manifest = self._manifest(task, seconds, context, warnings)
        (folder / METRICS).write_text(task.log.text(), encoding="utf-8")
        (folder / MANIFEST).write_text(
            json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        _, won = self.store.publish(task.attempt)
        del open_tasks[index]
        task.lease.stop()
        self.store.tidy(node.stage.name, node.key)
        for other in open_tasks.values():
            # A body makes the members of a family one after the other.
            other.started = time.monotonic()
        if won:
            self.reporter.finished(node, seconds)
        return {node.label} if won else set()

    def _keep_checkpoints(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            self.store.keep_checkpoints(task.node.stage.name, task.node.key)

    def _manifest(
        self, task: Task, seconds: float, context: StageContext, warnings: list[str]
    ) -> dict[str, Any]:
        node = task.node
        return {
            "stage": node.stage.name,
            "label": node.label,
            "key": node.key,
            "identity": node.identity,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(seconds, 3),
            "device_seconds": round(seconds * (context.workers or context.world.size), 3),
            "attempts": task.lease.epoch,
            "made_for": self.made_for,
            "num_threads": node.num_threads,
            "world": {"size": context.world.size, "device": context.world.device},
            "environment": provenance.environment(),
            "source_hash": source_hash(node.stage),
            "notes": context.notes,
            "warnings": warnings,
        }

    def give_up(self, task: Task) -> None:
        """Leave a node unpublished: its checkpoints stay, its half-filled attempt goes."""
        with suppress(StoreError):
            if not task.lease.lost():
                self._keep_checkpoints([task])
            self.store.abandon(task.attempt)
        _give_back(task.lease)


def _give_back(lease: Lease) -> None:
    """Release a lease, or only fall silent where the disk is full: the first error is the news."""
    try:
        lease.release()
    except StoreError:
        lease.stop()


class LeaseWatch:
    """Looks now and then whether this process was taken for dead.

    Args:
        every_s: Seconds between two looks.
    """

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.last = time.monotonic()

    def look(self, tasks: Iterable[Task]) -> bool:
        """Return whether it was time to look.

        Raises LeaseLost if another process took one of the keys over.
        """
        if time.monotonic() - self.last < self.every_s:
            return False
        self.last = time.monotonic()
        if any(task.lease.lost() for task in tasks):
            raise LeaseLost
        return True


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM inside this block into SystemExit(143), so that leases are given back.

    A body may listen itself, to write a checkpoint first. Only the main thread can.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: object) -> None:
        raise SystemExit(143)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _in_this_process(nodes: Sequence[Node], context: StageContext) -> Generator[Step, None, None]:
    body = nodes[0].stage.load_body()  # imports what it computes with
    with fixed_threads(nodes[0].num_threads):
        yield from body(context)


def _local_world() -> World:
    from namd.train.world import current_world

    return current_world()
