"""The baseline plus a training pair's change, drawn at random. No source: made for tests."""

from dataclasses import dataclass, field
from pathlib import Path

from namd.data.settings import CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.shared.settings import MethodConfig
from namd.methods.shared.stages import CROPS, draw_stages, reference_stages, resolved

HERE = "tests.throwaway.borrowed_change"


@dataclass(frozen=True)
class ChangeSettings:
    """How much of the change is drawn."""

    share: float = 1.0


@dataclass(frozen=True)
class BorrowedChangeConfig(MethodConfig):
    """One section of its own."""

    method: str = "borrowed_change"
    change: ChangeSettings = field(default_factory=ChangeSettings)


def stages(config: BorrowedChangeConfig) -> tuple[Stage, ...]:
    """Return the changes, then what every method has."""
    found = Stage(
        family="change",
        code_version=1,
        role="map",
        body=f"{HERE}.bodies:run",
        reads=("image",),
        seeds=("train_seed",),
        cohort=CohortSlice(CROPS, ("train",)),
    )
    return (
        found,
        *reference_stages(config.evaluate),
        *draw_stages(
            config.evaluate,
            drawer=DrawerCode(f"{HERE}.bodies:BorrowedChangeDrawer", code_version=1),
            reads=("image", "change"),
            upstream=("change",),
            columns=CROPS,
            stochastic=True,
        ),
    )


METHOD = Method(
    name="borrowed_change",
    title="Borrowed change",
    paper="made for tests",
    stochastic=True,
    config_class=BorrowedChangeConfig,
    stages=stages,
    presets=("tiny",),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolved,
    demands=lambda config: CohortDemands(config.image.size),
)
