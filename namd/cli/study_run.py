"""`namd study run | publish`: hands a study to its driver, and its ledger to other places."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from namd.cli.output import answer, cell, columns, echo
from namd.cli.study_inputs import (
    Ledger,
    find_driver,
    find_study_cohort,
    open_ledger,
    open_studies,
    read_spec,
    read_status,
    read_whole,
    readable,
    source_of,
    store_url,
)
from namd.cli.study_status import as_text, report_of
from namd.config.errors import InputError, about
from namd.ledger.view import OVER, StudyView
from namd.study.warm_start import find_earlier, take_over

if TYPE_CHECKING:
    from pathlib import Path

    from analysis.study_table import StudyTable
    from namd.tracking.protocol import Tracker

FAILED = 1
STOPPED = 143


def run_command(arguments: argparse.Namespace) -> int:
    """Run a study to its end: 0; 1 where trials failed; 143 where it was stopped.

    Raises InputError if it cannot be begun, before Ray is started.
    """
    from namd.cli.run import announce_weights
    from namd.cli.study_progress import study_reporter
    from namd.pipeline.interruption import interruptible
    from namd.pipeline.store import open_store
    from namd.study.spec import require_extension
    from namd.study.trials import Configurator

    spec = read_spec(arguments.file, arguments.store)
    source = source_of(arguments.file)
    with about(source):
        configurator = Configurator(spec)
        configurator.check()
        configurator.check_measured()
        url = store_url(arguments.store, spec)
    if "://" not in url:
        open_store(url)
    storage, names = open_studies(url)
    ledger = Ledger(url, spec.name, storage)
    begun = read_status(ledger) if spec.name in names else None
    if begun is not None:
        _require_startable(ledger, begun, arguments)
        # A driver that died before its first record has decided nothing.
        if begun.specification:
            with about(source):
                require_extension(begun.specification, configurator.spec)
    earlier = find_earlier(ledger, spec, names, arguments.warm_from)
    with about(source):
        recorded = None if begun is None else begun.about.get("cohort")
        base = configurator.base()
        cohort = find_study_cohort(arguments.cohort, spec, url, recorded, configurator.demands())
    warm = take_over(earlier, spec, base, cohort, echo)
    announce_weights(base)
    with interruptible(), study_reporter() as reporter, _tracked(arguments, ledger) as trackers:
        reporter.line(_connecting(arguments.address))
        try:
            with about(source):
                _driver()(
                    spec,
                    cohort=cohort,
                    store_url=url,
                    address=arguments.address,
                    resume=arguments.resume or arguments.retry_failed,
                    retry_failed=arguments.retry_failed,
                    warm=warm,
                    reporter=reporter,
                    trackers=trackers,
                )
        except SystemExit:
            reporter.line(f"stopped; `{ledger.resume}` continues it")
            raise
        table = _table(ledger, cohort)
        for tracker in trackers:
            tracker.table(table.rows, table.effects)
    return _finish(arguments, ledger, table)


def publish_command(arguments: argparse.Namespace) -> int:
    """Write a study to W&B files from its ledger alone. Raises InputError."""
    from namd.api.publishing import publish_study

    ledger = open_ledger(arguments)
    with readable(ledger.url):
        done = publish_study(ledger.url, ledger.name, "online" if arguments.online else None)
    way = "" if done["mode"] == "online" else f"; `wandb sync {done['folder']}/*` sends them"
    text = f"{ledger.name}: {done['records']} records written to {done['folder']}{way}"
    answer(arguments, done, text)
    return 0


def result_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str:
    """Return an ablation's arms as text: means with intervals, differences to the reference."""
    cells = [
        [
            str(row["arm"]),
            f"{row['seeds']} of {row.get('seeds_planned', row['seeds'])}",
            *(cell(_interval(row.get(metric))) for metric in metrics),
            cell(_interval(row.get("difference"))),
            _p(row.get("difference")),
        ]
        for row in rows
    ]
    header = ["arm", "seeds", *metrics, f"{metrics[0]} minus {rows[0]['arm']}", "p (Holm)"]
    return columns(header, cells)


def effect_text(table: "StudyTable") -> str:
    """Return a design's effects as text under a blank line; empty if it has none."""
    from analysis.study_cells import effect_notes, effect_table

    if not table.effects:
        return ""
    cells = effect_table(table)
    notes = "\n".join(f"- {note}" for note in effect_notes(table))
    return f"\n\n{columns(cells.header, cells.rows)}\n{notes}"


def _finish(arguments: argparse.Namespace, ledger: Ledger, table: "StudyTable") -> int:
    """Print how the study ended; return the exit code."""
    rows = table.rows
    report = report_of(ledger)
    text = as_text(report)
    if report["kind"] == "ablation" and rows:
        report["arms"] = list(rows)
        report["effects"] = list(table.effects)
        head = as_text({**report, "arms": []}).rpartition("\n\n")[0]
        text = f"{head}\n\n{result_table(rows, report['metrics'])}{effect_text(table)}\n\n{_NOTE}"
    elif rows:
        report["confirmed"] = list(rows)
    answer(arguments, report, text)
    if report["state"] == "stopped":
        return STOPPED
    return FAILED if report["trials"]["failed"] else 0


_NOTE = (
    "Means over training seeds; 95% intervals and p over patients and seeds; Holm over the arms. "
    "`namd report` shows more. Research use only."
)


def _require_startable(ledger: Ledger, begun: StudyView, arguments: argparse.Namespace) -> None:
    """Refuse a study that runs, or was begun and is not to be resumed. Raises InputError."""
    driver = find_driver(ledger, begun.ended)
    more = f"--store {ledger.url}"
    if driver.state == "running":
        raise InputError(
            f"study {ledger.name}: {driver.named} is running it; follow it with `namd study watch "
            f"{ledger.name} {more}`, end it with `namd study stop {ledger.name} {more}`"
        )
    if arguments.resume or arguments.retry_failed or not begun.attempt:
        return
    if driver.state == "finished":
        raise InputError(
            f"study {ledger.name} is finished (`namd study status {ledger.name} {more}`); to "
            "extend it, raise num_trials or seeds in its file and add --resume; to start over, "
            "rename it"
        )
    counts = begun.counts()
    over = sum(counts[state] for state in OVER)
    raise InputError(
        f"study {ledger.name} was begun before: {over} of {len(begun.trials)} trials are "
        "over; --resume continues it, another name starts over"
    )


def _connecting(address: str | None) -> str:
    if address in (None, "local"):
        return "starting Ray on this machine; this takes about ten seconds"
    return f"joining the Ray cluster at {address}"


def _driver() -> Callable[..., Any]:
    """Return what runs studies; Ray is imported here and not before."""
    from namd.distributed.driver import run_study

    return run_study


@contextmanager
def _tracked(arguments: argparse.Namespace, ledger: Ledger) -> "Iterator[Sequence[Tracker]]":
    """Yield what follows the study in W&B, and close it however the study ends."""
    from namd.api.publishing import live_trackers

    trackers = live_trackers(arguments.wandb, ledger.url, ledger.name, echo)
    try:
        yield trackers
    finally:
        for tracker in trackers:
            tracker.close()


def _table(ledger: Ledger, cohort: "Path | None") -> "StudyTable":
    """Return the study's table."""
    from analysis.study_table import study_table

    return study_table(ledger.storage, read_whole(ledger), cohort)


def _interval(estimate: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return mean and interval alone."""
    if estimate is None:
        return None
    return {name: estimate.get(name) for name in ("mean", "low", "high")}


def _p(difference: Mapping[str, Any] | None) -> str:
    if difference is None or difference.get("p_holm") is None:
        return "-"
    return f"{difference['p_holm']:.3f}"
