"""The regression's stages, and its entry in the registry. Torch-free.

No publication: the row that every generator must beat. All of it is ours: diffusers' UNet2DModel
without attention, at a constant timestep, predicts the change; L1; one image a case.
"""

from pathlib import Path

from namd.data.settings import CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.regression.settings import RegressionConfig
from namd.methods.shared.stages import CROPS, draw_stages, reference_stages, resolved

BODIES = "namd.methods.regression.training"


def stages(config: RegressionConfig) -> tuple[Stage, ...]:
    """Return the training, then what every method has."""
    training = Stage(
        family="regressor",
        code_version=1,
        role="train",
        body=f"{BODIES}:run",
        reads=("regression", "image", "precision"),
        seeds=("train_seed",),
        cohort=CohortSlice(CROPS, ("train", "validation")),
    )
    drawn = draw_stages(
        config.evaluate,
        drawer=DrawerCode(f"{BODIES}:RegressionDrawer", code_version=1),
        reads=("image", "precision"),
        upstream=("regressor",),
        columns=CROPS,
        stochastic=False,
    )
    return (training, *reference_stages(config.evaluate), *drawn)


METHOD = Method(
    name="regression",
    title="Regression (U-Net, L1)",
    paper="none: a row for comparison",
    stochastic=False,
    config_class=RegressionConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolved,
    demands=lambda config: CohortDemands(config.image.size),
    rung_metrics={"regressor": {"validation_psnr": "max"}},
)
