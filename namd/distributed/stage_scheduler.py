"""Builds the stages that the trials of a study need: each key once, while any trial needs it.

All trials' plans are executed here, concurrently, in one thread. Nothing here depends on Ray: stage
workers come through `start_worker`, and in a study the whole object lives in an actor.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from namd.distributed.work import (
    Bench,
    Manner,
    Outcome,
    StageWorkerLost,
    Work,
    ended,
)
from namd.distributed.worker_pool import WAITING, StartWorker, WorkerPool
from namd.methods.base import Step
from namd.pipeline.graph import Node, Plan
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Artifact, Store, open_store
from namd.storage.artifacts import key_folder
from namd.storage.stage_names import StageName
from namd.study.asha import Rung
from namd.study.plan import Cluster
from namd.study.spec import ResourcesSpec, StageResources
from namd.study.worker_groups import device_seconds


@dataclass(frozen=True)
class Patience:
    """Limits of the stage scheduler.

    Attributes:
        retries: Retries of a key whose body failed, over all trials of an attempt.
        losses: Retries of a key whose stage worker was lost: a machine's death says little about
            the key, but a body that kills its process must not be retried without limit.
        idle_timeout_s: Seconds for which an idle stage worker keeps its resources. About the time
            that a new one needs to start and import: waiting longer may cost more than it saves.
        poll_s: Interval at which a key that another process builds is checked.
        grace_s: Seconds from a request to stop to the end of the stage workers.
    """

    retries: int = 1
    losses: int = 3
    idle_timeout_s: float = 5.0
    poll_s: float = 0.5
    grace_s: float = 30.0


class _KeyLost(Exception):  # noqa: N818 - an event
    """A key cannot be built: it failed or diverged."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state, self.reason = state, reason


@dataclass(eq=False)
class _Build:
    """Nodes that are built together, and the attempts that wait for them."""

    number: int
    nodes: tuple[Node, ...]
    manner: Manner
    resources: StageResources
    wanted_by: set[str] = field(default_factory=set)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    reserved: float = 0.0
    task: "asyncio.Task[None] | None" = None


@dataclass(eq=False)
class _Attempt:
    """One attempt at a trial, executing its plan."""

    plan: Plan
    configuration: RunConfiguration
    entries: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    asking: asyncio.Event = field(default_factory=asyncio.Event)
    reported_rungs: set[str] = field(default_factory=set)
    withdrawn: str | None = None
    task: "asyncio.Task[None] | None" = None

    def report(self, entry: dict[str, Any]) -> None:
        """Add an entry for the trial to read."""
        self.entries.append(entry)
        self.changed.set()


class StageScheduler:
    """The coordinator of a study's stage workers.

    Args:
        bench: Store and cohort of the stage workers.
        start_worker: Starts a stage worker.
        resources: What stages reserve.
        rungs: At which trials are compared.
        cluster: The resources to run on.
        patience: Limits.
    """

    def __init__(
        self,
        bench: Bench,
        start_worker: StartWorker,
        resources: ResourcesSpec,
        rungs: Sequence[Rung],
        cluster: Cluster,
        patience: Patience | None = None,
    ) -> None:
        self._bench = bench
        self._resources = resources
        self._rungs = tuple(rungs)
        self._patience = patience or Patience()
        self._store: Store = open_store(bench.store_url, create=False, answered=True)
        self._attempts: dict[str, _Attempt] = {}
        self._builds: dict[str, _Build] = {}
        self._orders: dict[int, _Build] = {}
        self._lost_keys: dict[str, _KeyLost] = {}
        self._retried: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._reserved: dict[str, float] = {}
        self._pool = WorkerPool(
            start_worker, cluster, resources.concurrency, self._patience.idle_timeout_s
        )
        self._events: list[tuple[str, Any]] = []
        self._has_events = asyncio.Event()
        self._stopping: str | None = None
        self._numbers = 0
        self._watched: dict[str, set[str]] = {}
        self._seen_before: dict[tuple[str, str], bool] = {}

    # Called by the driver.

    async def admit(self, run: str, plan: Plan, configuration: RunConfiguration) -> None:
        """Start to execute the plan of an attempt at a trial."""
        attempt = self._attempts[run] = _Attempt(plan, configuration)
        attempt.task = asyncio.create_task(self._follow_plan(run, attempt))
        attempt.task.add_done_callback(lambda task: self._ended(attempt, task))

    async def withdraw(self, run: str, reason: str) -> None:
        """End an attempt; builds that no other attempt waits for are stopped."""
        attempt = self._attempts.get(run)
        if attempt is not None and attempt.task is not None and not attempt.task.done():
            attempt.withdrawn = reason
            attempt.task.cancel()

    async def forget(self, run: str) -> None:
        """Drop an attempt that is over."""
        await self.withdraw(run, "its driver is gone")
        self._attempts.pop(run, None)

    async def drain(self, timeout_s: float) -> list[tuple[str, Any]]:
        """Return steps and notes since the last call; wait for the first at most `timeout_s`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_events.wait(), timeout_s)
        self._has_events.clear()
        events, self._events = self._events, []
        return events

    async def stop(self, reason: str) -> None:
        """End all attempts as interrupted; stage workers save checkpoints."""
        self._stopping = reason
        for run, attempt in self._attempts.items():
            if attempt.task is not None and not attempt.task.done():
                await self.withdraw(run, reason)

    async def close(self) -> float:
        """Wait for the stage workers to save and end; return the idle device seconds."""
        for run in list(self._attempts):
            await self.forget(run)
        tasks = [build.task for build in self._orders.values() if build.task is not None]
        for build in self._orders.values():
            build.stop.set()
        if tasks:
            await asyncio.wait(tasks, timeout=self._patience.grace_s)
        return self._pool.close()

    # Called by trials.

    async def advance(self, run: str, cursor: int) -> list[dict[str, Any]]:
        """Return an attempt's entries from `cursor` on; wait for at least one.

        The call also acknowledges all entries before the cursor: none of them ended the trial.
        """
        attempt = self._attempts.get(run)
        if attempt is None:
            return [{"kind": "end", "state": "interrupted", "reason": "its driver was gone"}]
        attempt.asked = max(attempt.asked, cursor)
        attempt.asking.set()
        while len(attempt.entries) <= cursor:
            attempt.changed.clear()
            await attempt.changed.wait()
        return attempt.entries[cursor:]

    # Called by stage workers.

    async def asked_to_stop(self, number: int) -> bool:
        """Return True once this order must stop, False once it has ended."""
        build = self._orders.get(number)
        if build is None:
            return False
        await build.stop.wait()
        return not build.over

    async def relay(self, steps: Iterable[tuple[StageName, str, Step]]) -> None:
        """Receive steps of a stage that is being built."""
        for stage, key, step in steps:
            self._emit("step", (stage, key, step.index, step.total, dict(step.metrics)))
            self._watch(key, step)

    async def note(self, line: str) -> None:
        """Receive a line for the user."""
        self._emit("note", line)

    # Executing a trial's plan.

    async def _follow_plan(self, run: str, attempt: _Attempt) -> None:
        try:
            for group in attempt.plan.groups():
                await self._obtain(run, attempt, group)
                for node in group:
                    attempt.report(self._stage_entry(node))
                await self._rungs_after(attempt, group)
            attempt.report(await self._rows(attempt))
        finally:
            self._lose_interest(run)

    def _ended(self, attempt: _Attempt, task: "asyncio.Task[None]") -> None:
        """Report the end of an attempt that was cancelled or failed."""
        if task.cancelled():
            state = "interrupted" if self._stopping is not None else "withdrawn"
            reason = attempt.withdrawn or "cancelled"
            attempt.report({"kind": "end", "state": state, "reason": reason})
            return
        error = task.exception()
        if isinstance(error, _KeyLost):
            attempt.report({"kind": "end", "state": error.state, "reason": error.reason})
        elif error is not None:
            outcome = ended(error)
            attempt.report({"kind": "end", "state": outcome.state, "reason": outcome.reason})

    async def _obtain(self, run: str, attempt: _Attempt, group: Sequence[Node]) -> None:
        """Return once every node of a group is in the store."""
        self._watch_for(run, group)
        while missing := [n for n in group if self._find(n) is None]:
            for node in missing:
                if node.key in self._lost_keys:
                    raise self._lost_keys[node.key]
            fresh = [node for node in missing if node.key not in self._builds]
            if fresh:
                self._begin(fresh, attempt.plan)
            builds = {self._builds[node.key] for node in missing}
            for build in builds:
                build.wanted_by.add(run)
            await asyncio.wait([b.task for b in builds if b.task is not None])

    def _lose_interest(self, run: str) -> None:
        for build in set(self._builds.values()):
            build.wanted_by.discard(run)
            if not build.wanted_by:
                build.stop.set()
        self._pool.dispatch()

    async def _rungs_after(self, attempt: _Attempt, group: Sequence[Node]) -> None:
        """Report the values at this stage's rungs, and wait until the trial may continue."""
        here = [rung for rung in self._rungs if rung.stage == group[0].stage.name]
        for rung in here:
            value = self._rung_value(group[0], rung)
            if value is not None and rung.name not in attempt.reported_rungs:
                self._report_rung(attempt, rung, value)
        place = len(attempt.entries)
        while attempt.reported_rungs & {rung.name for rung in here} and attempt.asked < place:
            attempt.asking.clear()
            await attempt.asking.wait()

    def _report_rung(self, attempt: _Attempt, rung: Rung, value: float) -> None:
        attempt.reported_rungs.add(rung.name)
        attempt.report({"kind": "rung", "name": rung.name, "value": value})

    def _rung_value(self, node: Node, rung: Rung) -> float | None:
        """Return the metric at a rung, replayed from a published artifact."""
        artifact = self._find(node)
        lines = artifact.metrics() if artifact is not None else []
        total = max((int(line["index"]) for line in lines), default=0)
        for line in lines:
            reached = rung.is_reached(int(line["index"]), total)
            if reached and line.get(rung.metric) is not None:
                return float(line[rung.metric])
        return None

    def _watch_for(self, run: str, group: Sequence[Node]) -> None:
        """Watch for rungs inside a stage that is being built."""
        stage = group[0].stage.name
        if any(rung.stage == stage and rung.fraction < 1 for rung in self._rungs):
            self._watched.setdefault(group[0].key, set()).add(run)

    def _watch(self, key: str, step: Step) -> None:
        """Report a rung that a step has just reached to all attempts that watch for it.

        Only if an earlier step was seen too: a body that resumed beyond the rung has a later value;
        the right one is read from the artifact's metrics in the end.
        """
        for run in self._watched.get(key, ()):
            attempt = self._attempts.get(run)
            for rung in self._rungs:
                if attempt is None or rung.fraction == 1 or rung.name in attempt.reported_rungs:
                    continue
                if not any(n.key == key and n.stage.name == rung.stage for n in attempt.plan.nodes):
                    continue
                place = (key, rung.name)
                if not rung.is_reached(step.index, step.total):
                    self._seen_before[place] = True
                elif rung.metric in step.metrics and self._seen_before.get(place):
                    self._report_rung(attempt, rung, float(step.metrics[rung.metric]))

    def _stage_entry(self, node: Node) -> dict[str, Any]:
        artifact = self._find(node)
        manifest = artifact.manifest() if artifact is not None else {}
        resources = self._resources.of(node.stage.name, node.stage.family)
        seconds = float(manifest.get("wall_seconds", 0.0))
        charged = device_seconds(float(manifest.get("device_seconds", seconds)), resources)
        paid = self._reserved.get(node.key)
        return {
            "kind": "stage",
            "stage": node.stage.recorded,
            "key": node.key,
            "artifact": artifact.folder.name if artifact is not None else "",
            "own": self._is_own(manifest, paid),
            "seconds": seconds,
            "device_seconds": charged,
            "reserved": paid if paid is not None else charged,
        }

    def _is_own(self, manifest: Mapping[str, Any], paid: float | None) -> bool:
        """Whether an artifact was made for this study, in this opening or an earlier one.

        One of our stage workers may have waited for another study's build; the manifest decides.
        """
        made_for = manifest.get("made_for")
        return made_for == self._bench.study if made_for else paid is not None

    async def _rows(self, attempt: _Attempt) -> dict[str, Any]:
        state, reason = "failed", ""
        for _ in range(1 + self._patience.losses):
            slot = await self._pool.acquire(self._resources.default)
            if slot is None:
                break
            try:
                found = await slot.port.evaluate(attempt.configuration, attempt.plan.nodes)
            except StageWorkerLost as lost:
                reason = str(lost)
                self._pool.discard(slot, paid_for=False)
                continue
            except asyncio.CancelledError:
                self._pool.stop(slot)
                raise
            self._pool.release(slot, paid_for=False)
            if found.values is not None:
                return {"kind": "end", "state": "completed", "values": dict(found.values)}
            state, reason = found.state, found.reason
            break
        return {"kind": "end", "state": state, "reason": f"rows: {reason}"}

    # Builds.
    def _begin(self, nodes: Sequence[Node], plan: Plan) -> None:
        """Start to build nodes that are not being built yet."""
        stage = nodes[0].stage
        resources = self._resources.of(stage.name, stage.family)
        manner: Manner = "alone"
        together = tuple(nodes)
        if resources.workers > 1 and stage.role == "train":
            manner = "worker_group"
        elif resources.workers > 1 and stage.role == "draw":
            manner, together = "drawing", self._with_scores(nodes, plan)
        self._numbers += 1
        build = _Build(self._numbers, together, manner, resources)
        self._orders[build.number] = build
        for node in together:
            self._builds[node.key] = build
        build.task = asyncio.create_task(self._execute(build))
        # Added before anything waits for the task: a waiter finds the keys lost, and starts none.
        build.task.add_done_callback(lambda task: self._broke(build, task))

    def _with_scores(self, draws: Sequence[Node], plan: Plan) -> tuple[Node, ...]:
        """Return draws and the scores that read them: one pipeline makes both."""
        keys = {node.key for node in draws}
        readers = [
            node
            for node in plan.nodes
            if node.stage.role == "score"
            and any(key in keys for _, key in node.inputs.values())
            and all(
                key in keys or self._store.find(name, key) for name, key in node.inputs.values()
            )
            and node.key not in self._builds
            and self._find(node) is None
        ]
        return (*draws, *readers)

    async def _execute(self, build: _Build) -> None:
        """Build until done, stopped, or out of retries."""
        try:
            while not build.stop.is_set() and self._still_missing(build):
                await self._others(build)
                if build.stop.is_set() or not self._still_missing(build):
                    break
                outcome = await self._try_build(build)
                if outcome is None or self._is_settled(build, outcome):
                    break
        finally:
            build.over = True
            build.stop.set()
            self._orders.pop(build.number, None)
            for node in build.nodes:
                if self._builds.get(node.key) is build:
                    del self._builds[node.key]
                self._watched.pop(node.key, None)

    def _broke(self, build: _Build, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            outcome = ended(error)
            self._lose(build.nodes, outcome.state, outcome.reason)

    def _still_missing(self, build: _Build) -> list[Node]:
        return [node for node in build.nodes if self._find(node) is None]

    async def _others(self, build: _Build) -> None:
        """Wait, without a stage worker, while processes outside this study build the nodes."""
        while not build.stop.is_set():
            missing = self._still_missing(build)
            held = [
                n for n in missing if self._store.leases.holder(key_folder(n.stage.name, n.key))
            ]
            if len(held) < len(missing) or not missing:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(build.stop.wait(), self._patience.poll_s)

    async def _try_build(self, build: _Build) -> Outcome | None:
        """Send the order to a stage worker; None: it was withdrawn before one was free."""
        alone = build.manner == "alone"
        shape, elsewhere = (build.resources, None) if alone else (WAITING, build.resources)
        slot = await self._pool.acquire(shape, elsewhere, build.stop)
        if slot is None:
            return None
        work = Work(build.number, tuple(self._still_missing(build)), build.manner, build.resources)
        began = time.monotonic()
        try:
            outcome = await slot.port.build(work)
        except StageWorkerLost as lost:
            self._pay(build, work, self._pool.discard(slot))
            return self._after_loss(work, str(lost))
        paid = self._pool.release(slot)
        if not alone:
            seconds = (time.monotonic() - began) * build.resources.workers
            paid = device_seconds(seconds, build.resources)
        self._pay(build, work, paid)
        return outcome

    def _pay(self, build: _Build, work: Work, reserved: float) -> None:
        """Share what a stage worker reserved among the nodes it built, by their seconds."""
        build.reserved += reserved
        built = {n.key: self._find(n) for n in work.nodes}
        seconds = {k: float(a.manifest()["wall_seconds"]) for k, a in built.items() if a}
        whole = sum(seconds.values())
        for key, part in seconds.items():
            share = part / whole if whole > 0 else 1 / len(seconds)
            self._reserved[key] = build.reserved * share
        if seconds:
            build.reserved = 0.0

    def _after_loss(self, work: Work, reason: str) -> Outcome:
        key = work.nodes[0].key
        self._losses[key] = self._losses.get(key, 0) + 1
        label = work.nodes[0].label
        if self._losses[key] > self._patience.losses:
            return self._lose(
                work.nodes, "failed", f"{label}: its stage worker died again ({reason})"
            )
        self._emit("note", f"{label}: stage worker lost ({reason}); resuming on another")
        return Outcome("stopped", reason)

    def _is_settled(self, build: _Build, outcome: Outcome) -> bool:
        """Handle the end of an order; False: it must be retried."""
        nodes = self._still_missing(build)
        if outcome.state == "built" or not nodes or nodes[0].key in self._lost_keys:
            return True
        if outcome.state == "stopped":
            # If the signal was not ours (a preempted machine, say), retry.
            return build.stop.is_set()
        if outcome.state == "unusable":
            self._lose(nodes, "unusable", outcome.reason)
            return True
        if outcome.state == "diverged":
            self._lose(nodes, "diverged", outcome.reason)
            return True
        key = nodes[0].key
        self._retried[key] = self._retried.get(key, 0) + 1
        if self._retried[key] > self._patience.retries:
            self._lose(nodes, "failed", outcome.reason)
            return True
        self._emit("note", f"{nodes[0].label}: {outcome.reason}; retrying")
        return False

    def _lose(self, nodes: Iterable[Node], state: str, reason: str) -> Outcome:
        """Fail these keys for all trials that wait for them, now and later in this opening."""
        for node in nodes:
            self._lost_keys[node.key] = _KeyLost(state, reason)
        return Outcome("failed", reason)

    # Helpers.
    def _find(self, node: Node) -> Artifact | None:
        return self._store.find(node.stage.name, node.key)

    def _emit(self, kind: str, what: Any) -> None:  # noqa: ANN401 - plain values
        self._events.append((kind, what))
        self._has_events.set()
