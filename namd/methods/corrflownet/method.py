"""CorrFlowNet's stages, and its entry in the registry. Torch-free.

Wu 2025, arXiv 2511.18185. No code, layers or numbers are public, and the abstract alone was
readable. Theirs: a correlational autoencoder with an auxiliary classifier; a background-aligned
rectified flow in its latents, followed as an ODE or as an SDE. Ours, all the rest:

- the form of the correlation (Pearson's over the batch, mean over latent dimensions), its weight
  0.1, and that of the classifier (0.2, linear, reads either time point alone);
- L1, the perceptual term of the other autoencoders, KL 1e-6; posterior means are what flows;
- what aligning the background means: follow-ups are rigidly registered, in plane, before they are
  encoded, by what surrounds the nodule;
- the velocity reads z1 beside z_t; t is uniform; Euler with 20 steps; s = 0.05.

`draws.sampler` says `sde` (K draws) or `ode` (one): two rows of one training.
"""

from dataclasses import replace
from pathlib import Path

from namd.data.settings import STATED_ANGLES, CohortDemands
from namd.methods.base import CohortSlice, DrawerCode, Method, Stage
from namd.methods.corrflownet.settings import CorrFlowNetConfig
from namd.methods.shared.stages import (
    CROPS,
    draw_stages,
    further_judges,
    perceptual_stage,
    reconstruction_stage,
    reference_stages,
    resolved,
)
from namd.models.weights import has_lpips_vgg

BODIES = "namd.methods.corrflownet"
TRAINED_ON = ("train", "validation")


def resolve(config: CorrFlowNetConfig) -> CorrFlowNetConfig:
    """Replace every `auto` by what this machine will do, so that keys say what was done."""
    perceptual = config.perceptual
    if perceptual.source == "auto":
        found = has_lpips_vgg(config.trunks.lpips_vgg)
        perceptual = replace(perceptual, source="lpips" if found else "embedded")
    return replace(resolved(config), perceptual=perceptual)


def demands(config: CorrFlowNetConfig) -> CohortDemands:
    """Return what the stages need of a cohort: crops to cut images from."""
    return CohortDemands(config.image.size, turned=config.image.rotations in STATED_ANGLES)


def is_stochastic(config: CorrFlowNetConfig) -> bool:
    """Return whether draws differ: those of the SDE do."""
    return config.draws.sampler == "sde"


def stages(config: CorrFlowNetConfig) -> tuple[Stage, ...]:
    """Return the stages of a run, upstream first."""
    by_noise = is_stochastic(config)
    drawn = draw_stages(
        config.evaluate,
        drawer=DrawerCode(f"{BODIES}.drawer:FlowDrawer", code_version=1),
        reads=(
            "image",
            "precision",
            *(("draws",) if by_noise else ("draws.sampler", "draws.num_steps")),
        ),
        upstream=("vae", "flow"),
        columns=CROPS,
        seeds=("draw_seed",) if by_noise else (),
        stochastic=by_noise,
    )
    return (
        *_training(config),
        *reference_stages(config.evaluate),
        reconstruction_stage(config.evaluate),
        *drawn,
        *further_judges(config.evaluate, vae=True),
    )


def _training(config: CorrFlowNetConfig) -> list[Stage]:
    registers = config.registration.motion != "none"
    registered = ("registration",) if registers else ()
    registration = Stage(
        family="registration",
        code_version=1,
        role="map",
        body=f"{BODIES}.pairs:run",
        reads=("registration",),
        cohort=CohortSlice(CROPS, TRAINED_ON),
    )
    perceptual = bool(config.vae.perceptual.weight) and config.perceptual.source != "lpips"
    lpips = bool(config.vae.perceptual.weight) and not perceptual
    trunk = ("trunks.lpips_vgg",) if lpips else ()
    vae = Stage(
        family="vae",
        code_version=1,
        role="train",
        body=f"{BODIES}.autoencoder:run",
        reads=("vae", "image", "precision", "perceptual.source", "perceptual.channels", *trunk),
        upstream=(*registered, *(("perceptual",) if perceptual else ())),
        cohort=CohortSlice((*CROPS, "label"), TRAINED_ON),
        seeds=("train_seed",),
        weights=("vae.architecture.weights", *trunk),
    )
    latents = Stage(
        family="flow_latents",
        code_version=1,
        role="map",
        body=f"{BODIES}.training:encode",
        reads=("image", "precision"),
        upstream=("vae", *registered),
        cohort=CohortSlice(CROPS, TRAINED_ON),
    )
    flow = Stage(
        family="flow",
        code_version=1,
        role="train",
        body=f"{BODIES}.training:run",
        reads=("flow", "precision"),
        upstream=("flow_latents",),
        seeds=("train_seed",),
    )
    first = [*([registration] if registers else []), *([perceptual_stage()] if perceptual else [])]
    return [*first, vae, latents, flow]


METHOD = Method(
    name="corrflownet",
    title="CorrFlowNet",
    paper="Wu 2025, arXiv 2511.18185",
    stochastic=is_stochastic,
    config_class=CorrFlowNetConfig,
    stages=stages,
    presets=("tiny", "small", "base", "paper"),
    preset_folder=Path(__file__).parent / "presets",
    resolve=resolve,
    demands=demands,
    rung_metrics={
        "reconstruction-validation": {"psnr": "max"},
        "flow": {"validation_gap_closed": "max"},
    },
)
