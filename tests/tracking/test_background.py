"""Whatever a tracker does, the study is not stopped, not delayed, and warned once."""

import threading
import time

from namd.config.errors import StageError
from namd.tracking.background import BackgroundTracker
from namd.tracking.protocol import Tracker


class Inner:
    """A tracker that keeps what it receives, and fails or hangs when asked to."""

    def __init__(self, error=None, gate=None) -> None:
        self.received, self.error, self.gate, self.abandoned = [], error, gate, False

    def event(self, trial, attempt, transition, body):
        if self.gate is not None:
            self.gate.wait()
        if self.error is not None:
            raise self.error
        self.received.append(transition)

    def step(self, label, key, index, total, metrics):
        self.received.append(index)

    def table(self, rows, effects=()):
        self.received.append("table")

    def close(self):
        self.received.append("close")

    def abandon(self):
        self.abandoned = True
        if self.gate is not None:
            self.gate.set()


def test_calls_arrive_in_order_and_close_waits_for_them():
    inner, warnings = Inner(), []
    tracker = BackgroundTracker(inner, warnings.append)
    assert isinstance(tracker, Tracker)
    tracker.event(None, 1, "opened", {})
    tracker.step("vae", "k", 1, 2, {"loss": 1.0})
    tracker.table([])
    tracker.close()
    tracker.close()
    assert inner.received == ["opened", 1, "table", "close"]
    assert not warnings
    assert not inner.abandoned


def test_a_failing_tracker_costs_one_warning():
    for error in (StageError("W&B: gone"), OSError(28, "No space left on device")):
        inner, warnings = Inner(error), []
        tracker = BackgroundTracker(inner, warnings.append)
        for _ in range(5):
            tracker.event(None, 1, "opened", {})
        tracker.close()
        assert inner.received == []
        assert len(warnings) == 1
        assert "publish" in warnings[0]


def test_a_hanging_tracker_is_abandoned():
    gate = threading.Event()
    inner, warnings = Inner(gate=gate), []
    tracker = BackgroundTracker(inner, warnings.append, patience_s=0.05, limit=4)
    start = time.monotonic()
    tracker.event(None, 1, "opened", {})
    tracker.close()
    assert time.monotonic() - start < 5
    assert inner.abandoned
    assert len(warnings) == 1


def test_one_that_does_not_keep_up_loses_steps_first_and_then_ends():
    gate = threading.Event()
    inner, warnings = Inner(gate=gate), []
    tracker = BackgroundTracker(inner, warnings.append, patience_s=0.05, limit=10)
    for index in range(100):
        tracker.event(None, 1, "opened", {}) if index == 0 else None
        tracker.step("vae", "k", index, 100, {})
    assert not warnings
    for _ in range(20):
        tracker.event(None, 1, "message/1", {})
    assert len(warnings) == 1
    tracker.close()
    assert len(warnings) == 1
