"""A method of four numpy stages: quick, deterministic, resumable, and it keeps a diary.

Every body writes a line to the file named by TOY_DIARY, so a test can count what was computed.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from namd.config.errors import StageError
from namd.config.seeding import generator
from namd.methods.base import CohortSlice, Method, Stage, StageContext, Step


@dataclass(frozen=True)
class TrainSettings:
    rate: float = 0.5
    num_steps: int = 12
    checkpoint_every: int = 4
    diverge_at: int = -1
    pause_s: float = 0.0
    weights: str | None = None

    def __post_init__(self):
        if self.num_steps < 0:
            raise ValueError(f"num_steps is 0 or more, not {self.num_steps}")


@dataclass(frozen=True)
class EncodeSettings:
    scale: float = 2.0


@dataclass(frozen=True)
class EvaluateSettings:
    num_draws: int = 5
    confidence: float = 0.95


@dataclass(frozen=True)
class ToyConfig:
    precision: str = "auto"
    train_seed: int = 1
    draw_seed: int = 2
    train: TrainSettings = field(default_factory=TrainSettings)
    encode: EncodeSettings = field(default_factory=EncodeSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)


@dataclass(frozen=True)
class ToyWorld:
    rank: int = 0
    size: int = 1
    device: str = "cpu"


def stages(config: ToyConfig) -> tuple[Stage, ...]:
    found = [
        Stage(
            "train",
            1,
            "train",
            "toy_stages:train",
            reads=("train", "precision"),
            seeds=("train_seed",),
            weights=("train.weights",),
            cohort=CohortSlice(("baseline",), ("train",)),
        ),
        Stage("encode", 1, "map", "toy_stages:encode", reads=("encode",), upstream=("train",)),
    ]
    for k in range(config.evaluate.num_draws):
        found.append(
            Stage(
                "draws",
                1,
                "draw",
                "toy_stages:draw",
                upstream=("encode",),
                seeds=("draw_seed",),
                split="test",
                index=k,
            )
        )
    for k in range(config.evaluate.num_draws):
        found.append(
            Stage(
                "scores",
                1,
                "score",
                "toy_stages:score",
                upstream=("draws-test",),
                split="test",
                index=k,
            )
        )
    return tuple(found)


def settle(config: ToyConfig) -> ToyConfig:
    from dataclasses import replace

    return replace(config, precision="fp32") if config.precision == "auto" else config


TOY = Method(
    name="toy",
    title="Toy",
    paper="none",
    stochastic=True,
    config_class=ToyConfig,
    stages=stages,
    presets=("tiny",),
    resolve=settle,
)


def diary(line: str) -> None:
    path = os.environ.get("TOY_DIARY")
    if path:
        with Path(path).open("a") as stream:
            stream.write(line + "\n")


def read_diary(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def save_checkpoint(folder: Path, state: dict) -> None:
    partial = folder / "state.partial"
    partial.write_text(json.dumps(state))
    partial.replace(folder / "state.json")


def train(context: StageContext) -> Iterator[Step]:
    settings = context.settings.train
    state = {"step": 0, "x": 0.0}
    saved = context.checkpoints / "state.json"
    if saved.exists():
        state = json.loads(saved.read_text())
    diary(f"train from {state['step']}")
    while state["step"] < settings.num_steps:
        noise = generator("toy", context.settings.train_seed, state["step"]).standard_normal()
        state = {"step": state["step"] + 1, "x": state["x"] * settings.rate + float(noise)}
        diary(f"train step {state['step']}")
        if state["step"] == settings.diverge_at:
            raise StageError(f"train: loss is not finite at step {state['step']}")
        time.sleep(settings.pause_s)
        yield Step(state["step"], settings.num_steps, {"loss": abs(state["x"])})
        if state["step"] % settings.checkpoint_every == 0:
            save_checkpoint(context.checkpoints, state)
    context.notes["steps"] = state["step"]
    np.save(context.out / "x.npy", np.array([state["x"]]))
    (context.out / "second.txt").write_text("complete")


def encode(context: StageContext) -> Iterator[Step]:
    diary("encode")
    x = np.load(context.inputs["train"] / "x.npy")
    np.save(context.out / "z.npy", x * context.settings.encode.scale)
    yield Step(1, 1)


def draw(context: StageContext) -> Iterator[Step]:
    z = np.load(context.inputs["encode"] / "z.npy")
    diary(f"draw call of {len(context.outputs)}")
    for number, (k, folder) in enumerate(sorted(context.outputs.items())):
        diary(f"draw {k}")
        noise = generator("toy-draw", context.settings.draw_seed, k).standard_normal(3)
        np.save(folder / "draw.npy", z + noise)
        yield Step(number + 1, len(context.outputs), {"k": k}, finished=k)


def score(context: StageContext) -> Iterator[Step]:
    for k, folder in sorted(context.outputs.items()):
        diary(f"score {k}")
        images = np.load(context.inputs[f"draws-test[{k}]"] / "draw.npy")
        (folder / "score.json").write_text(json.dumps(float(images.mean())))
        yield Step(1, 1, {"score": float(images.mean())}, finished=k)
