"""NAMD's configuration: its own sections, and those it shares. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.config.parsing import LATER
from namd.diffusion.settings import NoiseScheduleSettings
from namd.methods.shared.diffusion_settings import (
    DenoisingSettings,
    DrawSettings,
    ReportSettings,
    require_fitting_latents,
    require_samplable,
)
from namd.methods.shared.settings import (
    FeatureSettings,
    LatentSettings,
    MethodConfig,
    VAESettings,
)
from namd.models.language_settings import (
    LanguageSettings,
    LoRASettings,
    Readout,
    SoftPromptSettings,
)
from namd.models.settings import PerceptualSettings, UNetArchitecture


@dataclass(frozen=True)
class PretrainSettings(DenoisingSettings):
    """Stage `pretrain` (Eq 9): the U-Net learns single crops, both time points.

    Attributes:
        clip_weights: Folder of Stable Diffusion 1.5, whose text encoder's states of the empty
            prompt are the context (released code; the U-Net then reads that width, and stage
            `finetune` gives it K/V projections for the language model's); null: a learned token.
    """

    clip_weights: str | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class FinetuneSettings(DenoisingSettings):
    """Stage `finetune` (Eq 10): the U-Net and the prompts learn the follow-up.

    Attributes:
        report: What the record's sentence tells.
        soft_prompt: m and n.
        lora: Alternative to soft prompts.
        readout: Token whose last hidden state is read.
        condition_dropout: Share of training cases whose record is replaced by the null token
            (0: no classifier-free guidance, as in the paper).
        epoch: What a pass of `num_epochs` holds: each of the `pairs` once, at an angle that is
            drawn, or all their rotated `copies`, as the released code counts.
        baseline_latent: What conditions the U-Net, in training and in every draw: the
            posterior's `mean`, or a `sample` of it (released code).
        target: What is diffused: a posterior sample of the `followup` (the paper), or the
            `residual` [ours]: posterior mean of the follow-up minus that of the baseline, over the
            deviation that this has on the train split; the drawer adds the baseline again, so
            it needs `baseline_latent` mean.
    """

    report: ReportSettings = field(default_factory=ReportSettings)
    soft_prompt: SoftPromptSettings = field(default_factory=SoftPromptSettings)
    lora: LoRASettings = field(default_factory=LoRASettings)
    readout: Readout = "eos"
    condition_dropout: float = 0.0
    epoch: Literal["pairs", "copies"] = field(default="pairs", metadata=LATER)
    baseline_latent: Literal["mean", "sample"] = field(default="mean", metadata=LATER)
    target: Literal["followup", "residual"] = field(default="followup", metadata=LATER)

    def __post_init__(self) -> None:
        """Reject impossible shares, and a residual of something else than the condition."""
        super().__post_init__()
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"condition_dropout lies in [0, 1), not {self.condition_dropout}")
        if self.target == "residual" and self.baseline_latent != "mean":
            raise ValueError(
                "target residual is added to the baseline's posterior mean: it needs "
                f"baseline_latent mean, not {self.baseline_latent}"
            )


@dataclass(frozen=True)
class NAMDConfig(MethodConfig):
    """Everything that a NAMD run reads. Sections belong to stages of the same name."""

    method: str = "namd"
    features: FeatureSettings = field(default_factory=FeatureSettings)
    perceptual: PerceptualSettings = field(default_factory=PerceptualSettings)
    vae: VAESettings = field(default_factory=VAESettings)
    latents: LatentSettings = field(default_factory=LatentSettings, metadata=LATER)
    language: LanguageSettings = field(default_factory=LanguageSettings)
    unet: UNetArchitecture = field(default_factory=UNetArchitecture)
    noise_schedule: NoiseScheduleSettings = field(default_factory=NoiseScheduleSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    draws: DrawSettings = field(default_factory=DrawSettings)

    def __post_init__(self) -> None:
        """Reject combinations that no stage could honour."""
        super().__post_init__()
        require_fitting_latents(self.image.size, self.vae.architecture, self.latents)
        require_samplable(self.draws, self.noise_schedule)
        if self.draws.guidance_scale != 1.0 and not self.finetune.condition_dropout:
            raise ValueError("draws.guidance_scale other than 1 needs finetune.condition_dropout")
