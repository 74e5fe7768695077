"""Builds what the trials of a study need: each key once, for as long as somebody wants it.

Trials are walked through their plans here, side by side, in one thread. Nothing in here knows Ray:
stage workers come through `start_worker`, and in a study the whole object lives in an actor of its
own.
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
from namd.study.asha import Rung
from namd.study.plan import Cluster
from namd.study.spec import ResourcesSpec, StageResources
from namd.study.worker_groups import device_seconds


@dataclass(frozen=True)
class Patience:
    """Limits of the stage scheduler.

    Attributes:
        retries: A key whose body failed is built so often again, over all trials of an attempt.
        losses: So often again after its stage worker was lost: a machine's death says little about
            the key, but a body that kills its process must not do so for ever.
        linger_s: An idle stage worker keeps its resources so long. About what its successor would
            spend on starting and importing: waiting longer may cost more than it saves.
        poll_s: Between two looks at a key that another process builds.
        grace_s: Between a request to stop and the end of the stage workers.
    """

    retries: int = 1
    losses: int = 3
    linger_s: float = 5.0
    poll_s: float = 0.5
    grace_s: float = 30.0


class _KeyLost(Exception):  # noqa: N818 - an event
    """A key cannot be had: it failed or diverged."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state, self.reason = state, reason


@dataclass(eq=False)
class _Build:
    """Nodes that are built together, and who waits for them."""

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
class _Walk:
    """One attempt at a trial on its way through its plan."""

    plan: Plan
    configuration: RunConfiguration
    entries: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    asking: asyncio.Event = field(default_factory=asyncio.Event)
    told_rungs: set[str] = field(default_factory=set)
    withdrawn: str | None = None
    task: "asyncio.Task[None] | None" = None

    def tell(self, entry: dict[str, Any]) -> None:
        """Add an entry for the trial."""
        self.entries.append(entry)
        self.changed.set()


class StageScheduler:
    """The coordinator of a study's stage workers.

    Args:
        bench: Where stage workers work.
        start_worker: Starts a stage worker.
        resources: What stages reserve.
        rungs: Where trials are compared.
        cluster: What there is to run on.
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
        self._walks: dict[str, _Walk] = {}
        self._builds: dict[str, _Build] = {}
        self._orders: dict[int, _Build] = {}
        self._lost_keys: dict[str, _KeyLost] = {}
        self._retried: dict[str, int] = {}
        self._losses: dict[str, int] = {}
        self._reserved: dict[str, float] = {}
        self._pool = WorkerPool(
            start_worker, cluster, resources.concurrency, self._patience.linger_s
        )
        self._events: list[tuple[str, Any]] = []
        self._has_events = asyncio.Event()
        self._stopping: str | None = None
        self._numbers = 0
        self._watched: dict[str, set[str]] = {}
        self._seen_before: dict[tuple[str, str], bool] = {}

    # What the driver asks.

    async def admit(self, run: str, plan: Plan, configuration: RunConfiguration) -> None:
        """Begin to walk an attempt at a trial through its plan."""
        walk = self._walks[run] = _Walk(plan, configuration)
        walk.task = asyncio.create_task(self._walk(run, walk))
        walk.task.add_done_callback(lambda task: self._ended(walk, task))

    async def withdraw(self, run: str, reason: str) -> None:
        """End an attempt; what nobody else waits for is stopped."""
        walk = self._walks.get(run)
        if walk is not None and walk.task is not None and not walk.task.done():
            walk.withdrawn = reason
            walk.task.cancel()

    async def forget(self, run: str) -> None:
        """Drop an attempt that is over."""
        await self.withdraw(run, "its driver is gone")
        self._walks.pop(run, None)

    async def drain(self, timeout_s: float) -> list[tuple[str, Any]]:
        """Return steps and notes since the last call, waiting for the first one so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_events.wait(), timeout_s)
        self._has_events.clear()
        events, self._events = self._events, []
        return events

    async def stop(self, reason: str) -> None:
        """End all attempts as interrupted; stage workers save checkpoints."""
        self._stopping = reason
        for run, walk in self._walks.items():
            if walk.task is not None and not walk.task.done():
                await self.withdraw(run, reason)

    async def close(self) -> float:
        """Wait for the stage workers to save and end; return the idle device seconds."""
        for run in list(self._walks):
            await self.forget(run)
        tasks = [build.task for build in self._orders.values() if build.task is not None]
        for build in self._orders.values():
            build.stop.set()
        if tasks:
            await asyncio.wait(tasks, timeout=self._patience.grace_s)
        return self._pool.close()

    # What trials ask.

    async def advance(self, run: str, cursor: int) -> list[dict[str, Any]]:
        """Return what happened to an attempt after its first `cursor` entries; wait for some.

        Asking tells that every entry before the cursor was seen and did not end the trial.
        """
        walk = self._walks.get(run)
        if walk is None:
            return [{"kind": "end", "state": "interrupted", "reason": "its driver was gone"}]
        walk.asked = max(walk.asked, cursor)
        walk.asking.set()
        while len(walk.entries) <= cursor:
            walk.changed.clear()
            await walk.changed.wait()
        return walk.entries[cursor:]

    # What stage workers ask and tell.

    async def asked_to_stop(self, number: int) -> bool:
        """Return True when this order shall stop, False when it is over."""
        build = self._orders.get(number)
        if build is None:
            return False
        await build.stop.wait()
        return not build.over

    async def relay(self, steps: Iterable[tuple[str, str, Step]]) -> None:
        """Take in steps of a stage that is being built."""
        for label, key, step in steps:
            self._tell("step", (label, key, step.index, step.total, dict(step.metrics)))
            self._watch(key, step)

    async def note(self, line: str) -> None:
        """Take in a line for the user."""
        self._tell("note", line)

    # A trial's way.

    async def _walk(self, run: str, walk: _Walk) -> None:
        try:
            for group in walk.plan.groups():
                await self._obtain(run, walk, group)
                for node in group:
                    walk.tell(self._stage_entry(node))
                await self._rungs_after(walk, group)
            walk.tell(await self._rows(walk))
        finally:
            self._lose_interest(run)

    def _ended(self, walk: _Walk, task: "asyncio.Task[None]") -> None:
        """Tell how a walk ended that did not tell so itself."""
        if task.cancelled():
            state = "interrupted" if self._stopping is not None else "withdrawn"
            walk.tell({"kind": "end", "state": state, "reason": walk.withdrawn or "cancelled"})
            return
        error = task.exception()
        if isinstance(error, _KeyLost):
            walk.tell({"kind": "end", "state": error.state, "reason": error.reason})
        elif error is not None:
            outcome = ended(error)
            walk.tell({"kind": "end", "state": outcome.state, "reason": outcome.reason})

    async def _obtain(self, run: str, walk: _Walk, group: Sequence[Node]) -> None:
        """Return once every node of a group is in the store."""
        self._watch_for(run, group)
        while missing := [n for n in group if self._find(n) is None]:
            for node in missing:
                if node.key in self._lost_keys:
                    raise self._lost_keys[node.key]
            fresh = [node for node in missing if node.key not in self._builds]
            if fresh:
                self._begin(fresh, walk.plan)
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

    async def _rungs_after(self, walk: _Walk, group: Sequence[Node]) -> None:
        """Tell the values at this stage's rungs, and wait until the trial may go on."""
        here = [rung for rung in self._rungs if rung.stage == group[0].stage.name]
        for rung in here:
            value = self._rung_value(group[0], rung)
            if value is not None and rung.name not in walk.told_rungs:
                self._tell_rung(walk, rung, value)
        place = len(walk.entries)
        while walk.told_rungs & {rung.name for rung in here} and walk.asked < place:
            walk.asking.clear()
            await walk.asking.wait()

    def _tell_rung(self, walk: _Walk, rung: Rung, value: float) -> None:
        walk.told_rungs.add(rung.name)
        walk.tell({"kind": "rung", "name": rung.name, "value": value})

    def _rung_value(self, node: Node, rung: Rung) -> float | None:
        """Return the metric at a rung of a published artifact, which replays it."""
        artifact = self._find(node)
        lines = artifact.metrics() if artifact is not None else []
        total = max((int(line["index"]) for line in lines), default=0)
        for line in lines:
            reached = rung.is_reached(int(line["index"]), total)
            if reached and line.get(rung.metric) is not None:
                return float(line[rung.metric])
        return None

    def _watch_for(self, run: str, group: Sequence[Node]) -> None:
        """Look out for rungs inside a stage that is being built."""
        stage = group[0].stage.name
        if any(rung.stage == stage and rung.fraction < 1 for rung in self._rungs):
            self._watched.setdefault(group[0].key, set()).add(run)

    def _watch(self, key: str, step: Step) -> None:
        """Tell a rung that a step has just reached to all who look out for it.

        Only where an earlier step was seen too: a body that resumed behind the rung must not
        stand in for the value there, which the artifact's own measurements tell in the end.
        """
        for run in self._watched.get(key, ()):
            walk = self._walks.get(run)
            for rung in self._rungs:
                if walk is None or rung.fraction == 1 or rung.name in walk.told_rungs:
                    continue
                if not any(n.key == key and n.stage.name == rung.stage for n in walk.plan.nodes):
                    continue
                place = (key, rung.name)
                if not rung.is_reached(step.index, step.total):
                    self._seen_before[place] = True
                elif rung.metric in step.metrics and self._seen_before.get(place):
                    self._tell_rung(walk, rung, float(step.metrics[rung.metric]))

    def _stage_entry(self, node: Node) -> dict[str, Any]:
        artifact = self._find(node)
        manifest = artifact.manifest() if artifact is not None else {}
        resources = self._resources.of(node.stage.name, node.stage.family)
        seconds = float(manifest.get("wall_seconds", 0.0))
        charged = device_seconds(float(manifest.get("device_seconds", seconds)), resources)
        paid = self._reserved.get(node.key)
        return {
            "kind": "stage",
            "label": node.label,
            "key": node.key,
            "artifact": artifact.folder.name if artifact is not None else "",
            "own": self._is_own(manifest, paid),
            "seconds": seconds,
            "device_seconds": charged,
            "reserved": paid if paid is not None else charged,
        }

    def _is_own(self, manifest: Mapping[str, Any], paid: float | None) -> bool:
        """Whether an artifact was made for this study, in this opening or an earlier one.

        A stage worker of ours may have waited for another study's; the manifest knows better.
        """
        made_for = manifest.get("made_for")
        return made_for == self._bench.study if made_for else paid is not None

    async def _rows(self, walk: _Walk) -> dict[str, Any]:
        state, reason = "failed", ""
        for _ in range(1 + self._patience.losses):
            slot = await self._pool.acquire(self._resources.default)
            if slot is None:
                break
            try:
                found = await slot.port.evaluate(walk.configuration, walk.plan.nodes)
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

    # Building.

    def _begin(self, nodes: Sequence[Node], plan: Plan) -> None:
        """Start to build nodes that nobody builds yet."""
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
        # Before anybody waits for it: who waits finds its keys lost, and does not begin again.
        build.task.add_done_callback(lambda task: self._broke(build, task))

    def _with_scores(self, draws: Sequence[Node], plan: Plan) -> tuple[Node, ...]:
        """Return draws with the scores that read them: one pipeline makes both."""
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
        """Build until done, stopped, or out of tries."""
        try:
            while not build.stop.is_set() and self._still_missing(build):
                await self._others(build)
                if build.stop.is_set() or not self._still_missing(build):
                    break
                outcome = await self._attempt(build)
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

    async def _attempt(self, build: _Build) -> Outcome | None:
        """Give the order to a stage worker; None: it was withdrawn before one was free."""
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
        self._tell("note", f"{label}: its stage worker is gone ({reason}); another one goes on")
        return Outcome("stopped", reason)

    def _is_settled(self, build: _Build, outcome: Outcome) -> bool:
        """Take in how an order ended; False: it is to be tried again."""
        nodes = self._still_missing(build)
        if outcome.state == "built" or not nodes or nodes[0].key in self._lost_keys:
            return True
        if outcome.state == "stopped":
            # Told by us, or told by somebody else (a machine that is taken away): then again.
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
        self._tell("note", f"{nodes[0].label}: {outcome.reason}; tried once more")
        return False

    def _lose(self, nodes: Iterable[Node], state: str, reason: str) -> Outcome:
        """Let these keys fail for all who wait for them, now and later in this attempt."""
        for node in nodes:
            self._lost_keys[node.key] = _KeyLost(state, reason)
        return Outcome("failed", reason)

    # Small things.

    def _find(self, node: Node) -> Artifact | None:
        return self._store.find(node.stage.name, node.key)

    def _tell(self, kind: str, what: Any) -> None:  # noqa: ANN401 - plain values
        self._events.append((kind, what))
        self._has_events.set()
