"""NAMD's stages, and its entry in the registry. Torch-free.

Ours, where paper and released code leave a choice: standardised features with sigma_f 1, the
embedded language model and perceptual encoder where the real weights are absent. Everything else
is listed in docs/reproducing.md.
"""

from dataclasses import replace
from pathlib import Path

from namd.data.schema import NODULE_FEATURES, PATIENT_FEATURES
from namd.data.settings import STATED_ANGLES, CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.namd.settings import NAMDConfig
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

BODIES = "namd.methods.namd"

DRAWER = DrawerCode(f"{BODIES}.latent_diffusion:LatentDiffusionDrawer", code_version=1)

DRAWN = ("followup", "spacing_mm")
"""Columns that the quick draws of `finetune` are measured against."""

RUNG_METRICS = {
    "probe": {"probe_auroc": "max"},
    "reconstruction-validation": {"psnr": "max"},
    "finetune": {"drawn_diameter_crps_mm": "min"},
}
"""Left out: losses, which searched weights redefine; the judge's, the same in every trial."""

DEFAULT_RUNGS = {"probe": "probe_auroc"}
"""After the VAE and a linear probe of its latents, before any diffusion is paid for."""


def resolve(config: NAMDConfig) -> NAMDConfig:
    """Replace every `auto` by what this machine will do, so that keys say what was done."""
    perceptual = config.perceptual
    if perceptual.source == "auto":
        perceptual = replace(
            perceptual, source="lpips" if has_lpips_vgg(config.trunks.lpips_vgg) else "embedded"
        )
    return replace(resolved(config), perceptual=perceptual)


def demands(config: NAMDConfig) -> CohortDemands:
    """Return what the stages need of a cohort: crops to cut images from, diameters to scale by."""
    return CohortDemands(
        config.image.size,
        diameters=config.features.normalisation == "standardised",
        turned=config.image.rotations in STATED_ANGLES,
    )


def stages(config: NAMDConfig) -> tuple[Stage, ...]:
    """Return the stages of a run, upstream first."""
    drawn = draw_stages(
        config.evaluate,
        drawer=DRAWER,
        reads=(
            "image",
            "precision",
            "noise_schedule",
            "draws",
            "language",
            "finetune.report",
            "finetune.soft_prompt",
            "finetune.lora",
            "finetune.readout",
            "finetune.baseline_latent",
        ),
        upstream=("vae", "finetune", *_language(config)),
        columns=(*CROPS, *NODULE_FEATURES, *PATIENT_FEATURES, "label"),
        weights=("language.source",),
        packages=config.language.packages,
    )
    return (
        *autoencoder_stages(config),
        *_training(config),
        *reference_stages(config.evaluate),
        reconstruction_stage(config.evaluate),
        *drawn,
        *further_judges(config.evaluate, vae=True),
    )


def _training(config: NAMDConfig) -> list[Stage]:
    language = _language(config)
    clip = ("pretrain.clip_weights",) if config.pretrain.clip_weights is not None else ()
    probe = Stage(
        family="probe",
        code_version=1,
        role="map",
        body=f"{BODIES}.probe:run",
        upstream=("latents",),
        cohort=CohortSlice(("case_id", "patient_id", "label"), ("train", "validation")),
    )
    embedded = Stage(
        family="language",
        code_version=1,
        role="train",
        body=f"{BODIES}.language:run",
        reads=("language",),
    )
    pretrain = Stage(
        family="pretrain",
        code_version=1,
        role="train",
        body=f"{BODIES}.pretrain:run",
        reads=("pretrain", "unet", "noise_schedule", "precision", "language"),
        upstream=("latents", *language),
        seeds=("train_seed",),
        weights=("unet.weights", "language.source", *clip),
    )
    finetune = Stage(
        family="finetune",
        code_version=2,
        role="train",
        body=f"{BODIES}.finetune:run",
        reads=(
            "finetune",
            "noise_schedule",
            "precision",
            "language",
            "image.size",
            *(("unet.text_projection",) if clip else ()),
        ),
        upstream=("vae", "latents", "pretrain", *language),
        cohort=CohortSlice(
            ("case_id", "patient_id", *DRAWN, *NODULE_FEATURES, *PATIENT_FEATURES),
            ("train", "validation"),
        ),
        seeds=("train_seed",),
        weights=("language.source",),
        packages=config.language.packages,
    )
    return [probe, *([embedded] if language else []), pretrain, finetune]


def _language(config: NAMDConfig) -> tuple[str, ...]:
    return ("language",) if config.language.is_embedded else ()


METHOD = Method(
    name="namd",
    title="NAMD",
    paper="Song et al. 2026, arXiv 2603.15932",
    stochastic=True,
    config_class=NAMDConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper", "paper-authors-code"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolve,
    demands=demands,
    rung_metrics=RUNG_METRICS,
    default_rungs=DEFAULT_RUNGS,
)
