"""DDL-CXR's stages, and its entry in the registry. Torch-free.

Yao et al. 2024 (Addressing asynchronicity in clinical multimodal fusion via individualized chest
X-ray generation, NeurIPS 2024; code Apache-2.0): an autoencoder whose latents must tell the
label, the label's weight from gradients at the last encoder layer; then a U-Net that reads
the baseline's latents beside the noisy ones and the record through cross-attention, with a record
encoder trained jointly under a cross-entropy of its CLS token and a contrastive term.

Ours: a static record of 13 features as tokens (the publication reads a series of measurements);
unknown labels are left out of both cross-entropies; random x_T for every draw; losses are means
over pixels; weights kept by the validation error of the noise alone; no discriminator below preset
`paper`; the ramp of the contrastive term ends with the training in presets below `paper`.
"""

from dataclasses import replace
from pathlib import Path

from namd.data.schema import EHR_FEATURES
from namd.data.settings import STATED_ANGLES, CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.ddl_cxr.settings import DDLCXRConfig
from namd.methods.shared.stages import (
    CROPS,
    autoencoder_stages,
    draw_stages,
    further_judges,
    reconstruction_stage,
    reference_stages,
    resolved,
)
from namd.models.weights import has_lpips_vgg

BODIES = "namd.methods.ddl_cxr"
DRAWER = DrawerCode(f"{BODIES}.training:DDLDrawer", code_version=1)


def resolve(config: DDLCXRConfig) -> DDLCXRConfig:
    """Replace every `auto` by what this machine will do, so that keys say what was done."""
    perceptual = config.perceptual
    if perceptual.source == "auto":
        perceptual = replace(
            perceptual, source="lpips" if has_lpips_vgg(config.trunks.lpips_vgg) else "embedded"
        )
    return replace(resolved(config), perceptual=perceptual)


def stages(config: DDLCXRConfig) -> tuple[Stage, ...]:
    """Return the stages of a run, upstream first."""
    denoiser = Stage(
        family="ddl_denoiser",
        code_version=1,
        role="train",
        body=f"{BODIES}.training:run",
        reads=("ddl", "unet", "noise_schedule", "precision", "image.size"),
        upstream=("vae", "latents"),
        cohort=CohortSlice(
            ("case_id", "patient_id", "label", "followup", "spacing_mm", *EHR_FEATURES),
            ("train", "validation"),
        ),
        seeds=("train_seed",),
        weights=("unet.weights",),
    )
    drawn = draw_stages(
        config.evaluate,
        drawer=DRAWER,
        reads=("image", "precision", "noise_schedule", "draws", "ddl.record"),
        upstream=("vae", "ddl_denoiser"),
        columns=(*CROPS, *EHR_FEATURES),
    )
    return (
        *_autoencoder(config),
        denoiser,
        *reference_stages(config.evaluate),
        reconstruction_stage(config.evaluate),
        *drawn,
        *further_judges(config.evaluate, vae=True),
    )


def _autoencoder(config: DDLCXRConfig) -> list[Stage]:
    """Return the shared stages with the body of stage `vae` replaced: it reads no attributes."""

    def own(stage: Stage) -> Stage:
        if stage.family != "vae":
            return stage
        return replace(
            stage,
            body=f"{BODIES}.autoencoder:run",
            reads=tuple(path for path in stage.reads if path != "features"),
            cohort=CohortSlice((*CROPS, "label"), ("train", "validation")),
        )

    return [own(stage) for stage in autoencoder_stages(config)]


METHOD = Method(
    name="ddl_cxr",
    title="DDL-CXR",
    paper="Yao et al. 2024, NeurIPS",
    stochastic=True,
    config_class=DDLCXRConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolve,
    demands=lambda config: CohortDemands(
        config.image.size, turned=config.image.rotations in STATED_ANGLES
    ),
    rung_metrics={
        "reconstruction-validation": {"psnr": "max"},
        "ddl_denoiser": {"drawn_diameter_crps_mm": "min"},
    },
)
