"""Flux's stages, and its entry in the registry. Torch-free.

Labs 2024 (FLUX.1): a rectified-flow transformer, conditioned as in diffusers' flux-control example.
Ours: the plain autoencoder of the other methods in place of FLUX's own (4 latent channels, so 16
tokens of 16), a network of random weights in a size that this data can train, the record as
thirteen tokens of numbers in place of CLIP's and T5's text, baseline latents as posterior means.
docs/methods.md has the rest.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from namd.config.errors import InputError
from namd.data.schema import EHR_FEATURES
from namd.data.settings import STATED_ANGLES, CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.flux.settings import PATCH, FluxConfig, misfit
from namd.methods.shared.stages import (
    CROPS,
    autoencoder_stages,
    draw_stages,
    further_judges,
    reconstruction_stage,
    reference_stages,
    resolved,
)
from namd.models.weights import has_lpips_vgg, locate

BODIES = "namd.methods.flux"


def stages(config: FluxConfig) -> tuple[Stage, ...]:
    """Return the plain autoencoder's stages, the flow's training, then what every method has."""
    flow = Stage(
        family="flux_transformer",
        code_version=1,
        role="train",
        body=f"{BODIES}.training:run",
        reads=("flux", "precision", "image.size"),
        upstream=("vae", "latents"),
        cohort=CohortSlice(
            ("case_id", "patient_id", "followup", "spacing_mm", *EHR_FEATURES),
            ("train", "validation"),
        ),
        seeds=("train_seed",),
        weights=("flux.architecture.weights",),
    )
    drawn = draw_stages(
        config.evaluate,
        drawer=DrawerCode(f"{BODIES}.drawing:FluxDrawer", code_version=1),
        reads=("image", "precision", "draws", "flux.guidance", "flux.baseline_latent"),
        upstream=("vae", "flux_transformer"),
        columns=(*CROPS, *EHR_FEATURES),
    )
    return (
        *autoencoder_stages(config),
        flow,
        *reference_stages(config.evaluate),
        reconstruction_stage(config.evaluate),
        *drawn,
        *further_judges(config.evaluate, vae=True),
    )


def resolve(config: FluxConfig) -> FluxConfig:
    """Replace every `auto` by what this machine will do.

    Raises InputError if the transformer's weights are there and read other latents than the
    autoencoder has.
    """
    perceptual = config.perceptual
    if perceptual.source == "auto":
        perceptual = replace(
            perceptual, source="lpips" if has_lpips_vgg(config.trunks.lpips_vgg) else "embedded"
        )
    _require_fitting(config)
    return replace(resolved(config), perceptual=perceptual)


def demands(config: FluxConfig) -> CohortDemands:
    """Return what the stages need of a cohort."""
    return CohortDemands(
        config.image.size,
        diameters=config.features.normalisation == "standardised",
        turned=config.image.rotations in STATED_ANGLES,
    )


def _require_fitting(config: FluxConfig) -> None:
    """Compare the two folders' own words, before anything is trained."""
    configured = config.flux.architecture.weights
    if configured is None or (folder := locate("flux", configured)) is None:
        return
    channels = config.vae.architecture.latent_channels
    if (named := config.vae.architecture.weights) is not None:
        if (other := locate("sd15-vae", named)) is None:
            return
        channels = _published(other).get("latent_channels", channels)
    width = PATCH**2 * channels * config.latents.fold**2
    guided = config.flux.guidance is not None
    if problem := misfit(configured, _published(folder), width, guided):
        raise InputError(problem)


def _published(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


METHOD = Method(
    name="flux",
    title="Flux",
    paper="Labs 2024 (FLUX.1)",
    stochastic=True,
    config_class=FluxConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolve,
    demands=demands,
    rung_metrics={
        "reconstruction-validation": {"psnr": "max"},
        "flux_transformer": {"drawn_diameter_crps_mm": "min"},
    },
)
