"""A generator of two layers and its critic. No source: made for tests."""

from dataclasses import dataclass, field
from pathlib import Path

from namd.data.settings import CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.shared.settings import MethodConfig
from namd.methods.shared.stages import CROPS, draw_stages, reference_stages, resolved
from namd.train.settings import TrainingSettings

HERE = "tests.throwaway.adversarial"


@dataclass(frozen=True)
class GanSettings(TrainingSettings):
    """Stage `gan`: the generator's training, and how often its critic moves."""

    critic_steps: int = 2
    channels: int = 8


@dataclass(frozen=True)
class AdversarialConfig(MethodConfig):
    """One section of its own."""

    method: str = "adversarial"
    gan: GanSettings = field(default_factory=GanSettings)


def stages(config: AdversarialConfig) -> tuple[Stage, ...]:
    """Return the training, then what every method has."""
    gan = Stage(
        family="gan",
        code_version=1,
        role="train",
        body=f"{HERE}.bodies:run",
        reads=("gan", "image", "precision"),
        seeds=("train_seed",),
        cohort=CohortSlice(CROPS, ("train", "validation")),
    )
    return (
        gan,
        *reference_stages(config.evaluate),
        *draw_stages(
            config.evaluate,
            drawer=DrawerCode(f"{HERE}.bodies:GeneratorDrawer", code_version=1),
            reads=("image", "gan.channels"),
            upstream=("gan",),
            columns=CROPS,
            stochastic=False,
        ),
    )


METHOD = Method(
    name="adversarial",
    title="Adversarial",
    paper="made for tests",
    stochastic=False,
    config_class=AdversarialConfig,
    stages=stages,
    presets=("tiny",),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolved,
    demands=lambda config: CohortDemands(config.image.size),
    rung_metrics={"gan": {"psnr": "max"}},
)
