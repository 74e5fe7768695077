"""The builders of a study and what they reserve: who gets one, and until when it is kept.

Nothing in here knows Ray: builders come through `hire`. One event loop, no threads.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from namd.distributed.work import BuilderPort
from namd.study.gangs import devices_of_worker
from namd.study.plan import Cluster
from namd.study.spec import StageResources

Hire = Callable[[StageResources], BuilderPort]

FOREMAN = StageResources(cpus=1e-9)
"""Shape of a builder that only waits for a gang or for pools, which reserve for themselves."""


@dataclass
class Seat:
    """A builder with what it reserves.

    Attributes:
        shape: Itself.
        port: The builder.
        since: The moment from which nobody has paid for it yet.
        elsewhere: What the gang or the pools that it waits for reserve.
        idle: Ends it, unless an order comes before.
    """

    shape: StageResources
    port: BuilderPort
    since: float
    elsewhere: StageResources | None = None
    idle: asyncio.TimerHandle | None = None


@dataclass
class _Request:
    """Somebody who waits for a builder."""

    shape: StageResources
    elsewhere: StageResources | None
    withdrawn: asyncio.Event | None
    seat: "asyncio.Future[Seat | None]"


class Seats:
    """The pool of builders.

    Args:
        hire: Starts a builder.
        cluster: What there is to run on.
        concurrency: So many builders work at once; None: as many as there is room for.
        linger_s: An idle builder keeps its resources so long.
    """

    def __init__(
        self, hire: Hire, cluster: Cluster, concurrency: int | None, linger_s: float
    ) -> None:
        self._hire = hire
        self._cluster = cluster
        self._concurrency = concurrency
        self._linger_s = linger_s
        self._seats: list[Seat] = []
        self._busy: list[Seat] = []
        self._queue: deque[_Request] = deque()
        self._unpaid = 0.0

    async def take(
        self,
        shape: StageResources,
        elsewhere: StageResources | None = None,
        withdrawn: asyncio.Event | None = None,
    ) -> Seat | None:
        """Wait for a builder of a shape, in order of asking.

        Args:
            shape: What the builder itself reserves.
            elsewhere: What it will wait for: room is kept for that too.
            withdrawn: Once set, and `deal` called, None is returned.
        """
        future: asyncio.Future[Seat | None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Request(shape, elsewhere, withdrawn, future))
        self.deal()
        try:
            return await future
        except asyncio.CancelledError:
            seat = future.result() if future.done() and not future.cancelled() else None
            if seat is not None:
                self.give_back(seat, paid_for=False)
            raise

    def deal(self) -> None:
        """Hand out builders to those who wait, the first one first.

        Who must wait for room keeps it free of those behind him, so that a large order is not
        overtaken for ever by small ones; those that need other resources pass.
        """
        left: deque[_Request] = deque()
        kept_cpus = kept_gpus = 0.0
        while self._queue:
            request = self._queue.popleft()
            if request.seat.done():
                continue
            if request.withdrawn is not None and request.withdrawn.is_set():
                request.seat.set_result(None)
                continue
            cpus, gpus = _needs(request.shape, request.elsewhere)
            seat = self._find(request.shape, cpus + kept_cpus, gpus + kept_gpus)
            if seat is None:
                kept_cpus, kept_gpus = kept_cpus + cpus, kept_gpus + gpus
                left.append(request)
            else:
                seat.elsewhere = request.elsewhere
                self._busy.append(seat)
                request.seat.set_result(seat)
        self._queue = left

    def give_back(self, seat: Seat, *, paid_for: bool = True) -> float:
        """Free a builder for the next order; return the device seconds since the last one."""
        paid = self._settle(seat, paid_for=paid_for)
        seat.elsewhere = None
        if seat in self._busy:
            self._busy.remove(seat)
        loop = asyncio.get_running_loop()
        seat.idle = loop.call_later(self._linger_s, self.dismiss, seat)
        self.deal()
        return paid

    def discard(self, seat: Seat, *, paid_for: bool = True) -> float:
        """Strike off a builder whose process is gone; return its device seconds."""
        paid = self._settle(seat, paid_for=paid_for)
        self._strike_off(seat)
        self.deal()
        return paid

    def dismiss(self, seat: Seat) -> None:
        """End a builder that has no order."""
        if seat not in self._seats:
            return
        if seat.idle is not None:
            seat.idle.cancel()
        self._settle(seat, paid_for=False)
        self._strike_off(seat)
        seat.port.dismiss()
        if self._queue:
            asyncio.get_running_loop().call_soon(self.deal)

    def close(self) -> float:
        """End all builders; return the device seconds that nobody paid for."""
        for seat in list(self._seats):
            self.dismiss(seat)
        return self._unpaid

    def _find(self, shape: StageResources, cpus: float, gpus: float) -> Seat | None:
        """Return an idle builder of a shape, or hire one if so many cores and GPUs are free.

        More than there is room for is asked of Ray only where somebody said how many stages to
        build at once: a cluster that can grow then sees it wait.
        """
        limit = self._concurrency
        if limit is not None and len(self._busy) >= limit:
            return None
        idle = [seat for seat in self._seats if seat not in self._busy]
        same = [seat for seat in idle if seat.shape == shape]
        if same:
            cpus, gpus = cpus - shape.cores, gpus - shape.gpus
        others = [seat for seat in idle if seat not in same]
        while others and not self._has_room(cpus, gpus):
            self.dismiss(others.pop(0))
        if not self._has_room(cpus, gpus) and self._busy and limit is None:
            return None
        if same:
            seat = same[-1]
            if seat.idle is not None:
                seat.idle.cancel()
            return seat
        seat = Seat(shape, self._hire(shape), time.monotonic())
        self._seats.append(seat)
        return seat

    def _has_room(self, cpus: float, gpus: float) -> bool:
        """Whether so much is free of what this study has not taken."""
        slack = 1e-6
        taken = [_needs(seat.shape, seat.elsewhere) for seat in self._seats]
        free_cpus = self._cluster.cpus - sum(need[0] for need in taken)
        free_gpus = self._cluster.gpus - sum(need[1] for need in taken)
        return cpus <= free_cpus + slack and gpus <= free_gpus + slack

    def _strike_off(self, seat: Seat) -> None:
        for seats in (self._busy, self._seats):
            if seat in seats:
                seats.remove(seat)

    def _settle(self, seat: Seat, *, paid_for: bool) -> float:
        """Return the device seconds since this was last asked; note them if nobody pays."""
        now = time.monotonic()
        paid = (now - seat.since) * devices_of_worker(seat.shape)
        seat.since = now
        if not paid_for:
            self._unpaid += paid
        return paid


def _needs(shape: StageResources, elsewhere: StageResources | None) -> tuple[float, float]:
    """Return the cores and accelerators that a builder takes, and what it waits for."""
    if elsewhere is None:
        return shape.cores, shape.gpus
    return elsewhere.least * elsewhere.cores, elsewhere.least * elsewhere.gpus
