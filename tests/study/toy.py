"""A method small enough to read at a glance, whose trials are computed rather than trained."""

import math
from dataclasses import dataclass, field

from namd.evaluate.settings import EvaluateSettings
from namd.methods.base import Method, Stage
from namd.study.spec import StudySpec, parse_study
from namd.study.trials import Configurator, Trial


@dataclass(frozen=True)
class Term:
    weight: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.weight < 0 or self.scale <= 0:
            raise ValueError(f"weight {self.weight} and scale {self.scale} are too small")


@dataclass(frozen=True)
class Encoder:
    align: Term = field(default_factory=Term)
    predict: Term = field(default_factory=Term)


@dataclass(frozen=True)
class Prompt:
    num_sets: int = 2
    include: tuple[str, ...] = ("age", "gender")


@dataclass(frozen=True)
class ToyConfig:
    method: str = "toy"
    train_seed: int = 0
    encoder: Encoder = field(default_factory=Encoder)
    prompt: Prompt = field(default_factory=Prompt)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)


def stages(config: ToyConfig) -> tuple[Stage, ...]:
    return (
        Stage("vae", 1, "train", "toy:vae", reads=("encoder",), seeds=("train_seed",)),
        Stage("finetune", 1, "train", "toy:finetune", reads=("prompt",), upstream=("vae",)),
        Stage("scores", 1, "score", "toy:scores", reads=("evaluate",), upstream=("finetune",)),
    )


METHODS = {
    "toy": Method("toy", "Toy", "none", True, ToyConfig, stages, ("any",)),
}

SPACE = {
    "align": {"choice": [True, False]},
    "encoder.align.weight": {"log_uniform": [0.01, 10], "when": "align", "else": 0},
    "encoder.align.scale": {"log_uniform": [0.1, 4], "when": "align"},
    "encoder.predict.weight": {"uniform": [0, 1]},
    "prompt.num_sets": {"choice": [1, 2, 4, 8]},
}


def search_spec(name: str = "toys", **search) -> StudySpec:
    settings = {
        "space": SPACE,
        "num_trials": 24,
        "objective": {"metric": "auroc"},
        "startup_trials": 6,
        "confirm_seeds": 2,
        **search,
    }
    return parse_study({"name": name, "base": {"method": "toy"}, "search": settings})


def configurator(spec: StudySpec) -> Configurator:
    return Configurator(spec, METHODS, preset={})


def probe(trial: Trial) -> float:
    """What is measured after `vae`."""
    align = trial.configuration.config.encoder.align
    return 0.5 + 0.2 * math.exp(-abs(math.log(align.scale))) * (align.weight > 0)


def rows(trial: Trial) -> dict[str, float]:
    """What is measured at the end."""
    config = trial.configuration.config
    value = probe(trial) - 0.05 * abs(config.encoder.predict.weight - 0.3)
    value += 0.01 * config.prompt.num_sets + 0.001 * trial.seed
    return {"auroc": value, "lpips": 0.3 - 0.02 * config.prompt.num_sets + 0.1 * value}
