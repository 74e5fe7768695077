"""Studies as a ledger holds them, made through the study's own record; nothing is trained."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from namd.storage.lease import LeaseTiming
from namd.storage.local import LocalStorage
from namd.storage.stage_names import StageName
from namd.study.record import StudyRecord, open_study
from namd.study.spec import StudySpec, parse_study
from namd.study.trials import Configurator, Trial

STILL = LeaseTiming(ttl_s=4000.0, heartbeat_s=1000.0)

ABLATION: dict[str, Any] = {
    "name": "parts",
    "question": "Which part matters?",
    "base": {"preset": "tiny", "method": "namd", "cohort": "...", "store": "..."},
    "seeds": 2,
    "ablation": {
        "design": "leave-one-out",
        "toggles": {"align": {"vae.alignment.weight": 0}, "ehr": {"finetune.report.include": []}},
    },
    "evaluate": {"num_draws": 2, "secondary": ["auprc"]},
}

SEARCH: dict[str, Any] = {
    "name": "weights",
    "base": {"preset": "tiny", "method": "namd"},
    "search": {
        "sampler": "random",
        "num_trials": 4,
        "objective": {"metric": "auroc"},
        "confirm_seeds": 2,
        "space": {
            "align": {"choice": [True, False]},
            "vae.alignment.weight": {"log_uniform": [0.01, 10], "when": "align", "else": 0},
            "vae.alignment.sigma_f": {"log_uniform": [0.25, 8], "when": "align"},
        },
    },
}

Values = Callable[[Trial], Mapping[str, float]]


def write_file(folder: Path, mapping: Mapping[str, Any], **changes: Any) -> Path:
    """Write a study file, with top-level changes."""
    path = folder / f"{changes.get('name', mapping['name'])}.yaml"
    path.write_text(yaml.safe_dump({**mapping, **changes}))
    return path


def opened(folder: Path, spec: StudySpec, **more: Any) -> StudyRecord:
    """Become the study's writer."""
    return open_study(LocalStorage(folder), spec, Configurator(spec), timing=STILL, **more)


def values_of(trial: Trial) -> dict[str, float]:
    """Make up what a trial came to: every part helps."""
    config = trial.configuration.config
    auroc = 0.6 + 0.1 * (config.vae.alignment.weight > 0) + 0.01 * trial.seed
    auroc += 0.05 * (config.finetune.report.include != ())
    return {"auroc": auroc, "auprc": auroc - 0.1}


def finish_trial(record: StudyRecord, trial: Trial, values: Values = values_of) -> None:
    """Tell a whole trial, as a driver does."""
    record.start(trial.trial)
    key = trial.trial * 3
    record.stage(trial.trial, StageName("vae"), key, cached=False, seconds=2.0, device_seconds=2.0)
    record.stage(trial.trial, StageName("latents"), key[::-1], cached=True)
    record.complete(trial.trial, values(trial))


def recorded_study(
    folder: Path, mapping: Mapping[str, Any] = ABLATION, values: Values = values_of
) -> StudySpec:
    """Write the ledger of a finished study."""
    spec = parse_study(dict(mapping))
    with opened(folder, spec) as record:
        while not record.finished:
            for trial in record.next_trials(4):
                finish_trial(record, trial, values)
        record.close()
    return spec


def put_metrics(folder: Path, stage: str, key: str, lines: list[Mapping[str, Any]]) -> None:
    """Lay an artifact's metrics into a store, as far as a reader of them looks."""
    place = folder / stage / key
    (place / "attempts" / "a1").mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    entry = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "size": len(text)}
    (place / "COMMIT").write_text(json.dumps({"attempt": "a1", "files": {"metrics.jsonl": entry}}))
    (place / "attempts" / "a1" / "metrics.jsonl").write_text(text)


def as_if_killed(record: StudyRecord) -> None:
    """Leave the lease as a process does that was killed."""
    record._writer._lease.stop()
    lease = sorted(
        Path(record._writer._storage.root, "studies", record.spec.name, "leases").glob("*.json")
    )[-1]
    holder = json.loads(lease.read_text())
    lease.write_text(json.dumps({**holder, "pid": 2**22 + 5, "started": 1}))
