"""The stage workers of a study and what they reserve: who gets one, and until when it is kept.

Nothing in here knows Ray: stage workers come through `start_worker`. One event loop, no threads.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from namd.distributed.work import StageWorkerPort
from namd.study.plan import Cluster
from namd.study.spec import StageResources
from namd.study.worker_groups import devices_of_worker

StartWorker = Callable[[StageResources], StageWorkerPort]

WAITING = StageResources(cpus=1e-9)
"""Shape of a stage worker that only waits for a worker group or pools; they reserve their own."""


@dataclass
class WorkerSlot:
    """A stage worker with what it reserves.

    Attributes:
        shape: Itself.
        port: The stage worker.
        since: The moment from which nobody has paid for it yet.
        elsewhere: What the worker group or the pools that it waits for reserve.
        idle: Ends it, unless an order comes before.
    """

    shape: StageResources
    port: StageWorkerPort
    since: float
    elsewhere: StageResources | None = None
    idle: asyncio.TimerHandle | None = None


@dataclass
class _Request:
    """Somebody who waits for a stage worker."""

    shape: StageResources
    elsewhere: StageResources | None
    withdrawn: asyncio.Event | None
    slot: "asyncio.Future[WorkerSlot | None]"


class WorkerPool:
    """The pool of stage workers.

    Args:
        start_worker: Starts a stage worker.
        cluster: What there is to run on.
        concurrency: So many stage workers work at once; None: as many as there is room for.
        linger_s: An idle stage worker keeps its resources so long.
    """

    def __init__(
        self, start_worker: StartWorker, cluster: Cluster, concurrency: int | None, linger_s: float
    ) -> None:
        self._start_worker = start_worker
        self._cluster = cluster
        self._concurrency = concurrency
        self._linger_s = linger_s
        self._slots: list[WorkerSlot] = []
        self._busy: list[WorkerSlot] = []
        self._queue: deque[_Request] = deque()
        self._unpaid = 0.0

    async def acquire(
        self,
        shape: StageResources,
        elsewhere: StageResources | None = None,
        withdrawn: asyncio.Event | None = None,
    ) -> WorkerSlot | None:
        """Wait for a stage worker of a shape, in order of asking.

        Args:
            shape: What the stage worker itself reserves.
            elsewhere: What it will wait for: room is kept for that too.
            withdrawn: Once set, and `dispatch` called, None is returned.
        """
        future: asyncio.Future[WorkerSlot | None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(shape, elsewhere, withdrawn, future))
        self.dispatch()
        try:
            return await future
        except asyncio.CancelledError:
            slot = future.result() if future.done() and not future.cancelled() else None
            if slot is not None:
                self.release(slot, paid_for=False)
            raise

    def dispatch(self) -> None:
        """Hand out stage workers to those who wait, the first one first.

        Who must wait for room keeps it free of those behind him, so that a large order is not
        overtaken for ever by small ones; those that need other resources pass.
        """
        left: deque[_Request] = deque()
        kept_cpus = kept_gpus = 0.0
        while self._queue:
            request = self._queue.popleft()
            if request.slot.done():
                continue
            if request.withdrawn is not None and request.withdrawn.is_set():
                request.slot.set_result(None)
                continue
            cpus, gpus = _needs(request.shape, request.elsewhere)
            slot = self._find(request.shape, cpus + kept_cpus, gpus + kept_gpus)
            if slot is None:
                kept_cpus, kept_gpus = kept_cpus + cpus, kept_gpus + gpus
                left.append(request)
            else:
                slot.elsewhere = request.elsewhere
                self._busy.append(slot)
                request.slot.set_result(slot)
        self._queue = left

    def release(self, slot: WorkerSlot, *, paid_for: bool = True) -> float:
        """Free a stage worker for the next order; return the device seconds since the last one."""
        paid = self._settle(slot, paid_for=paid_for)
        slot.elsewhere = None
        if slot in self._busy:
            self._busy.remove(slot)
        loop = asyncio.get_running_loop()
        slot.idle = loop.call_later(self._linger_s, self.stop, slot)
        self.dispatch()
        return paid

    def discard(self, slot: WorkerSlot, *, paid_for: bool = True) -> float:
        """Strike off a stage worker whose process is gone; return its device seconds."""
        paid = self._settle(slot, paid_for=paid_for)
        self._strike_off(slot)
        self.dispatch()
        return paid

    def stop(self, slot: WorkerSlot) -> None:
        """End a stage worker that has no order."""
        if slot not in self._slots:
            return
        if slot.idle is not None:
            slot.idle.cancel()
        self._settle(slot, paid_for=False)
        self._strike_off(slot)
        slot.port.stop()
        if self._queue:
            asyncio.get_running_loop().call_soon(self.dispatch)

    def close(self) -> float:
        """End all stage workers; return the device seconds that nobody paid for."""
        for slot in list(self._slots):
            self.stop(slot)
        return self._unpaid

    def _find(self, shape: StageResources, cpus: float, gpus: float) -> WorkerSlot | None:
        """Return an idle stage worker of a shape, or start one if so many cores and GPUs are free.

        More than there is room for is asked of Ray only where somebody said how many stages to
        build at once: a cluster that can grow then sees it wait.
        """
        limit = self._concurrency
        if limit is not None and len(self._busy) >= limit:
            return None
        idle = [slot for slot in self._slots if slot not in self._busy]
        same = [slot for slot in idle if slot.shape == shape]
        if same:
            cpus, gpus = cpus - shape.cores, gpus - shape.gpus
        others = [slot for slot in idle if slot not in same]
        while others and not self._has_room(cpus, gpus):
            self.stop(others.pop(0))
        if not self._has_room(cpus, gpus) and self._busy and limit is None:
            return None
        if same:
            slot = same[-1]
            if slot.idle is not None:
                slot.idle.cancel()
            return slot
        slot = WorkerSlot(shape, self._start_worker(shape), time.monotonic())
        self._slots.append(slot)
        return slot

    def _has_room(self, cpus: float, gpus: float) -> bool:
        """Whether so much is free of what this study has not taken."""
        slack = 1e-6
        taken = [_needs(slot.shape, slot.elsewhere) for slot in self._slots]
        free_cpus = self._cluster.cpus - sum(need[0] for need in taken)
        free_gpus = self._cluster.gpus - sum(need[1] for need in taken)
        return cpus <= free_cpus + slack and gpus <= free_gpus + slack

    def _strike_off(self, slot: WorkerSlot) -> None:
        for slots in (self._busy, self._slots):
            if slot in slots:
                slots.remove(slot)

    def _settle(self, slot: WorkerSlot, *, paid_for: bool) -> float:
        """Return the device seconds since this was last asked; note them if nobody pays."""
        now = time.monotonic()
        paid = (now - slot.since) * devices_of_worker(slot.shape)
        slot.since = now
        if not paid_for:
            self._unpaid += paid
        return paid


def _needs(shape: StageResources, elsewhere: StageResources | None) -> tuple[float, float]:
    """Return the cores and accelerators that a stage worker takes, and what it waits for."""
    if elsewhere is None:
        return shape.cores, shape.gpus
    return elsewhere.least * elsewhere.cores, elsewhere.least * elsewhere.gpus
