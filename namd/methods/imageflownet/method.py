"""ImageFlowNet's stages, and its entry in the registry. Torch-free.

Liu, Xu, Shen, Huguet, Wang, Tong, Bzdok, Stewart, Wang, Del Priore, Krishnaswamy: "ImageFlowNet:
Forecasting Multiscale Image-Level Trajectories of Disease Progression with Irregularly-Sampled
Longitudinal Medical Images", ICASSP 2025; the variant with stochastic differential equations.
Written from its equations: the licence of its own code forbids commercial use, and that code was
not read.

Ours, because the publication is silent or our data differ: one tau for every pair, because all are
a year apart; the bottleneck is what the middle block returns; the U-Net's timestep is 0; the
reconstruction takes both images of a pair, and both losses weigh 1; PSNR is that of
reconstructions of validation images, and once the U-Net is frozen for the prediction it stays so;
before that the prediction trains all parameters; the inputs' noise is in units of [-1, 1] and the
targets have none; the weights with the smallest validation error of the prediction are kept.
"""

from pathlib import Path

from namd.data.settings import CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.imageflownet.settings import ImageFlowNetConfig
from namd.methods.shared.stages import CROPS, draw_stages, reference_stages, resolved

BODIES = "namd.methods.imageflownet"


def stages(config: ImageFlowNetConfig) -> tuple[Stage, ...]:
    """Return the training, then what every method has."""
    training = Stage(
        family="latent_sde",
        code_version=1,
        role="train",
        body=f"{BODIES}.training:run",
        reads=("imageflownet", "image", "precision"),
        seeds=("train_seed",),
        cohort=CohortSlice(CROPS, ("train", "validation")),
    )
    drawn = draw_stages(
        config.evaluate,
        drawer=DrawerCode(f"{BODIES}.drawer:ImageFlowNetDrawer", code_version=1),
        reads=("imageflownet.architecture", "imageflownet.sde", "image.size", "precision"),
        upstream=("latent_sde",),
        columns=CROPS,
        stochastic=config.imageflownet.sde.stochastic,
    )
    return (training, *reference_stages(config.evaluate), *drawn)


METHOD = Method(
    name="imageflownet",
    title="ImageFlowNet SDE",
    paper="Liu et al. 2025",
    stochastic=True,
    config_class=ImageFlowNetConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolved,
    demands=lambda config: CohortDemands(config.image.size),
    rung_metrics={"latent_sde": {"validation_psnr": "max", "reconstruction_psnr": "max"}},
    default_rungs={"latent_sde": "validation_psnr"},
)
