"""Toy studies with a ledger, driven the way a study's driver does it, sent to a tracker."""

from pathlib import Path

import toy

from namd.ledger.reading import read_events
from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.stage_names import StageName
from namd.study.record import StudyRecord, open_study
from namd.study.spec import StudySpec, parse_study

STILL = LeaseTiming(ttl_s=4000.0, heartbeat_s=1000.0)
TOGGLES = {"align": {"encoder.align.weight": 0}}
HOME = "/".join(("", "home", "alice"))
"""Put together here: no file of ours names a folder of one machine."""

SECRETS = ("case-0817", "patient-55", HOME, "10.1.2.3", "node77.hospital")


def ablation(seeds: int = 2, **more) -> StudySpec:
    design = {"design": "leave-one-out", "toggles": TOGGLES}
    base = {"method": "toy", "cohort": f"{HOME}/cohorts/lung", "store": f"{HOME}/store"}
    question = "Does it help?"
    found = {"name": "toys", "question": question, "base": base, "seeds": seeds} | more
    return parse_study({**found, "ablation": design})


def search() -> StudySpec:
    rungs = [{"stage": "vae", "metric": "probe_auroc"}]
    asha = {"asha": {"reduction": 3, "minimum_peers": 2, "rungs": rungs}}
    return toy.search_spec(num_trials=6, startup_trials=2, stop_early=asha, confirm_seeds=1)


def steps_of_key(stage: StageName, key: str) -> list[dict]:
    """What a toy stage measures; a loss that was not finite is stored as null."""
    count = 3 if stage.name == "vae" else 1
    value = sum(map(ord, key)) / 1000
    lines = [{"index": i, "loss": value / i} for i in range(1, count + 1)]
    return [*lines, {"index": count + 1, "loss": None}]


def send_steps(tracker, label: str, key: str) -> None:
    for line in steps_of_key(StageName(label), key):
        metrics = {"loss": float("nan") if line["loss"] is None else line["loss"]}
        tracker.step(label, key, line["index"], 4, metrics)


def opened(folder: Path, spec: StudySpec, tracker) -> StudyRecord:
    def listener(event, view):
        identity = event.identity
        tracker.event(identity.trial, identity.attempt, identity.transition, event.body)

    about = {"host": "node77.hospital", "pid": 4711, "cohort": f"{HOME}/cohorts/lung"}
    storage, configured = LocalStorage(folder), toy.configurator(spec)
    return open_study(storage, spec, configured, timing=STILL, about=about, listener=listener)


def drive(record: StudyRecord, tracker, most: int = 1000) -> None:
    """Run up to `most` trials; the second one fails, the VAE of a seed is shared by all arms."""
    built: set[str] = set()
    count = 0
    while not record.finished and count < most:
        for trial in record.next_trials(2):
            count += 1
            _work(record, trial, tracker, built, fails=count == 2)
    if record.finished:
        record.message(f"node 10.1.2.3 died; {HOME}/store/x was case-less")
        record.close()


def _work(record: StudyRecord, trial, tracker, built: set[str], fails: bool) -> None:
    name = trial.trial
    record.start(name)
    shared = f"vae{trial.seed:04d}" + "0" * 40
    _stage(record, name, "vae", shared, tracker, built)
    if fails:
        record.fail(name, f"RuntimeError: {HOME}/tmp/x.bin: no space left on 10.1.2.3:80")
        return
    if record.rung(name, "vae", toy.probe(trial)) == "stop":
        record.prune(name, "stopped at vae")
        return
    _stage(record, name, "scores", f"scores-{name}", tracker, built)
    record.complete(name, toy.rows(trial))


def _stage(record, name, label, key, tracker, built) -> None:
    cached = key in built
    if not cached:
        send_steps(tracker, label, key)
        built.add(key)
    seconds = 0.0 if cached else 2.0
    stage = StageName(label, family=label)
    record.stage(name, stage, key, cached=cached, seconds=seconds, device_seconds=seconds)


def records(folder: Path, study: str):
    for event in read_events(LocalStorage(folder), study):
        identity = event.identity
        yield identity.trial, identity.attempt, identity.transition, event.body
