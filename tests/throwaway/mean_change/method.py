"""The baseline plus a share of the mean change of the training pairs. No source: made for tests."""

from dataclasses import dataclass, field
from pathlib import Path

from namd.data.settings import CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.shared.settings import MethodConfig
from namd.methods.shared.stages import CROPS, draw_stages, reference_stages, resolved

HERE = "tests.throwaway.mean_change"


@dataclass(frozen=True)
class ChangeSettings:
    """How much of the mean change is drawn."""

    share: float = 1.0


@dataclass(frozen=True)
class MeanChangeConfig(MethodConfig):
    """One section of its own."""

    method: str = "mean_change"
    change: ChangeSettings = field(default_factory=ChangeSettings)


def stages(config: MeanChangeConfig) -> tuple[Stage, ...]:
    """Return the mean of the changes, then what every method has."""
    mean = Stage(
        family="change",
        code_version=1,
        role="map",
        body=f"{HERE}.bodies:run",
        reads=("image",),
        seeds=("train_seed",),
        cohort=CohortSlice(CROPS, ("train",)),
    )
    return (
        mean,
        *reference_stages(config.evaluate),
        *draw_stages(
            config.evaluate,
            drawer=DrawerCode(f"{HERE}.bodies:MeanChangeDrawer", code_version=1),
            reads=("image", "change"),
            upstream=("change",),
            columns=CROPS,
            stochastic=False,
        ),
    )


METHOD = Method(
    name="mean_change",
    title="Mean change",
    paper="made for tests",
    stochastic=False,
    config_class=MeanChangeConfig,
    stages=stages,
    presets=("tiny",),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolved,
    demands=lambda config: CohortDemands(config.image.size),
)
