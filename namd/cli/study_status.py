"""`namd study status | watch | list`: how studies stand, from their records alone."""

import argparse
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from namd.cli.output import answer, cell, columns, duration, echo
from namd.cli.study_inputs import (
    Driver,
    Ledger,
    find_driver,
    open_ledger,
    open_studies,
    read_on,
    read_status,
    require_store,
    store_url,
)
from namd.config.errors import InputError, escaped
from namd.ledger.view import StudyView, TrialView
from namd.study.status import arm_rows, best, is_search, objectives, shown_metrics, trial_name

FAILED = 1
SHOWN = 5
"""Failed and running trials that a status names; `--json` has all failed ones."""


def status_command(arguments: argparse.Namespace) -> int:
    """Print how a study stands. Raises InputError if it is unknown."""
    ledger = open_ledger(arguments)
    report = report_of(ledger)
    answer(arguments, report, as_text(report))
    return 0


def watch_command(arguments: argparse.Namespace) -> int:
    """Follow a study until its driver ends; return 1 if it died."""
    from namd.cli.progress import is_terminal

    ledger = open_ledger(arguments)
    report = _watch_screen(ledger, arguments) if is_terminal() else _watch_lines(ledger, arguments)
    answer(arguments, report, as_text(report))
    return FAILED if report["state"] == "interrupted" else 0


def list_command(arguments: argparse.Namespace) -> int:
    """List the studies of a store."""
    url = store_url(arguments.store)
    storage, names = open_studies(url)
    require_store(url, storage)
    found = [_listed(Ledger(url, name, storage)) for name in names]
    kept = ("study", "kind", "state", "attempt", "trials", "last_record", "question", "problem")
    value = [{name: report[name] for name in kept} for report in found]
    rows = [
        [
            str(report["study"]),
            str(report["kind"]),
            str(report["state"]),
            "-" if report["problem"] else _counted(report["trials"]),
            "-" if report["problem"] else _ago(report["last_record"]),
        ]
        for report in found
    ]
    text = columns(["study", "kind", "state", "trials", "last record"], rows)
    answer(arguments, {"store": url, "studies": value}, text if rows else f"no study in {url}")
    return 0


def _listed(ledger: Ledger) -> dict[str, Any]:
    """Return a study's report; of one that cannot be read, what is wrong, which is said aloud."""
    try:
        return report_of(ledger) | {"problem": None}
    except InputError as error:
        echo(str(error))
        unknown = dict.fromkeys(("attempt", "trials", "last_record", "question"))
        named = {"study": ledger.name, "kind": "-", "state": "unreadable"}
        return named | unknown | {"problem": str(error)}


def report_of(ledger: Ledger) -> dict[str, Any]:
    """Return what `namd study status --json` prints. Raises InputError."""
    return _report(ledger, read_status(ledger))


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report for people."""
    lines = [f"{report['study']}: {report['about']}"]
    if report["question"]:
        lines.append(str(report["question"]))
    lines += [
        "",
        f"trials  {_trials(report)}",
        f"stages  {report['stages_built']} built in {duration(report['stage_seconds'])}, "
        f"{report['device_hours']:.2f} device hours",
        f"ledger  {report['ledger']}, last record {_ago(report['last_record'])}",
    ]
    word = "now " if report["state"] == "running" else "left"
    lines += [f"{word}    {_running(trial)}" for trial in report["running"][:SHOWN]]
    if len(report["running"]) > SHOWN:
        lines.append(f"        and {len(report['running']) - SHOWN} more")
    lines += _problem_lines(report)
    lines += _logs_line(report)
    lines += ["", *_table(report)]
    return "\n".join(lines)


def _report(ledger: Ledger, view: StudyView) -> dict[str, Any]:
    driver, counts = find_driver(ledger, view.ended), view.counts()
    report: dict[str, Any] = {
        "study": ledger.name,
        "question": str(view.specification.get("question", "")),
        "kind": "search" if is_search(view) else "ablation",
        "state": driver.state,
        "about": _about(ledger, driver, view.stopped, counts),
        "attempt": view.attempt,
        "trials": counts,
    }
    if is_search(view):
        report["proposals"] = {
            "made": len(view.proposals),
            "wanted": int(view.specification["search"]["num_trials"]),
        }
        found = best(view)
        several = len(objectives(view.specification)) > 1
        report["best"] = found if several else (found[0] if found else None)
    else:
        report["arms"] = arm_rows(view)
    return report | {
        "metrics": shown_metrics(view.specification),
        "running": [
            {**_trial(trial), "stage": trial.last_stage or None}
            for trial in view.in_state("running")
        ],
        "problems": [
            {**_trial(trial), "state": trial.state, "reason": trial.reason}
            for trial in view.in_state("failed", "diverged")
        ],
        "trial_names": [_trial(trial) for trial in view.trials.values() if trial.queued],
        "stages_built": view.stages_built,
        "stage_seconds": view.stage_seconds,
        "device_hours": view.device_seconds() / 3600,
        "last_record": view.last_time,
        "holder": None
        if driver.holder is None
        else {"host": driver.holder.host, "pid": driver.holder.pid},
        "resume": None if driver.state in ("running", "finished") else ledger.resume,
        "ledger": ledger.place,
    }


def _trial(trial: TrialView) -> dict[str, Any]:
    return {"trial": trial.trial, "of": trial.label, "seed": trial.seed}


def _about(ledger: Ledger, driver: Driver, stopped: str, trials: Mapping[str, int]) -> str:
    """Return the state in words, with what to do about it."""
    if driver.state == "running":
        stop = f"namd study stop {ledger.name} --store {ledger.url}"
        return f"running, {driver.named}; `{stop}` ends it"
    if driver.state == "finished":
        if trials["failed"]:
            retry = f"namd study retry {ledger.name} --failed --store {ledger.url}"
            return f"finished, with failed trials; `{retry}` lets them be run again"
        return "finished"
    resume = f"continue with `{ledger.resume}`"
    if driver.state == "stopped":
        return f"stopped{f' ({stopped})' if stopped else ''}; {resume}"
    return f"not running: its driver, {driver.named}, is gone; {resume}"


def _watch_lines(ledger: Ledger, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write a line to stderr whenever a trial starts or ends."""
    view, last = StudyView(ledger.name, detailed=False), ""
    while True:
        read_on(ledger, view)
        report = _report(ledger, view)
        line = f"{_counted(report['trials'])}; {report['stages_built']} stages built"
        if line != last:
            last = line
            echo(line)
        if report["state"] != "running":
            return report
        time.sleep(arguments.interval)


def _watch_screen(ledger: Ledger, arguments: argparse.Namespace) -> dict[str, Any]:
    """Redraw the status on the terminal until the study has no driver."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    view = StudyView(ledger.name, detailed=False)
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while True:
            read_on(ledger, view)
            report = _report(ledger, view)
            if report["state"] != "running":
                return report
            live.update(
                Text(f"{escaped(as_text(report))}\n\nCtrl-C leaves; the study goes on"),
                refresh=True,
            )
            time.sleep(arguments.interval)


def _table(report: Mapping[str, Any]) -> list[str]:
    if report["kind"] == "ablation":
        return _arm_table(report["arms"], report["metrics"])
    found = report["best"]
    rows = found if isinstance(found, list) else [found] if found else []
    if not rows:
        return ["best    no proposal is complete yet"]
    return best_table(rows, report["metrics"])


def _arm_table(arms: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    rows = [
        [
            str(row["arm"]),
            f"{row['seeds']} of {sum(row['trials'].values())}",
            *(cell(row[metric]) for metric in metrics),
        ]
        for row in arms
    ]
    if not rows:
        return ["no trial was queued yet"]
    note = "Means of completed trials; intervals are 95% over training seeds alone."
    return [*columns(["arm", "seeds", *metrics], rows).splitlines(), "", note]


def best_table(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """Return the best proposals with what they set."""
    lines = []
    for row in rows:
        values = ", ".join(f"{metric} {cell(row[metric])}" for metric in metrics)
        seeds = "1 seed" if row["seeds"] == 1 else f"{row['seeds']} seeds"
        lines.append(f"best    proposal {row['proposal']} ({seeds}): {values}")
        if row["confirmed"] is not None:
            values = ", ".join(f"{metric} {cell(row['confirmed'][metric])}" for metric in metrics)
            lines.append(f"        on fresh seeds ({row['confirmed']['seeds']}): {values}")
        lines += [f"        {path} = {_value(value)}" for path, value in row["overrides"].items()]
    return lines


def _problem_lines(report: Mapping[str, Any]) -> list[str]:
    problems = report["problems"]
    lines = [
        f"{p['state']:<8}{trial_name(p['of'], p['seed'])} ({p['trial'][:8]}): {_short(p['reason'])}"
        for p in problems[-SHOWN:]
    ]
    if len(problems) > SHOWN:
        lines.insert(0, f"{len(problems)} trials failed or diverged; the last {SHOWN}:")
    return lines


def _logs_line(report: Mapping[str, Any]) -> list[str]:
    """Return how the log of one trial is read, by a name that the command takes."""
    trials = report["trial_names"]
    if not trials:
        return []
    # What went wrong is asked for first.
    chosen = (report["problems"] or report["running"] or trials)[-1]
    one = trial_name(chosen["of"], chosen["seed"])
    what = "ARM/SEED" if report["kind"] == "ablation" else "pPROPOSAL/SEED"
    seeds = sorted({trial["seed"] for trial in trials})
    listed = ", ".join(map(str, seeds[:SHOWN])) + (", ..." if len(seeds) > SHOWN else "")
    return [
        f"logs    `namd study logs {report['study']} {one}`: any trial, as {what}; seeds {listed}"
    ]


def _trials(report: Mapping[str, Any]) -> str:
    """Return counts in words; no trial runs while the study has no driver."""
    counts = _counted(report["trials"])
    if report["state"] != "running":
        counts = counts.replace(" running", " left unfinished")
    made = report.get("proposals")
    return f"{counts}; {made['made']} of {made['wanted']} proposals made" if made else counts


def _running(trial: Mapping[str, Any]) -> str:
    after = f", has {trial['stage']}" if trial["stage"] else ""
    return f"{trial_name(trial['of'], trial['seed'])} ({trial['trial'][:8]}){after}"


def _counted(trials: Mapping[str, int]) -> str:
    """Return counts in words: `18: 12 completed, 1 failed, 5 pending`."""
    order = ("completed", "pruned", "failed", "diverged", "running", "pending")
    counts = ", ".join(f"{trials[state]} {state}" for state in order if trials[state])
    return f"{sum(trials.values())}{f': {counts}' if counts else ''}"


def _ago(seconds: float) -> str:
    if not seconds:
        return "never"
    passed = time.time() - seconds
    if passed < 24 * 3600:
        return f"{duration(max(0.0, passed))} ago"
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="minutes")


def _short(reason: str, limit: int = 160) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
