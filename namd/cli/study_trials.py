"""`namd study logs | best`: one trial in full, and a configuration to run again."""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from namd.cli.output import answer, cell, columns, duration
from namd.cli.study_inputs import Ledger, open_ledger, read_status, readable
from namd.config.errors import InputError
from namd.study.status import (
    arm_rows,
    best,
    is_search,
    objectives,
    seeds_of,
    shown_metrics,
    trial_name,
)

if TYPE_CHECKING:
    from namd.ledger.schema import Event
    from namd.ledger.view import StageExecution, StudyView
    from namd.storage.base import Storage

MIN_OF_ID = 4


def logs_command(arguments: argparse.Namespace) -> int:
    """Print a trial: what it sets, how it went, where its metrics lie. Raises InputError."""
    ledger = open_ledger(arguments)
    trial = find_trial(read_status(ledger), arguments.trial)
    report = trial_report(ledger, trial, arguments.lines)
    answer(arguments, report, _log_text(report))
    return 0


def best_command(arguments: argparse.Namespace) -> int:
    """Print the best configuration as YAML that `namd run --config` takes. Raises InputError."""
    ledger = open_ledger(arguments)
    view = read_status(ledger)
    search = is_search(view)
    chosen = _chosen_proposal(view, arguments) if search else _chosen_arm(view, arguments)
    overrides, seed, about = chosen
    text, mapping = run_yaml(view.specification, overrides, seed)
    head = f"# {ledger.name}: {about}\n# namd run --config THIS --cohort DIR --store {ledger.url}\n"
    if search:
        head += "# measured on validation; --set evaluate.split=test scores it on test\n"
    value = {"study": ledger.name, "about": about, "seed": seed, "overrides": dict(overrides)}
    answer(arguments, value | {"configuration": mapping}, head + text.rstrip())
    return 0


def find_trial(view: "StudyView", word: str) -> str:
    """Return the trial of an id, the beginning of one, `ARM/SEED`, or an arm of one seed.

    In a search `pPROPOSAL` stands for an arm. Raises InputError.
    """
    from namd.config.parsing import nearest

    names = _names(view)
    of_label = {trial: seed for trial, (label, seed) in names.items() if label == word}
    if len(of_label) > 1:
        several = ", ".join(trial_name(word, seed) for seed in sorted(of_label.values())[:8])
        raise InputError(f"trial {word!r}: it has several training seeds; name one of {several}")
    if of_label:
        return next(iter(of_label))
    label, separator, seed = word.rpartition("/")
    if separator:
        found = [t for t, name in names.items() if name == (label, _number(seed))]
        if found:
            return found[0]
        known = [trial_name(name, number) for name, number in names.values()]
        raise InputError(f"trial {word!r}: no such arm and seed{nearest(word, known[:50])}")
    found = [trial for trial in names if trial.startswith(word)]
    if len(word) < MIN_OF_ID or not found:
        raise InputError(
            f"trial {word!r}: not in study {view.study}; give the beginning of its id "
            f"({MIN_OF_ID} letters or more) or its name{nearest(word, _examples(names))}, as in "
            "`namd study status`"
        )
    if len(found) > 1:
        raise InputError(f"trial {word!r}: {len(found)} match; give more of the id")
    return found[0]


def _names(view: "StudyView") -> dict[str, tuple[str, int]]:
    """Return each trial's label and training seed."""
    return {t.trial: (t.label, t.seed) for t in view.trials.values() if t.queued}


def _examples(names: Mapping[str, tuple[str, int]]) -> list[str]:
    return [trial_name(label, seed) for label, seed in list(names.values())[:4]]


def trial_report(ledger: Ledger, trial: str, lines: int) -> dict[str, Any]:
    """Return all that is known of a trial. Raises InputError."""
    from namd.ledger.reading import read_events
    from namd.ledger.view import TrialView

    view, events = TrialView(trial, 0), []
    with readable(ledger.url):
        for event in read_events(ledger.storage, ledger.name):
            if event.identity.trial == trial:
                view.apply(event)
                events.append(_event(event))
        stages = [
            {
                "stage": done.stage.label,
                "key": done.key,
                "cached": done.cached,
                "seconds": done.seconds,
                "attempt": done.attempt,
                "metrics": metrics_place(ledger.storage, done.stage.name, done.key),
            }
            for done in view.stages
        ]
        last = _last_metrics(ledger.storage, view.stages, lines)
    return {
        "study": ledger.name,
        "trial": trial,
        "arm": view.arm or None,
        "proposal": None if view.queued is None else view.queued.proposal,
        "seed": None if view.queued is None else view.queued.seed,
        "state": view.state,
        "attempt": view.attempt,
        "reason": view.reason,
        "overrides": dict(view.overrides),
        "values": dict(view.values),
        "rungs": {name: value.encode() for name, value in view.rungs.items()},
        "stages": stages,
        "last_metrics": last,
        "events": events,
        "store": ledger.url,
    }


def metrics_place(storage: "Storage", stage: str, key: str) -> str | None:
    """Return where a stage's metrics lie in the store, or None if it is not there any more."""
    from namd.storage.artifacts import METRICS, attempt_folder, read_commit

    commit = read_commit(storage, stage, key)
    return None if commit is None else f"{attempt_folder(stage, key, commit.attempt)}/{METRICS}"


def run_yaml(
    specification: Mapping[str, Any], overrides: Mapping[str, Any], seed: int
) -> tuple[str, dict[str, Any]]:
    """Return a trial's resolved configuration as YAML and as a mapping.

    The text is read back and compared: YAML has strings that look like numbers.
    """
    import yaml

    from namd.config.document import parse_yaml
    from namd.config.parsing import to_mapping
    from namd.study.spec import parse_study
    from namd.study.trials import Configurator

    configuration = Configurator(parse_study(specification)).configure(overrides, seed)
    mapping = {"method": configuration.method.name, **to_mapping(configuration.config)}
    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=100)
    if parse_yaml(text, "run.yaml") != mapping:
        text = json.dumps(mapping, indent=1)
    return text, mapping


def _chosen_proposal(
    view: "StudyView", arguments: argparse.Namespace
) -> tuple[Mapping[str, Any], int, str]:
    """Return overrides, training seed and a few words on a search's best or named proposal."""
    if arguments.arm is not None:
        raise InputError(f"--arm: study {view.study} is a search; name a proposal")
    rows = best(view)
    number = arguments.proposal
    if number is None:
        if not rows:
            raise InputError(f"study {view.study}: no proposal is complete yet")
        if len(rows) > 1:
            numbers = ", ".join(str(row["proposal"]) for row in rows)
            raise InputError(
                f"study {view.study}: none of the proposals {numbers} is better in every "
                "objective; choose one with --proposal"
            )
        number = rows[0]["proposal"]
    if number not in view.proposals:
        raise InputError(f"--proposal {number}: the study has {len(view.proposals)}, from 0")
    chosen = [row for row in rows if row["proposal"] == number]
    seed = _seed(view, f"p{number}", arguments.seed)
    about = f"proposal {number}, training seed {seed}"
    return view.proposals[number].overrides, seed, about + _measured(view, chosen)


def _chosen_arm(
    view: "StudyView", arguments: argparse.Namespace
) -> tuple[Mapping[str, Any], int, str]:
    """Return overrides, training seed and a few words on an ablation's best or named arm."""
    from namd.config.parsing import nearest

    if arguments.proposal is not None:
        raise InputError(f"--proposal: study {view.study} is an ablation; name an arm")
    rows = {row["arm"]: row for row in arm_rows(view)}
    (objective,) = objectives(view.specification)
    arm = arguments.arm
    if arm is None:
        measured = {
            name: row[objective.metric]["mean"]
            for name, row in rows.items()
            if row[objective.metric]
        }
        if not measured:
            raise InputError(f"study {view.study}: no trial has {objective.metric} yet")
        arm = (max if objective.more else min)(measured, key=lambda name: measured[name])
    if arm not in rows:
        raise InputError(f"--arm {arm}: no such arm{nearest(arm, rows)}")
    seed = _seed(view, arm, arguments.seed)
    about = f"arm {arm}, training seed {seed}" + _measured(view, [rows[arm]])
    return view.arm_overrides[arm], seed, about


def _seed(view: "StudyView", label: str, wanted: int | None) -> int:
    seeds = sorted(seeds_of(view).get(label, ()))
    if wanted is None:
        return seeds[0] if seeds else 0
    if wanted not in seeds:
        known = ", ".join(map(str, seeds))
        raise InputError(f"--seed {wanted}: {label} was run with training seeds {known}")
    return wanted


def _measured(view: "StudyView", rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    metrics = shown_metrics(view.specification)
    values = ", ".join(f"{metric} {cell(rows[0][metric])}" for metric in metrics)
    return f"; {values} (mean over training seeds: {rows[0]['seeds']})"


def _event(event: "Event") -> dict[str, Any]:
    return {
        "time": event.time,
        "attempt": event.identity.attempt,
        "transition": event.identity.transition,
        "body": dict(event.body),
    }


def _last_metrics(
    storage: "Storage", stages: Sequence["StageExecution"], lines: int
) -> list[dict[str, Any]]:
    """Return the last lines that the last stage with metrics wrote.

    Raises InputError if that stage is damaged.
    """
    from namd.storage.artifacts import read_metrics

    for done in reversed(stages if lines else ()):
        kept = read_metrics(storage, done.stage.name, done.key)[-lines:]
        if kept:
            return [{"stage": done.stage.label, **measured} for measured in kept]
    return []


def _log_text(report: Mapping[str, Any]) -> str:
    of = report["arm"] or f"proposal {report['proposal']}"
    lines = [
        f"trial {report['trial']}: {of}, training seed {report['seed']}",
        f"{report['state']}, attempt {report['attempt']}",
    ]
    if report["reason"]:
        lines.append(f"reason: {report['reason']}")
    lines += ["", "sets"]
    lines += [f"  {path} = {value}" for path, value in report["overrides"].items()] or [
        "  nothing: it is the base"
    ]
    lines += ["", *_stage_table(report)]
    lines += ["", "events"]
    lines += [f"  {_when(e['time'])}  {e['attempt']}  {_event_line(e)}" for e in report["events"]]
    if report["values"]:
        values = ", ".join(f"{name} {cell(value)}" for name, value in report["values"].items())
        lines += ["", f"values  {values}"]
    if report["last_metrics"]:
        lines += ["", f"last metrics of {report['last_metrics'][0]['stage']}"]
        lines += [f"  {_metric_line(line)}" for line in report["last_metrics"]]
    return "\n".join(lines)


def _stage_table(report: Mapping[str, Any]) -> list[str]:
    if not report["stages"]:
        return ["no stage yet"]
    rows = [
        [
            stage["stage"],
            stage["key"][:12],
            "found" if stage["cached"] else f"built in {duration(stage['seconds'])}",
            stage["metrics"] or "not in the store any more",
        ]
        for stage in report["stages"]
    ]
    table = columns(["stage", "key", "came", "metrics"], rows).splitlines()
    return [*table, f"under {report['store']}"]


def _metric_line(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {cell(v)}" for n, v in line.items() if n != "stage")


def _event_line(event: Mapping[str, Any]) -> str:
    body = event["body"]
    words = [str(body[name]) for name in ("decision", "reason") if body.get(name)]
    if "metric" in body:
        words.insert(0, f"{body['metric']} {cell(body['value'])}")
    return f"{event['transition']}{': ' + ', '.join(words) if words else ''}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _number(text: str) -> int:
    return int(text) if text.isdigit() else -1
