"""A tracker in its own thread: a failure costs one warning, never the study."""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

from namd.config.errors import InputError, StageError
from namd.tracking.protocol import Tracker

_LIMIT = 20_000
"""Queued calls, at most: about 20 MB. A tracker that far behind is dead or useless."""


@runtime_checkable
class Abandonable(Tracker, Protocol):
    """A tracker whose current call can be aborted."""

    def abandon(self) -> None:
        """Make its current call fail soon."""
        ...


class BackgroundTracker:
    """Forwards every call to another tracker in a thread; never raises, and only `close` waits.

    Args:
        inner: Does the work.
        warn: Called with one line, at most once.
        patience_s: How long `close` waits for queued calls.
        limit: Queued calls, at most; a step beyond half of it is dropped, an event beyond it ends
            the tracking.
    """

    def __init__(
        self,
        inner: Abandonable,
        warn: Callable[[str], None],
        patience_s: float = 60.0,
        limit: int = _LIMIT,
    ) -> None:
        self._inner = inner
        self._warn = warn
        self._patience_s = patience_s
        self._steps_limit = limit // 2
        self._calls: queue.Queue[Callable[[], None] | None] = queue.Queue(limit)
        self._over = threading.Event()
        self._warned = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="namd-tracking", daemon=True)
        self._thread.start()

    def event(
        self, trial: str | None, attempt: int, transition: str, body: Mapping[str, Any]
    ) -> None:
        """Queue a record."""
        self._put(partial(self._inner.event, trial, attempt, transition, body))

    def step(
        self, label: str, key: str, index: int, total: int, metrics: Mapping[str, float]
    ) -> None:
        """Queue a step, unless the queue is half full."""
        if self._calls.qsize() < self._steps_limit:
            self._put(partial(self._inner.step, label, key, index, total, dict(metrics)))

    def table(
        self, rows: Sequence[Mapping[str, Any]], effects: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Queue the table."""
        self._put(partial(self._inner.table, list(rows), list(effects)))

    def close(self) -> None:
        """Wait until all is written, with a time limit. A second call does nothing."""
        if not self._over.is_set():
            self._put(self._inner.close)
        if not self._over.is_set():
            self._put(None)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._give_up(f"not everything was written within {self._patience_s:g} s")
            self._inner.abandon()
            self._thread.join(5.0)

    def _put(self, call: Callable[[], None] | None) -> None:
        if self._over.is_set():
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._give_up("it does not keep up")

    def _work(self) -> None:
        try:
            while not self._over.is_set():
                call = self._calls.get()
                if call is None:
                    break
                call()
        except (InputError, StageError, OSError) as error:
            self._give_up(str(error))
            self._inner.abandon()
        finally:
            # Also after a bug of ours: the thread ends, the study does not.
            self._over.set()
            self._inner_released()

    def _inner_released(self) -> None:
        """Drop the queue to free its memory."""
        while True:
            try:
                self._calls.get_nowait()
            except queue.Empty:
                return

    def _give_up(self, reason: str) -> None:
        self._over.set()
        if self._warned.acquire(blocking=False):
            self._warn(
                f"tracking is off: {reason}; the ledger has everything, "
                "`namd study publish NAME --wandb` writes it again"
            )
