"""The stage workers of a study and the resources they reserve: assignment, idling, stopping.

Nothing here depends on Ray: stage workers come through `start_worker`. One event loop, no threads.
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
"""Shape of a stage worker that waits for a worker group or actor pools with their own resources."""


@dataclass
class WorkerSlot:
    """A stage worker and what it reserves.

    Attributes:
        shape: The resources of the worker itself.
        port: The stage worker.
        since: Start of the time that is not charged yet.
        elsewhere: The resources of the worker group or pools that it waits for.
        idle: Timer that stops it unless an order comes first.
    """

    shape: StageResources
    port: StageWorkerPort
    since: float
    elsewhere: StageResources | None = None
    idle: asyncio.TimerHandle | None = None


@dataclass
class _Request:
    """A pending request for a stage worker."""

    shape: StageResources
    elsewhere: StageResources | None
    withdrawn: asyncio.Event | None
    slot: "asyncio.Future[WorkerSlot | None]"


class WorkerPool:
    """The pool of stage workers.

    Args:
        start_worker: Starts a stage worker.
        cluster: The resources to run on.
        concurrency: Busy stage workers at once, at most; None: as many as fit.
        idle_timeout_s: Seconds for which an idle stage worker keeps its resources.
    """

    def __init__(
        self,
        start_worker: StartWorker,
        cluster: Cluster,
        concurrency: int | None,
        idle_timeout_s: float,
    ) -> None:
        self._start_worker = start_worker
        self._cluster = cluster
        self._concurrency = concurrency
        self._idle_timeout_s = idle_timeout_s
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
        """Wait for a stage worker of a shape, first come, first served.

        Args:
            shape: What the stage worker itself reserves.
            elsewhere: What the work it waits for reserves; space is kept free for that too.
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
        """Assign stage workers to pending requests in order.

        A pending request blocks later ones from the resources that it needs, so that small orders
        cannot starve a large one; requests for other resources may pass it.
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
        """Make a stage worker available; return the device seconds since its last order."""
        paid = self._settle(slot, paid_for=paid_for)
        slot.elsewhere = None
        if slot in self._busy:
            self._busy.remove(slot)
        loop = asyncio.get_running_loop()
        slot.idle = loop.call_later(self._idle_timeout_s, self.stop, slot)
        self.dispatch()
        return paid

    def discard(self, slot: WorkerSlot, *, paid_for: bool = True) -> float:
        """Remove a stage worker whose process died; return its device seconds."""
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
        """Stop all stage workers; return the device seconds that no build was charged for."""
        for slot in list(self._slots):
            self.stop(slot)
        return self._unpaid

    def _find(self, shape: StageResources, cpus: float, gpus: float) -> WorkerSlot | None:
        """Return an idle stage worker of a shape, or start one if its cores and GPUs are free.

        Ray is asked for more than fits only if the study sets `concurrency`: an autoscaling
        cluster then sees a pending request.
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
        """Whether this many cores and GPUs are not reserved by this study."""
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
        """Return the device seconds since the last call; add them up if no build is charged."""
        now = time.monotonic()
        paid = (now - slot.since) * devices_of_worker(slot.shape)
        slot.since = now
        if not paid_for:
            self._unpaid += paid
        return paid


def _needs(shape: StageResources, elsewhere: StageResources | None) -> tuple[float, float]:
    """Return the cores and accelerators of a stage worker or of the work it waits for."""
    if elsewhere is None:
        return shape.cores, shape.gpus
    return elsewhere.least * elsewhere.cores, elsewhere.least * elsewhere.gpus
