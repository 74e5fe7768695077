"""Runs a study on Ray: plans it, opens its ledger, and lets Tune run its trials.

Tune's own files go to a temporary folder; a resumed study is replayed from the ledger.
"""

import os
import platform
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError

from namd.config.errors import InputError, StageError
from namd.distributed.searcher import LedgerSearcher
from namd.distributed.session import Session, open_session
from namd.distributed.source_identity import own_source
from namd.distributed.source_probe import require_same_source_everywhere
from namd.distributed.stage_scheduler import Patience, StageScheduler
from namd.distributed.stage_worker import start_worker_here
from namd.distributed.study_controller import StudyController, trouble_text
from namd.distributed.trial import follow_trial
from namd.distributed.trial_scheduler import LedgerScheduler, PollCallback, StopTimeout
from namd.distributed.work import Bench, Parts
from namd.ledger.lease import LeaseLost, StudyBusy, live_holder
from namd.ledger.pins import release_pins
from namd.ledger.schema import Event
from namd.ledger.view import StudyView, read_view
from namd.methods.base import Method
from namd.pipeline.graph import Plan, make_plan
from namd.pipeline.interruption import STOPPED, stop_reason
from namd.pipeline.run_configuration import RunConfiguration
from namd.pipeline.store import Store, open_store
from namd.storage.base import Storage
from namd.storage.lease import LeaseTiming
from namd.storage.opening import open_storage
from namd.study.engine import WarmTrial
from namd.study.plan import StudyPlan, make_study_plan
from namd.study.record import StudyRecord, open_study
from namd.study.reporting import StudyReporter
from namd.study.same_cohort import require_same_cohort
from namd.study.spec import ResourcesSpec, StudySpec
from namd.study.trials import Configurator
from namd.tracking.protocol import Tracker

WAITING_DRIVERS = 1
"""Running trials beyond the number of concurrent stages: one is always ready to continue."""

MAX_DRIVERS = 64
"""Each is a process of about 100 MB."""


def run_study(
    spec: StudySpec,
    *,
    cohort: Path,
    store_url: str,
    address: str | None,
    resume: bool = False,
    retry_failed: bool = False,
    warm: Sequence[tuple[str, WarmTrial]] = (),
    reporter: StudyReporter,
    trackers: Sequence[Tracker] = (),
    methods: Mapping[str, Method] | None = None,
    preset: Mapping[str, Any] | None = None,
    parts: Parts | None = None,
    patience: Patience | None = None,
    timing: LeaseTiming | None = None,
) -> StudyView:
    """Run a study to its end, or resume it; return the view of its ledger.

    A finished study whose file asks for more trials or seeds continues with those.

    Args:
        spec: The study.
        cohort: The cohort's folder.
        store_url: The store of artifacts and ledger.
        address: None or `local`: start Ray here; `auto` or `host:port`: join a cluster.
        resume: Continue a study that was started before.
        retry_failed: Retry its failed trials.
        warm: Trials of earlier ledgers for a new search (see namd.study.record.warm_trials).
        reporter: Receives all events.
        trackers: Receive all events, for other services.
        methods: Replaces the registry.
        preset: Replaces the preset's contents.
        parts: Replaces rows, workers or the cohort's fingerprint.
        patience: Limits of retries and waits.
        timing: After which silence another driver of the study counts as dead.

    Raises:
        InputError: The study cannot run as it is: one line with the way out.
        StageError: The store or ledger failed; `resume` continues once that is fixed.
        SystemExit: 143, after SIGTERM or a signal treated as one (see namd.pipeline.interruption).
    """
    store, storage = open_store(store_url), open_storage(store_url)
    configurator = Configurator(spec, methods, preset)
    configurator.check()
    view = read_view(storage, spec.name)
    _require_resume(storage, spec, view, resume or retry_failed)
    contents = require_same_cohort(view, cohort)
    bench = Bench(spec.name, store_url, cohort, parts or Parts())
    with open_session(address) as session:
        plan = _planned(configurator, session, bench, store, view, reporter)
        about = _about(cohort, contents, address)
        listener = partial(_forward, reporter, tuple(trackers))
        with open_study(
            storage, spec, configurator, warm=warm, timing=timing, about=about, listener=listener
        ) as record:
            if retry_failed:
                record.retry_failed()
            _drive(record, storage, store, session, plan, bench, reporter, trackers, patience)
            return record.view


def _planned(
    configurator: Configurator,
    session: Session,
    bench: Bench,
    store: Store,
    view: StudyView,
    reporter: StudyReporter,
) -> StudyPlan:
    """Return the plan of a study that can run here. Raises InputError if it cannot."""
    spec = configurator.spec
    plan = make_study_plan(
        spec,
        configurator,
        session.cluster,
        cohort=bench.cohort,
        store=store,
        view=view,
        cohort_digest=bench.parts.cohort_digest,
        say=reporter.note,
    )
    if plan.refused is not None:
        raise InputError(f"study {spec.name}: {plan.refused}")
    require_same_source_everywhere()
    reporter.planned(plan)
    return plan


def _about(cohort: Path, contents: str | None, address: str | None) -> dict[str, Any]:
    """Return what the ledger keeps of an opening besides the study itself."""
    return {
        "cohort": str(cohort),
        "cohort_fingerprint": contents,
        "host": platform.node(),
        "ray": ray.__version__,
        "address": address or "local",
    }


def _drive(
    record: StudyRecord,
    storage: Storage,
    store: Store,
    session: Session,
    plan: StudyPlan,
    bench: Bench,
    reporter: StudyReporter,
    trackers: Sequence[Tracker],
    patience: Patience | None,
) -> None:
    """Let Tune run the trials; record how this opening ended."""
    patience = patience or Patience()
    with _stage_scheduler(record.spec, plan.resources, bench, session, patience) as stage_scheduler:
        controller = StudyController(
            record,
            storage,
            RayStageScheduler(stage_scheduler),
            _planner(store, bench),
            reporter,
            trackers,
        )
        with _signals(controller):
            if not record.finished:
                # Ray that was started here cannot grow.
                most = None if session.started_here else record.spec.resources.concurrency
                _fit(controller, stage_scheduler, session, num_drivers(plan.peak_concurrency, most))
            controller.abandon(controller.stopping or "the driver ended")
            controller.account(_close(stage_scheduler, patience))
            if controller.has_losses:
                session.files.kept = True
                reporter.note(f"Ray's log about the process that died: {session.files.log}")
    _conclude(controller, storage)


def _conclude(controller: StudyController, storage: Storage) -> None:
    """Record how this opening of the study ended, and raise the error that ended it early."""
    record, trouble = controller.record, controller.trouble
    if isinstance(trouble, LeaseLost):
        raise StageError(f"{trouble}; this driver has stopped") from trouble
    try:
        if trouble is None and record.finished:
            record.close()
            release_pins(storage, record.spec.name)
            return
        reason = trouble_text(trouble) if trouble is not None else controller.stopping
        record.stopped(reason or "the driver ended")
    except OSError as error:
        trouble = trouble or error
    if trouble is not None:
        raise StageError(
            f"study {record.spec.name}: {trouble_text(trouble)}; fix that and continue with "
            "--resume"
        ) from trouble
    if controller.stopping == stop_reason():
        raise SystemExit(STOPPED)


def _fit(
    controller: StudyController, stage_scheduler: ActorHandle, session: Session, num_drivers: int
) -> None:
    """Let Tune run until the study is over."""
    quiet_tune()
    with tempfile.TemporaryDirectory(prefix="namd-tune-", ignore_cleanup_errors=True) as folder:
        trainable = tune.with_resources(
            tune.with_parameters(
                follow_trial, stage_scheduler=stage_scheduler, source=own_source()
            ),
            tune.PlacementGroupFactory([session.trial_resources]),
        )
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                num_samples=-1,
                max_concurrent_trials=num_drivers,
                search_alg=LedgerSearcher(controller),
                scheduler=LedgerScheduler(controller),
                reuse_actors=True,
                trial_dirname_creator=_short_name,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=folder,
                verbose=0,
                callbacks=[PollCallback(controller)],
                stop=StopTimeout(controller),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        ).fit()


class RayStageScheduler:
    """The stage scheduler's actor as the study controller sees it; no call blocks."""

    def __init__(self, actor: ActorHandle) -> None:
        self._actor = actor
        self._drain = actor.drain.remote(_DRAIN_S)

    def admit(self, run: str, plan: Plan, configuration: RunConfiguration) -> None:
        """Begin an attempt at a trial."""
        self._actor.admit.remote(run, plan, configuration)

    def withdraw(self, run: str, reason: str) -> None:
        """End an attempt; the trial receives an end entry."""
        self._actor.withdraw.remote(run, reason)

    def forget(self, run: str) -> None:
        """Drop an attempt that is over."""
        self._actor.forget.remote(run)

    def stop(self, reason: str) -> None:
        """End all attempts as interrupted."""
        self._actor.stop.remote(reason)

    def poll(self) -> Sequence[tuple[str, Any]]:
        """Return the steps and notes since the last poll.

        Raises StageError if the stage scheduler died.
        """
        ready, _ = ray.wait([self._drain], timeout=0)
        if not ready:
            return ()
        try:
            events = ray.get(self._drain)
        except RayActorError as error:
            raise StageError(f"the study's stage scheduler died ({error})") from error
        self._drain = self._actor.drain.remote(_DRAIN_S)
        return events


_DRAIN_S = 5.0


@contextmanager
def _stage_scheduler(
    spec: StudySpec,
    resources: ResourcesSpec,
    bench: Bench,
    session: Session,
    patience: Patience,
) -> Iterator[ActorHandle]:
    """Start the stage scheduler; at the end kill it and its stage workers."""
    search = spec.search
    rungs = (search.stop_early.asha.rungs or ()) if search and search.stop_early else ()
    actor = (
        ray.remote(num_cpus=0, max_concurrency=_MAX_CALLS)(StageScheduler)
        .options(max_restarts=0)
        .remote(
            bench, partial(start_worker_here, bench), resources, rungs, session.cluster, patience
        )
    )
    try:
        yield actor
    finally:
        # Stage workers are owned by it: Ray ends them with it.
        ray.kill(actor)


def _close(stage_scheduler: ActorHandle, patience: Patience) -> float:
    """Let stage workers save and stop; return their idle device seconds, 0 if unknown."""
    try:
        return float(ray.get(stage_scheduler.close.remote(), timeout=2 * patience.grace_s))
    except (RayActorError, GetTimeoutError):
        return 0.0


_MAX_CALLS = 10_000
"""Trials and stage workers wait inside calls to the stage scheduler."""


@contextmanager
def _signals(controller: StudyController) -> Iterator[None]:
    """Turn SIGTERM into a request to stop. Only the main thread can handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: controller.ask_to_stop(stop_reason()))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _planner(store: Store, bench: Bench) -> Callable[[RunConfiguration], Plan]:
    """Return a function that plans a trial; the cohort is read once for all of them."""
    digests = store.digest_cache()

    def plan(configuration: RunConfiguration) -> Plan:
        return make_plan(
            configuration.stages(),
            configuration.config,
            bench.cohort,
            digests=digests,
            cohort_digest=bench.parts.cohort_digest,
        )

    return plan


def num_drivers(peak: int, concurrency: int | None) -> int:
    """Return how many trials run at once.

    Args:
        peak: Stages that the present nodes can build at once.
        concurrency: Stages that the study file wants built at once. A cluster grows only if
            requests are pending, and each pending stage needs a trial that waits for it.
    """
    return min(max(peak, concurrency or 1) + WAITING_DRIVERS, MAX_DRIVERS)


def _require_resume(storage: Storage, spec: StudySpec, view: StudyView, resume: bool) -> None:
    """Refuse to continue a study without `resume`. Raises InputError."""
    if resume or not view.attempt:
        return
    holder = live_holder(storage, spec.name)
    if holder is not None:
        raise StudyBusy(
            f"study {spec.name}: process {holder.pid} on {holder.host} is running it; "
            f"`namd study stop {spec.name}` ends it"
        )
    raise InputError(
        f"study {spec.name} was run before in {storage.root}; continue it with --resume, or give "
        "the study another name"
    )


def _forward(
    reporter: StudyReporter, trackers: Sequence[Tracker], event: Event, view: StudyView
) -> None:
    """Forward a durable record to reporter and trackers."""
    identity = event.identity
    reporter.event(identity.trial, identity.transition, event.body, view)
    for tracker in trackers:
        tracker.event(identity.trial, identity.attempt, identity.transition, event.body)


def _short_name(trial: Any) -> str:  # noqa: ANN401 - Tune's trial
    return str(trial.trial_id)


def quiet_tune() -> None:
    """Switch off Tune's own loggers, checkpoints and Ctrl-C handler."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
        "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000000",
        "RAY_AIR_NEW_OUTPUT": "0",
    }.items():
        os.environ.setdefault(name, value)
