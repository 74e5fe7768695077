"""The decisions of a study's driver, from the ledger alone; Tune and the stage scheduler obey.

Everything here runs in the driver's main thread. Tune's trial ids are temporary: a trial is known
by its id in the ledger and the number of its attempt.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from namd.config.errors import InputError, StageError
from namd.ledger.lease import LeaseLost
from namd.ledger.pins import pin
from namd.ledger.requests import stop_requested
from namd.pipeline.graph import Plan
from namd.pipeline.run_configuration import RunConfiguration
from namd.storage.base import Storage
from namd.storage.errors import storage_problem
from namd.study.plan import SECONDS_PER_HOUR
from namd.study.record import StudyRecord
from namd.study.reporting import StudyReporter
from namd.tracking.protocol import Tracker

POLL_S = 2.0
"""Interval between two checks for a request to stop."""

ANSWER_S = 5.0
"""Seconds that trials have to report a stop; a trial whose process is still starting cannot."""

DRIVER_LOSSES = 3
"""Retries of a trial whose own process died, within one opening."""


@runtime_checkable
class StageSchedulerPort(Protocol):
    """The stage scheduler as the driver sees it; no call waits."""

    def admit(self, run: str, plan: Plan, configuration: RunConfiguration) -> None:
        """Begin an attempt at a trial."""

    def withdraw(self, run: str, reason: str) -> None:
        """End an attempt; the trial receives an end entry."""

    def forget(self, run: str) -> None:
        """Drop an attempt that is over."""

    def stop(self, reason: str) -> None:
        """End all attempts as interrupted."""

    def poll(self) -> Sequence[tuple[str, Any]]:
        """Return the steps and notes since the last call."""


@dataclass(frozen=True)
class Run:
    """One attempt at a trial."""

    trial: str
    attempt: int

    @property
    def name(self) -> str:
        """The attempt's name at the stage scheduler."""
        return f"{self.trial}/{self.attempt}"


class StudyController:
    """Starts trials, records what happens to them, and decides which continue.

    Args:
        record: The study's ledger, open.
        storage: The ledger's storage.
        stage_scheduler: Builds the stages.
        plan_of: Maps a trial's configuration to its plan.
        reporter: Receives steps and notes.
        trackers: Receive steps.
    """

    def __init__(
        self,
        record: StudyRecord,
        storage: Storage,
        stage_scheduler: StageSchedulerPort,
        plan_of: Callable[[RunConfiguration], Plan],
        reporter: StudyReporter,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.record = record
        self._storage = storage
        self._stage_scheduler = stage_scheduler
        self._plan_of = plan_of
        self._reporter = reporter
        self._trackers = tuple(trackers)
        self._runs: dict[str, Run] = {}
        self._driver_losses: dict[str, int] = {}
        self._executed = {
            (stage.key, stage.artifact)
            for trial in record.view.trials.values()
            for stage in trial.stages
            if not stage.cached
        }
        self._spent = record.view.device_seconds()
        self._looked = time.monotonic()
        self._asked_to_stop = ""
        self._stopped_at = 0.0
        self.stopping: str | None = None
        self.trouble: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether no further trial may begin."""
        return self.trouble is not None or self.stopping is not None or self.record.finished

    @property
    def running(self) -> int:
        """Number of attempts under way."""
        return len(self._runs)

    @property
    def has_losses(self) -> bool:
        """Whether a trial's own process died."""
        return bool(self._driver_losses)

    @property
    def stop_timed_out(self) -> bool:
        """Whether trials that have not answered a stop by now need not be waited for."""
        return self.stopping is not None and time.monotonic() - self._stopped_at > ANSWER_S

    def suggest(self, handle: str) -> str | None:
        """Begin the next trial under Tune's handle; return the attempt's name, or None: wait."""
        with self._guarded():
            self._check_signal()
            if self.trouble is not None or self.stopping is not None:
                return None
            for trial in self.record.next_trials(1):
                plan = self._plan_of(trial.configuration)
                places = [(node.stage.name, node.key) for node in plan.nodes]
                pin(self._storage, self.record.spec.name, trial.trial, places)
                run = Run(trial.trial, self.record.start(trial.trial))
                self._runs[handle] = run
                self._stage_scheduler.admit(run.name, plan, trial.configuration)
                return run.name
        return None

    def result(self, handle: str, entries: Sequence[Mapping[str, Any]]) -> bool:
        """Record what happened to a trial; return whether it continues."""
        run = self._runs.get(handle)
        if run is None:
            return False
        continues = False
        with self._guarded():
            continues = all(self._take(run, entry) for entry in entries)
        if not continues:
            del self._runs[handle]
            self._stage_scheduler.forget(run.name)
        return continues

    def lost(self, handle: str) -> None:
        """Record that a trial's own process died: the trial is pending again."""
        run = self._runs.pop(handle, None)
        if run is None:
            return
        self._stage_scheduler.forget(run.name)
        losses = self._driver_losses[run.trial] = self._driver_losses.get(run.trial, 0) + 1
        with self._guarded():
            if self.record.view.trials[run.trial].state != "running":
                return
            if losses > DRIVER_LOSSES:
                self.record.fail(run.trial, f"its driver process died {losses} times")
            else:
                self.record.interrupt(run.trial, "its driver process died")

    def tick(self) -> None:
        """Forward events, and check for requests to stop."""
        events: Sequence[tuple[str, Any]] = ()
        with self._guarded():
            events = self._stage_scheduler.poll()
        for kind, what in events:
            if kind == "note":
                self._reporter.note(what)
                continue
            stage, *progress = what
            self._reporter.step(stage, *progress)
            for tracker in self._trackers:
                tracker.step(stage.label, *progress)
        if time.monotonic() - self._looked < POLL_S:
            self._check_signal()
            return
        self._looked = time.monotonic()
        with self._guarded():
            name = self.record.spec.name
            asked = stop_requested(self._storage, name, self.record.attempt)
            if asked is not None:
                self.ask_to_stop(asked)
        self._check_signal()

    def ask_to_stop(self, reason: str) -> None:
        """Request a stop; safe to call in a signal handler, since it only sets a flag."""
        self._asked_to_stop = self._asked_to_stop or reason

    def abandon(self, reason: str) -> None:
        """Record all running trials as interrupted, once none can report any more."""
        for handle in list(self._runs):
            run = self._runs.pop(handle)
            with self._guarded():
                if self.trouble is None and self.record.view.trials[run.trial].state == "running":
                    self.record.interrupt(run.trial, reason)

    def account(self, idle_device_seconds: float) -> None:
        """Record what stage workers reserved in this opening without building."""
        if self.trouble is None:
            with self._guarded():
                seconds = round(idle_device_seconds, 3)
                text = (
                    f"{seconds:.0f} device seconds went to stage workers that started, waited or "
                    "formed tables; the rest built stages"
                )
                self.record.message(text, idle_device_seconds=seconds)

    def _check_signal(self) -> None:
        if self._asked_to_stop and self.stopping is None:
            self._stop(self._asked_to_stop)

    def _stop(self, reason: str) -> None:
        if self.stopping is None:
            self.stopping, self._stopped_at = reason, time.monotonic()
            self._stage_scheduler.stop(reason)

    def _take(self, run: Run, entry: Mapping[str, Any]) -> bool:
        """Record one entry; return whether the trial continues."""
        if entry["kind"] == "stage":
            self._take_stage(run, entry)
            return True
        if entry["kind"] == "rung":
            return self._take_rung(run, entry["name"], float(entry["value"]))
        self._take_end(run, entry)
        return False

    def _take_stage(self, run: Run, entry: Mapping[str, Any]) -> None:
        """Count an execution once, for any number of waiting trials and attempts.

        This includes one that an earlier, killed opening of this study did not record: the
        manifest names the study it was made for.
        """
        place = (entry["key"], entry["artifact"])
        cached = place in self._executed or not entry["own"]
        costs = {name: entry[name] for name in ("seconds", "device_seconds", "reserved")}
        if cached:
            costs = dict.fromkeys(costs, 0.0)
        self.record.stage(
            run.trial,
            entry["stage"],
            entry["key"],
            cached=cached,
            artifact=entry["artifact"],
            **costs,
        )
        if not cached:
            self._executed.add(place)
            self._spend(entry["device_seconds"])

    def _spend(self, device_seconds: float) -> None:
        """Stop once the budget is spent: the plan may have underestimated it."""
        self._spent += device_seconds
        budget = self.record.spec.budget
        if budget is not None and self._spent > budget.device_hours * SECONDS_PER_HOUR:
            self.ask_to_stop(
                f"budget.device_hours={budget.device_hours:g} is spent; raise it and resume"
            )

    def _take_rung(self, run: Run, name: str, value: float) -> bool:
        if self.record.rung(run.trial, name, value) == "continue":
            return True
        if self.record.view.trials[run.trial].state == "running":
            self.record.prune(run.trial, f"stopped at {name}")
        # The proposal's other seeds are pruned with it, and stop at once.
        withdrawn = set(self.record.withdrawn())
        for other in self._runs.values():
            if other.trial in withdrawn:
                self._stage_scheduler.withdraw(other.name, "its proposal was pruned")
        return False

    def _take_end(self, run: Run, entry: Mapping[str, Any]) -> None:
        if self.record.view.trials[run.trial].state != "running":
            return
        state, reason = entry["state"], str(entry.get("reason", ""))
        if state == "completed":
            self.record.complete(run.trial, entry["values"])
        elif state == "withdrawn":
            self.record.prune(run.trial, reason)
        elif state == "failed":
            self.record.fail(run.trial, reason)
        elif state == "diverged":
            self.record.diverge(run.trial, reason)
        else:
            self.record.interrupt(run.trial, reason)
            if state == "unusable":
                raise StageError(reason)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep an error of ledger or store for the end, and stop the study.

        Tune would wrap an error that passes through it, and continue.
        """
        try:
            yield
        except (OSError, InputError, StageError, LeaseLost) as error:
            if self.trouble is None:
                self.trouble = error
                self._stop(trouble_text(error))


def trouble_text(error: BaseException) -> str:
    """Return an error in one line, including the problem of the disk, if any."""
    problem = storage_problem(error)
    return f"{error} ({problem})" if problem and problem not in str(error) else str(error)
