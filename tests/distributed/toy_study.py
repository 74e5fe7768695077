"""A torch-free method for studies on Ray: its stages sleep, measure and keep a diary in the store.

vae -> probe, vae -> finetune -> draws-S[k] -> scores-S[k]
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from namd.config.errors import NotFiniteError, StageError
from namd.methods.base import Method, Stage, StageContext, Step
from namd.pipeline.run import Rows
from namd.study.spec import StudySpec, parse_study


@dataclass(frozen=True)
class Encoder:
    weight: float = 1.0
    steps: int = 4
    pause_s: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class Finetune:
    rate: float = 0.5
    steps: int = 8
    pause_s: float = 0.0
    fault: str = ""
    checkpoint_every: int = 2


@dataclass(frozen=True)
class Evaluate:
    split: str = "test"
    num_draws: int = 2


@dataclass(frozen=True)
class ToyConfig:
    method: str = "toy"
    train_seed: int = 0
    encoder: Encoder = field(default_factory=Encoder)
    finetune: Finetune = field(default_factory=Finetune)
    evaluate: Evaluate = field(default_factory=Evaluate)


@dataclass(frozen=True)
class ToyWorld:
    rank: int = 0
    size: int = 1
    device: str = "cpu"


HERE = "toy_study"


def stages(config: ToyConfig) -> tuple[Stage, ...]:
    split = config.evaluate.split
    seed = ("train_seed",)
    found = [
        Stage("vae", 1, "train", f"{HERE}:vae", ("encoder",), seeds=seed),
        Stage("probe", 1, "map", f"{HERE}:probe", ("encoder.weight",), ("vae",), seeds=seed),
        Stage("finetune", 1, "train", f"{HERE}:finetune", ("finetune",), ("vae",), seeds=seed),
    ]
    for k in range(config.evaluate.num_draws):
        found.append(
            Stage("draws", 1, "draw", f"{HERE}:draw", (), ("finetune",), split=split, index=k)
        )
    for k in range(config.evaluate.num_draws):
        found.append(
            Stage(
                "scores",
                1,
                "score",
                f"{HERE}:score",
                (),
                (f"draws-{split}",),
                split=split,
                index=k,
            )
        )
    return tuple(found)


RUNGS = {"probe": "probe_auroc"}
METHODS = {
    "toy": Method("toy", "Toy", "none", True, ToyConfig, stages, ("any",), default_rungs=RUNGS)
}


def diary(context: StageContext, line: str) -> None:
    """Append a line to the diary of the store that an output folder lies in."""
    root = next(iter(context.outputs.values())).parents[4]
    with (root / "cache" / "diary.txt").open("a") as stream:
        stream.write(line + "\n")


def read_diary(store: Path) -> list[str]:
    path = store / "cache" / "diary.txt"
    return path.read_text().splitlines() if path.exists() else []


def key_of(context: StageContext) -> str:
    return next(iter(context.outputs.values())).parents[2].name


def meet(context: StageContext, fault: str, step: int) -> None:
    """Do what the fault's word says: `raise`, `nan`, `full` or die, with `-once`, at step 2."""
    if step != 2 or not fault:
        return
    once = next(iter(context.outputs.values())).parents[4] / "cache" / f"met-{key_of(context)}"
    if fault.endswith("-once"):
        if once.exists():
            return
        once.touch()
    if fault.startswith("raise"):
        raise StageError("the toy was made to fail")
    if fault.startswith("full"):
        raise OSError(28, "No space left on device")
    if fault == "nan":
        raise NotFiniteError("loss is not finite at step 2")
    os.kill(os.getpid(), 9)


def work(context: StageContext, name: str, settings, metrics) -> Iterator[Step]:
    """Count steps, with checkpoints, faults and a diary."""
    saved = context.checkpoints / "state.json"
    first = json.loads(saved.read_text())["step"] if saved.exists() else 0
    diary(context, f"{name} {key_of(context)} from {first} in {os.getpid()}")
    every = getattr(settings, "checkpoint_every", 1)
    for step in range(first + 1, settings.steps + 1):
        meet(context, settings.fault, step)
        time.sleep(settings.pause_s)
        diary(context, f"{name} {key_of(context)} step {step}")
        yield Step(step, settings.steps, metrics(step))
        if step % every == 0:
            partial = saved.with_suffix(".partial")
            partial.write_text(json.dumps({"step": step}))
            partial.replace(saved)


def vae(context: StageContext) -> Iterator[Step]:
    settings = context.settings.encoder
    yield from work(context, "vae", settings, lambda step: {"loss": 1.0 / step})
    (context.out / "value.json").write_text(json.dumps(settings.weight))


def probe(context: StageContext) -> Iterator[Step]:
    value = 0.5 + 0.1 * context.settings.encoder.weight
    diary(context, f"probe {key_of(context)}")
    (context.out / "value.json").write_text(json.dumps(value))
    yield Step(1, 1, {"probe_auroc": value})


def finetune(context: StageContext) -> Iterator[Step]:
    settings = context.settings.finetune
    weight = json.loads((context.inputs["vae"] / "value.json").read_text())
    value = 0.5 + 0.1 * weight - 0.1 * abs(settings.rate - 0.3)

    def metrics(step: int) -> dict[str, float]:
        return {"probe_auroc": value * step / settings.steps}

    yield from work(context, "finetune", settings, metrics)
    value += 0.001 * context.settings.train_seed
    (context.out / "value.json").write_text(json.dumps(value))


def draw(context: StageContext) -> Iterator[Step]:
    value = json.loads((context.inputs["finetune"] / "value.json").read_text())
    for k, folder in sorted(context.outputs.items()):
        diary(context, f"draw {folder.parents[2].name} {k}")
        (folder / "value.json").write_text(json.dumps(value + 0.01 * k))
        yield Step(k + 1, len(context.outputs), {}, finished=k)


def score(context: StageContext) -> Iterator[Step]:
    for k, folder in sorted(context.outputs.items()):
        (name,) = [name for name in context.inputs if name.endswith(f"[{k}]")]
        diary(context, f"score {folder.parents[2].name} {k}")
        (folder / "value.json").write_text((context.inputs[name] / "value.json").read_text())
        yield Step(k + 1, len(context.outputs), {}, finished=k)


def tabulate(configuration, cohort, artifacts) -> Rows:
    values = [
        json.loads((artifact.payload / "value.json").read_text())
        for label, artifact in artifacts.items()
        if label.startswith("scores-")
    ]
    mean = sum(values) / len(values)
    return Rows([{"row": "toy", "auroc": {"mean": mean, "low": mean, "high": mean}}])


def ablation(name: str = "toys", seeds: int = 2, base=None, toggles=None, **more) -> StudySpec:
    """Three arms that share the VAE where only finetune differs."""
    return parse_study(
        {
            "name": name,
            "base": {"method": "toy", "set": base or {}},
            "seeds": seeds,
            "ablation": {
                "design": "leave-one-out",
                "toggles": toggles
                or {"align": {"encoder.weight": 0.0}, "rate": {"finetune.rate": 0.9}},
            },
            **more,
        }
    )


def search(name: str = "search", base=None, **settings) -> StudySpec:
    return parse_study(
        {
            "name": name,
            "base": {"method": "toy", "set": base or {}},
            "search": {
                "space": {
                    "encoder.weight": {"uniform": [0.0, 2.0]},
                    "finetune.rate": {"uniform": [0.0, 1.0]},
                },
                "num_trials": 8,
                "objective": {"metric": "auroc"},
                "startup_trials": 4,
                "confirm_seeds": 1,
                **settings,
            },
        }
    )


def with_seeds(spec: StudySpec, seeds: int) -> StudySpec:
    return replace(spec, seeds=seeds)
