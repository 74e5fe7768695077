"""Writes a study as a driver would leave it, with scores that were drawn instead of trained."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from namd.config.seeding import generator
from namd.ledger import schema
from namd.ledger.schema import Identity, trial_id
from namd.ledger.writing import open_writer
from namd.storage.opening import open_storage
from namd.storage.stage_names import StageName

STAGES = ("judge", "vae", "finetune")


@dataclass
class MadeCohort:
    """Cases with labels; scores come from a shared part per case and a shift of malignant ones."""

    folder: Path
    table: pd.DataFrame

    @classmethod
    def write(cls, folder: Path, num_cases: int, *, simulated: bool = True, cases_each: int = 1):
        folder.mkdir(parents=True)
        number = np.arange(num_cases)
        table = pd.DataFrame(
            {
                "case_id": [f"c{i:04d}" for i in number],
                "patient_id": [f"p{i // cases_each:04d}" for i in number],
                "label": ((number // cases_each) % 3 == 0).astype("int8"),
                "split": "test",
            }
        )
        pq.write_table(pa.Table.from_pandas(table), folder / "cases.parquet")
        card = {"source": "phantom", "simulation": {"seed": 1} if simulated else None}
        (folder / "card.json").write_text(json.dumps(card))
        return cls(folder, table)

    def scores(self, name: str, seed: int, k: int, shift: float) -> pd.DataFrame:
        """Score frame of a draw: probability, image metrics; the patient's part is shared."""
        number = len(self.table)
        shared = generator("made-patient").normal(size=number)
        own = generator("made", name, seed, k).normal(0, 0.5, size=number)
        raw = shared + own + shift * self.table["label"].to_numpy()
        score = 1 / (1 + np.exp(-raw))
        return pd.DataFrame(
            {
                "case_id": self.table["case_id"],
                "k": k,
                "score": score,
                "probability": score,
                "ssim": 0.5 + 0.1 * own,
                "psnr": 20 + own,
                "lpips": np.nan,
                "diameter_mm": self.diameters() + own,
            }
        )

    def diameters(self) -> np.ndarray:
        """Of the real follow-ups, in mm; the first one shows no nodule."""
        found = 8 + generator("made-diameter").normal(size=len(self.table))
        found[0] = np.nan
        return found

    def rejudged(self, name: str, seed: int, k: int, shift: float, judge: int) -> pd.DataFrame:
        """The same draw as a further judge scores it."""
        score = self.scores(name, seed, k, shift)["score"]
        leaning = generator("made-judge", judge).normal(0, 2, size=len(self.table))
        moved = 1 / (1 + np.exp(-(np.log(score / (1 - score)) + leaning)))
        return pd.DataFrame(
            {"case_id": self.table["case_id"], "k": k, "score": moved, "row": "drawn"}
        )


class MadeStudy:
    """A store with a ledger; trials are added one by one."""

    def __init__(self, root: Path, cohort: MadeCohort, specification: dict, *, named: bool = True,
                 combinations: dict | None = None):  # fmt: skip
        root.mkdir(parents=True, exist_ok=True)
        (root / "store.json").write_text('{"schema": 1}')
        self.root, self.cohort, self.specification = root, cohort, specification
        self.storage = open_storage(str(root))
        self.name = specification["name"]
        self.writer = open_writer(self.storage, self.name)
        settings = {"num_bootstrap": 200, "interval": 0.95, "bootstrap_seed": 0, "split": "test"}
        body = {"specification": specification, "configuration": {"evaluate": settings}}
        about = {"cohort": str(cohort.folder)} if named else {}
        if combinations is not None:
            about["combinations"] = combinations
        self.writer.append(Identity(None, 1, schema.OPENED), body | about)

    def queue(self, arm: str, seed: int, overrides: dict | None = None, proposal=None) -> str:
        trial = trial_id({"arm": arm, "proposal": proposal}, seed)
        body = {"arm": arm, "proposal": proposal, "seed": seed, "overrides": overrides or {}}
        self.writer.append(Identity(trial, 0, schema.QUEUED), body)
        return trial

    def run(
        self,
        arm: str,
        seed: int,
        shift: float,
        *,
        name: str | None = None,
        draws: int = 2,
        judges: int = 0,
        values: dict | None = None,
        ideal: int = 0,
        **more,
    ) -> str:
        """A completed trial; arms with the same `name` have the same scores.

        Each further judge moves the score of every case by a leaning of its own.
        """
        trial = self.queue(arm, seed, **more)
        self.writer.append(Identity(trial, 1, schema.STARTED))
        name = name or arm
        for stage in STAGES:
            self.stage(trial, stage, stage if stage == "judge" else f"{stage}-{name}-{seed}")
        truth = self.cohort.table["label"].to_numpy(float)
        rows = {"real_followup": truth, "real_baseline": 1 - truth, "partly": truth * np.nan}
        about = {"case_id": self.cohort.table["case_id"], "k": 0}
        about["diameter_mm"] = self.cohort.diameters()
        frames = [pd.DataFrame(about | {"score": v, "row": n}) for n, v in rows.items()]
        self.publish("reference-test", "reference", pd.concat(frames), 0)
        self.stage(trial, "reference-test", "reference")
        for k in range(draws):
            key = f"{name}-{seed}-{k}"
            self.publish("scores-test", key, self.cohort.scores(name, seed, k, shift), k)
            self.stage(trial, f"scores-test[{k}]", key)
        for k in range(ideal):
            key = f"ideal-{k}"
            self.publish("ideal-test", key, self.cohort.scores("ideal", 0, k, 2.0), k)
            recorded = StageName("ideal-test", k, "ideal", "reference", "test")
            self.stage(trial, f"ideal-test[{k}]", key, recorded.to_mapping())
        for judge in range(1, 1 + judges):
            family, key = f"rejudged-{judge}-test", f"{name}-{seed}-judge-{judge}"
            rejudged = [self.cohort.rejudged(name, seed, k, shift, judge) for k in range(draws)]
            other = rejudged[0].assign(row="real_followup", score=0.5)
            self.publish(family, key, pd.concat([*rejudged, other]), 0)
            recorded = StageName(family, None, f"rejudged-{judge}", "rejudge", "test")
            self.stage(trial, family, key, recorded.to_mapping())
        completed = {"auroc": 0.5 + shift / 10} | (values or {})
        self.writer.append(Identity(trial, 1, schema.COMPLETED), {"values": completed})
        return trial

    def stage(self, trial: str, label: str, key: str, recorded: dict | None = None) -> None:
        cached = any(e.get("key") == key for e in self._told)
        body = {
            "stage": label,
            "key": key,
            "cached": cached,
            "seconds": 0.0 if cached else 10.0,
            "device_seconds": 0.0 if cached else 10.0,
            **(recorded or {}),
        }
        self._told.append(body)
        self.writer.append(Identity(trial, 1, f"{schema.STAGE}/{label}"), body)

    def publish(self, stage: str, key: str, frame: pd.DataFrame, k: int) -> None:
        folder = f"{stage}/{key}"
        stream = io.BytesIO()
        frame.to_parquet(stream, index=False)
        place = f"{folder}/attempts/a"
        sets = [{"k": k, "fid_judge": 1.0 + float(frame["score"].mean()), "fid": None}]
        contents = {
            "payload/scores.parquet": stream.getvalue(),
            "payload/sets.json": json.dumps(sets).encode(),
            "manifest.json": json.dumps(MANIFEST).encode(),
        }
        for name, data in contents.items():
            self.storage.create(f"{place}/{name}", data)
        files = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in contents.items()
        }
        commit = {"attempt": "a", "files": files}
        self.storage.create(f"{folder}/COMMIT", json.dumps(commit).encode())

    def end(self, trial: str, transition: str, reason: str, attempt: int = 1) -> None:
        self.writer.append(Identity(trial, attempt, schema.STARTED))
        self.writer.append(Identity(trial, attempt, transition), {"reason": reason})

    def close(self) -> None:
        self.writer.append(Identity(None, 1, schema.CLOSED))
        self.writer.__exit__(None, None, None)

    @property
    def _told(self) -> list[dict]:
        return self.__dict__.setdefault("_stage_bodies", [])


MANIFEST = {
    "device_seconds": 10.0,
    "environment": {
        "python": "3.11",
        "libraries": {"torch": "2.9"},
        "git_commit": "abc",
        "git_dirty": False,
    },
}


def ablation(name: str, seeds: int, toggles: dict, **more) -> dict:
    """The specification of a leave-one-out study, as the ledger holds it."""
    return {
        "name": name,
        "question": "Does aligning help?",
        "base": {"preset": "tiny", "method": "namd", "cohort": None, "store": None, "set": {}},
        "seeds": seeds,
        "ablation": {"design": "leave-one-out", "toggles": toggles, "resolution": None},
        "search": None,
        "evaluate": {"split": "test", "num_draws": 2, "primary": "auroc", "secondary": ["auprc"]},
        **more,
    }


TOGGLES = {"align": {"vae.alignment.weight": 0}, "predict": {"vae.prediction.weight": 0}}


def made_ablation(
    folder: Path, seeds: int = 3, cases: int = 90, judges: int = 0, **cohort
) -> MadeStudy:
    """Full (shift 1.5), no_align (0.5) and no_predict (the same scores as full)."""
    study = MadeStudy(
        folder / "store",
        MadeCohort.write(folder / "cohort", cases, **cohort),
        ablation("made", seeds, TOGGLES),
    )
    for seed in range(seeds):
        study.run("full", seed, 1.5, judges=judges)
        study.run("no_align", seed, 0.5, overrides=TOGGLES["align"], judges=judges)
        study.run("no_predict", seed, 1.5, name="full", overrides=TOGGLES["predict"], judges=judges)
    return study
