"""Plays a study in this process: study controller and stage scheduler as they are, Tune and Ray's
actors played.

A thread runs the stage scheduler's event loop, as its actor does; stage workers are threads.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import toy_study as toy

from namd.config.errors import InputError, NotFiniteError, StageError
from namd.distributed.driver import _conclude
from namd.distributed.rows import run_values
from namd.distributed.stage_scheduler import Patience, StageScheduler
from namd.distributed.study_controller import StudyController
from namd.distributed.work import (
    Bench,
    Outcome,
    Parts,
    RunRows,
    StageWorkerLost,
    ended,
    no_rows,
    one_line,
)
from namd.pipeline.graph import Plan, make_plan
from namd.pipeline.launcher import Launcher
from namd.pipeline.reporting import SilentReporter
from namd.pipeline.store import open_store
from namd.storage.lease import LeaseTiming
from namd.storage.opening import open_storage
from namd.study.plan import Cluster
from namd.study.record import open_study
from namd.study.reporting import SilentStudyReporter
from namd.study.trials import Configurator

PARTS = Parts(toy.tabulate, toy.ToyWorld)
TIMING = LeaseTiming(heartbeat_s=0.2, ttl_s=2.0)
PATIENCE = Patience(idle_timeout_s=0.2, poll_s=0.05, grace_s=5.0)


class Recorder(SilentStudyReporter):
    """Keeps what it receives."""

    def __init__(self, on_event: Callable | None = None) -> None:
        self.events, self.notes, self.steps, self.plan = [], [], [], None
        self._on_event = on_event

    def planned(self, plan) -> None:
        self.plan = plan

    def event(self, trial, transition, body, view) -> None:
        self.events.append((trial, transition, dict(body)))
        if self._on_event is not None:
            self._on_event(trial, transition, body, view)

    def step(self, stage, key, index, total, metrics) -> None:
        self.steps.append((stage.label, index))

    def note(self, line) -> None:
        self.notes.append(line)


class LocalStageWorker(SilentReporter):
    """A stage worker in a thread. `deaths` counts the orders that end like a killed process's."""

    def __init__(self, theatre: "Theatre") -> None:
        self.theatre = theatre
        self.stopped = False
        self._stop = False

    async def build(self, work) -> Outcome:
        if self.theatre.deaths > 0:
            self.theatre.deaths -= 1
            raise StageWorkerLost("killed")
        self._stop = False
        watch = asyncio.create_task(self._watch(work.number))
        try:
            return await asyncio.to_thread(self._execute, work)
        finally:
            watch.cancel()

    async def _watch(self, number: int) -> None:
        self._stop = await self.theatre.stage_scheduler.asked_to_stop(number)

    def _execute(self, work) -> Outcome:
        self.work = work
        try:
            store = open_store(str(self.theatre.folder), TIMING, create=False, answered=True)
            Launcher(
                store, Path("none"), self, toy.ToyWorld, made_for=self.theatre.spec.name
            ).build(Plan(work.nodes))
        except SystemExit:
            return Outcome("stopped", "asked to")
        except NotFiniteError as error:
            return Outcome("diverged", one_line(error))
        except (StageError, InputError, OSError) as error:
            return ended(error)
        return Outcome("built")

    def stepped(self, nodes, step) -> None:
        loop = self.theatre.loop
        found = self.theatre.stage_scheduler.relay([(nodes[0].stage.recorded, nodes[0].key, step)])
        asyncio.run_coroutine_threadsafe(found, loop).result()
        if self._stop:
            raise SystemExit(143)

    async def evaluate(self, configuration, nodes) -> RunRows:
        try:
            store = open_store(str(self.theatre.folder), TIMING, create=False, answered=True)
            return RunRows(
                run_values(configuration, Plan(tuple(nodes)), Path("none"), store, toy.tabulate)
            )
        except (StageError, InputError, OSError) as error:
            return no_rows(error)

    def stop(self) -> None:
        self.stopped = True


class Theatre:
    """One opening of a study, played from beginning to end by `play`."""

    def __init__(
        self,
        folder: Path,
        spec,
        *,
        drivers=3,
        cpus=2.0,
        deaths=0,
        reporter=None,
        patience=PATIENCE,
        ledger_timing=None,
    ) -> None:
        self.ledger_timing = ledger_timing
        self.folder, self.spec, self.drivers, self.deaths = folder, spec, drivers, deaths
        self.reporter = reporter or Recorder()
        store = open_store(str(folder), TIMING)
        store.backend.working_folder("cache")
        self.storage = open_storage(str(folder))
        self.stage_workers: list[LocalStageWorker] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        rungs = ()
        spec = Configurator(spec, toy.METHODS, {}).spec
        if spec.search is not None and spec.search.stop_early is not None:
            rungs = spec.search.stop_early.asha.rungs
        bench = Bench(spec.name, str(folder), Path("none"), PARTS)
        self.stage_scheduler = StageScheduler(
            bench, self._start_worker, spec.resources, rungs, Cluster(cpus), patience
        )
        self.controller: StudyController | None = None
        self.lost_drivers = 0

    def play(self, retry_failed: bool = False):
        """Run to the end; return the ledger's view."""
        configurator = Configurator(self.spec, toy.METHODS, {})

        def listener(event, view):
            identity = event.identity
            self.reporter.event(identity.trial, identity.transition, event.body, view)

        try:
            with open_study(
                self.storage,
                self.spec,
                configurator,
                timing=self.ledger_timing,
                listener=listener,
            ) as record:
                if retry_failed:
                    record.retry_failed()
                self.controller = StudyController(
                    record, self.storage, Port(self), _plan, self.reporter
                )
                self._tune()
                self.controller.abandon("the play is over")
                self.idle = self._ask(self.stage_scheduler.close())
                self.controller.account(self.idle)
                _conclude(self.controller, self.storage)
                return record.view
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()

    def _tune(self) -> None:
        """Do as Tune does: keep some trials under way, ask before and answer after each report."""
        live: dict[str, tuple[str, int, object]] = {}
        number = 0
        while True:
            self.controller.tick()
            while len(live) < self.drivers:
                number += 1
                word = self.controller.suggest(f"tune{number}")
                if word is None:
                    break
                live[f"tune{number}"] = (word, 0, self._send(self.stage_scheduler.advance(word, 0)))
            if not live and self.controller.is_over:
                return
            for handle, (word, seen, asked) in list(live.items()):
                if self.lost_drivers > 0:
                    self.lost_drivers -= 1
                    del live[handle]
                    self.controller.lost(handle)
                elif asked.done():
                    entries = asked.result()
                    cursor = seen + len(entries)
                    if self.controller.result(handle, entries):
                        again = self._send(self.stage_scheduler.advance(word, cursor))
                        live[handle] = (word, cursor, again)
                    else:
                        del live[handle]
            time.sleep(0.002)

    def _start_worker(self, shape) -> LocalStageWorker:
        self.stage_workers.append(LocalStageWorker(self))
        return self.stage_workers[-1]

    def _send(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def _ask(self, coroutine):
        return self._send(coroutine).result(30)


class Port:
    """The stage scheduler as the study controller sees it."""

    def __init__(self, theatre: Theatre) -> None:
        self._theatre = theatre

    def admit(self, run, plan, configuration) -> None:
        self._theatre._ask(self._theatre.stage_scheduler.admit(run, plan, configuration))

    def withdraw(self, run, reason) -> None:
        self._theatre._ask(self._theatre.stage_scheduler.withdraw(run, reason))

    def forget(self, run) -> None:
        self._theatre._ask(self._theatre.stage_scheduler.forget(run))

    def stop(self, reason) -> None:
        self._theatre._ask(self._theatre.stage_scheduler.stop(reason))

    def poll(self):
        return self._theatre._ask(self._theatre.stage_scheduler.drain(0))


def _plan(configuration) -> Plan:
    return make_plan(configuration.stages(), configuration.config)
