"""McWGAN's stages, and its entry in the registry. Torch-free.

Wang et al. 2024, "Enhancing Early Lung Cancer Diagnosis: Predicting Lung Nodule Progression in
Follow-Up Low-Dose CT Scan with Deep Generative Model", Cancers 16(12):2229. The article calls it
GP-WGAN, the paper's Table 1 McWGAN. Theirs: a predictor network without noise and a Wasserstein
critic with gradient penalty; the predictor's four losses (L1, SSIM, mean difference of a modified
ResNet-18's last hidden features, adversarial). Ours, as appendices B and C were not readable here:
every layer, weight and training value; that the U-Net predicts the change; that the critic sees the
follow-up alone; that the ResNet-18 is trained on the train split's malignancy and then frozen; that
the last weights are kept.
"""

from pathlib import Path

from namd.data.settings import CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.mcwgan.settings import McWGANConfig
from namd.methods.shared.stages import CROPS, draw_stages, reference_stages, resolved

BODIES = "namd.methods.mcwgan"


def stages(config: McWGANConfig) -> tuple[Stage, ...]:
    """Return the ResNet if its features count, the training, then what every method has."""
    featured = bool(config.wgan.feature_weight)
    resnet = Stage(
        family="resnet",
        code_version=1,
        role="train",
        body=f"{BODIES}.features:run",
        reads=("resnet", "image", "precision"),
        seeds=("train_seed",),
        cohort=CohortSlice((*CROPS, "label"), ("train", "validation")),
    )
    training = Stage(
        family="wgan",
        code_version=1,
        role="train",
        body=f"{BODIES}.training:run",
        reads=("wgan", "image", "precision", *(("resnet.blocks",) if featured else ())),
        upstream=("resnet",) if featured else (),
        seeds=("train_seed",),
        cohort=CohortSlice(CROPS, ("train", "validation")),
    )
    drawn = draw_stages(
        config.evaluate,
        drawer=DrawerCode(f"{BODIES}.training:McWGANDrawer", code_version=1),
        reads=("image", "precision"),
        upstream=("wgan",),
        columns=CROPS,
        stochastic=False,
    )
    return (
        *((resnet,) if featured else ()),
        training,
        *reference_stages(config.evaluate),
        *drawn,
    )


METHOD = Method(
    name="mcwgan",
    title="McWGAN",
    paper="Wang et al. 2024, Cancers 16(12):2229",
    stochastic=False,
    config_class=McWGANConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolved,
    demands=lambda config: CohortDemands(config.image.size),
    rung_metrics={"wgan": {"validation_psnr": "max", "validation_ssim": "max"}},
    default_rungs={"wgan": "validation_psnr"},
)
