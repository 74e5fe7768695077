"""NAMD (arXiv 2603.15932): aligned VAE, record through an LLM with soft prompts, latent diffusion.

Ours, where paper and released code leave a choice: standardised features with sigma_f 1, the
embedded language model and perceptual encoder where the real weights are absent. Everything else
is listed in docs/reproducing.md.
"""

from dataclasses import dataclass, field, replace

from namd.data.schema import FOLLOWUP_DIAMETERS, NODULE_FEATURES, PATIENT_FEATURES
from namd.data.settings import CohortDemands
from namd.diffusion.settings import NoiseScheduleSettings
from namd.evaluate.settings import EvaluateSettings
from namd.methods.base import CohortSlice, Stage
from namd.methods.evaluation import (
    BODIES,
    CROPS,
    draw_stages,
    judge_stage,
    reconstruction_stage,
    reference_stages,
    resolve_evaluation,
    score_stages,
)
from namd.methods.judge_settings import JudgeSettings
from namd.methods.settings import (
    DrawSettings,
    FeatureSettings,
    FinetuneSettings,
    ImageSettings,
    Precision,
    PretrainSettings,
    VAESettings,
)
from namd.models.language_settings import LanguageSettings
from namd.models.settings import PerceptualSettings, TrunkSettings, UNetArchitecture
from namd.models.weights import has_lpips_vgg

MAXIMUM_THREADS = 1024
"""More than any node has cores."""

DRAWN = ("followup", "spacing_mm")
"""Columns that the quick draws of `finetune` are measured against."""

RUNG_METRICS = {
    "probe": {"probe_auroc": "max"},
    "reconstruction-validation": {"psnr": "max"},
    "finetune": {"drawn_diameter_crps_mm": "min"},
}
"""Measures on validation that a search may stop trials by, per stage, and which way is better.

Left out: losses, which searched weights redefine; the judge's, which is the same in every trial.
"""


@dataclass(frozen=True)
class NAMDConfig:
    """Everything that a NAMD run reads. Sections belong to stages of the same name.

    Attributes:
        method: Always `namd`.
        precision: Of training and drawing; `auto` is resolved before any key is formed.
        num_threads: CPU threads of each operation, on any machine: sums depend on their number,
            so it is part of every key.
        train_seed: Weights, batches, noise and dropout of vae, pretrain and finetune.
        draw_seed: Noise of the draws.
    """

    method: str = "namd"
    precision: Precision = "auto"
    num_threads: int = 1
    train_seed: int = 23
    draw_seed: int = 0
    image: ImageSettings = field(default_factory=ImageSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    perceptual: PerceptualSettings = field(default_factory=PerceptualSettings)
    vae: VAESettings = field(default_factory=VAESettings)
    language: LanguageSettings = field(default_factory=LanguageSettings)
    unet: UNetArchitecture = field(default_factory=UNetArchitecture)
    noise_schedule: NoiseScheduleSettings = field(default_factory=NoiseScheduleSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    draws: DrawSettings = field(default_factory=DrawSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    trunks: TrunkSettings = field(default_factory=TrunkSettings)

    def __post_init__(self) -> None:
        """Reject combinations that no stage could honour."""
        if not 1 <= self.num_threads <= MAXIMUM_THREADS:
            raise ValueError(f"num_threads lies in 1..{MAXIMUM_THREADS}, not {self.num_threads}")
        if self.image.size % self.vae.architecture.downsampling:
            raise ValueError(
                f"image.size {self.image.size} is not a multiple of the VAE's factor "
                f"{self.vae.architecture.downsampling}"
            )
        if self.judge.architecture.image_size != self.image.size:
            raise ValueError(
                f"judge.architecture.image_size {self.judge.architecture.image_size} must equal "
                f"image.size {self.image.size}"
            )
        steps, most = self.draws.ddim.num_inference_steps, self.noise_schedule.most_inference_steps
        if steps > most:
            raise ValueError(
                f"draws.ddim.num_inference_steps {steps} is more than the {most} steps that "
                "noise_schedule allows"
            )
        if self.draws.guidance_scale != 1.0 and not self.finetune.condition_dropout:
            raise ValueError("draws.guidance_scale other than 1 needs finetune.condition_dropout")


def resolve(config: NAMDConfig) -> NAMDConfig:
    """Replace every `auto` by what this machine will do, so that keys say what was done."""
    perceptual = config.perceptual
    if perceptual.source == "auto":
        perceptual = replace(
            perceptual, source="lpips" if has_lpips_vgg(config.trunks.lpips_vgg) else "embedded"
        )
    precision = "fp32" if config.precision == "auto" else config.precision
    evaluate = resolve_evaluation(config.evaluate, config.trunks)
    return replace(config, perceptual=perceptual, precision=precision, evaluate=evaluate)


def demands(config: NAMDConfig) -> CohortDemands:
    """Return what the stages need of a cohort: crops to cut images from, diameters to scale by."""
    return CohortDemands(config.image.size, config.features.normalisation == "standardised")


def stages(config: NAMDConfig) -> tuple[Stage, ...]:
    """Return the stages of a run, upstream first."""
    training = _training(config)
    judge = judge_stage()
    drawn = draw_stages(
        config.evaluate,
        drawer=f"{BODIES}.latent_diffusion:LatentDiffusionDrawer",
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
        ),
        upstream=("vae", "finetune", *_language(config)),
        columns=(*CROPS, *NODULE_FEATURES, *PATIENT_FEATURES, "label"),
        weights=("language.source",),
    )
    untrained = reference_stages(config.evaluate)
    reconstruction = reconstruction_stage(config.evaluate)
    return (*training, judge, *untrained, reconstruction, *drawn, *score_stages(config.evaluate))


def _training(config: NAMDConfig) -> list[Stage]:
    found = []
    perceptual = _needs_perceptual(config)
    if perceptual:
        found.append(
            Stage(
                name="perceptual",
                code_version=1,
                kind="training",
                body=f"{BODIES}.perceptual:run",
                reads=("perceptual", "image.size", "precision"),
                cohort=CohortSlice(CROPS, ("train",)),
            )
        )
    lpips = bool(config.vae.perceptual.weight) and not perceptual
    trunk = ("trunks.lpips_vgg",) if lpips else ()
    features = (*NODULE_FEATURES, *FOLLOWUP_DIAMETERS, "label")
    found.append(
        Stage(
            name="vae",
            code_version=1,
            kind="training",
            body=f"{BODIES}.vae:run",
            reads=(
                "vae",
                "features",
                "image",
                "precision",
                "perceptual.source",
                "perceptual.channels",
                *trunk,
            ),
            upstream=("perceptual",) if perceptual else (),
            cohort=CohortSlice((*CROPS, *features), ("train", "validation")),
            seeds=("train_seed",),
            weights=("vae.architecture.weights", *trunk),
        )
    )
    found.append(
        Stage(
            name="latents",
            code_version=1,
            kind="mapping",
            body=f"{BODIES}.latents:run",
            reads=("image", "precision"),
            upstream=("vae",),
            cohort=CohortSlice(CROPS, ("train", "validation")),
        )
    )
    found.append(
        Stage(
            name="probe",
            code_version=1,
            kind="mapping",
            body=f"{BODIES}.probe:run",
            upstream=("latents",),
            cohort=CohortSlice(("case_id", "patient_id", "label"), ("train", "validation")),
        )
    )
    language = _language(config)
    if language:
        found.append(
            Stage(
                name="language",
                code_version=1,
                kind="training",
                body=f"{BODIES}.language:run",
                reads=("language",),
            )
        )
    found.append(
        Stage(
            name="pretrain",
            code_version=1,
            kind="training",
            body=f"{BODIES}.pretrain:run",
            reads=("pretrain", "unet", "noise_schedule", "precision", "language"),
            upstream=("latents", *language),
            seeds=("train_seed",),
            weights=("unet.weights", "language.source"),
        )
    )
    found.append(
        Stage(
            name="finetune",
            code_version=2,
            kind="training",
            body=f"{BODIES}.finetune:run",
            reads=("finetune", "noise_schedule", "precision", "language", "image.size"),
            upstream=("vae", "latents", "pretrain", *language),
            cohort=CohortSlice(
                ("case_id", "patient_id", *DRAWN, *NODULE_FEATURES, *PATIENT_FEATURES),
                ("train", "validation"),
            ),
            seeds=("train_seed",),
            weights=("language.source",),
        )
    )
    return found


def _language(config: NAMDConfig) -> tuple[str, ...]:
    return ("language",) if config.language.is_embedded else ()


def _needs_perceptual(config: NAMDConfig) -> bool:
    return bool(config.vae.perceptual.weight) and config.perceptual.source != "lpips"
