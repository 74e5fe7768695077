"""SD1.5's stages, and its entry in the registry. Torch-free.

Rombach et al. 2022 (arXiv 2112.10752), fine-tuned as the compared publication describes its row: an
autoencoder without alignment and prediction (the stage that NAMD's arm `no_align_no_predict` has),
baseline latents concatenated to the noisy ones (8 input channels), the report through a frozen
CLIP text model, DDIM with 50 steps.

Ours, where it is silent: the fine-tuning's length and rates are NAMD's; the baseline latent is the
posterior mean; no classifier-free guidance unless asked for; where CLIP's weights are absent a
small CLIP text model with random, frozen weights reads the report.
"""

from dataclasses import replace
from pathlib import Path

from namd.data.schema import EHR_FEATURES, NODULE_FEATURES, PATIENT_FEATURES
from namd.data.settings import STATED_ANGLES, CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.sd15.settings import SD15Config
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

BODIES = "namd.methods.sd15"
DRAWER = DrawerCode(f"{BODIES}.training:SD15Drawer", code_version=1)


def resolve(config: SD15Config) -> SD15Config:
    """Replace every `auto` by what this machine will do, so that keys say what was done."""
    perceptual = config.perceptual
    if perceptual.source == "auto":
        perceptual = replace(
            perceptual, source="lpips" if has_lpips_vgg(config.trunks.lpips_vgg) else "embedded"
        )
    return replace(resolved(config), perceptual=perceptual)


def demands(config: SD15Config) -> CohortDemands:
    """Return what the stages need of a cohort: crops to cut images from, diameters to scale by."""
    return CohortDemands(
        config.image.size,
        diameters=config.features.normalisation == "standardised",
        turned=config.image.rotations in STATED_ANGLES,
    )


def stages(config: SD15Config) -> tuple[Stage, ...]:
    """Return the stages of a run, upstream first."""
    text = ("clip_text",) if config.text.is_embedded else ()
    clip_text = Stage(
        family="clip_text",
        code_version=1,
        role="map",
        body=f"{BODIES}.text:run",
        reads=("text",),
    )
    denoiser = Stage(
        family="sd15_denoiser",
        code_version=1,
        role="train",
        body=f"{BODIES}.training:run",
        reads=("sd15", "unet", "noise_schedule", "precision", "text", "image.size"),
        upstream=("vae", "latents", *text),
        cohort=CohortSlice(
            ("case_id", "patient_id", "followup", "spacing_mm", *EHR_FEATURES),
            ("train", "validation"),
        ),
        seeds=("train_seed",),
        weights=("unet.weights", "text.source"),
    )
    drawn = draw_stages(
        config.evaluate,
        drawer=DRAWER,
        reads=(
            "image",
            "precision",
            "noise_schedule",
            "draws",
            "text",
            "sd15.report",
            "sd15.baseline_latent",
        ),
        upstream=("vae", "sd15_denoiser", *text),
        columns=(*CROPS, *NODULE_FEATURES, *PATIENT_FEATURES, "label"),
        weights=("text.source",),
    )
    return (
        *autoencoder_stages(config),
        *([clip_text] if text else []),
        denoiser,
        *reference_stages(config.evaluate),
        reconstruction_stage(config.evaluate),
        *drawn,
        *further_judges(config.evaluate, vae=True),
    )


METHOD = Method(
    name="sd15",
    title="SD1.5",
    paper="Rombach et al. 2022, arXiv 2112.10752",
    stochastic=True,
    config_class=SD15Config,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolve,
    demands=demands,
    rung_metrics={
        "reconstruction-validation": {"psnr": "max"},
        "sd15_denoiser": {"drawn_diameter_crps_mm": "min"},
    },
)
