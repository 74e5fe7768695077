"""Configuration of SD1.5. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.diffusion.settings import NoiseScheduleSettings
from namd.methods.shared.diffusion_settings import (
    DenoisingSettings,
    DrawSettings,
    ReportSettings,
    require_fitting_latents,
    require_samplable,
)
from namd.methods.shared.settings import (
    AlignmentSettings,
    FeatureSettings,
    LatentSettings,
    MethodConfig,
    VAESettings,
    WeightedTerm,
)
from namd.models.settings import PerceptualSettings, UNetArchitecture

EMBEDDED = "embedded"
"""The word for the small CLIP text model that the project builds itself."""


@dataclass(frozen=True)
class EmbeddedTextSettings:
    """The small CLIP text model that stands in where CLIP's own weights are absent [ours].

    Its weights are random and stay so; only its tokenizer is fitted, on random reports.

    Attributes:
        hidden_size: Width of the states.
        num_layers: Transformer layers.
        num_heads: Of each.
        intermediate_size: Width of the MLP.
        vocabulary_size: Upper limit of the byte-level BPE's vocabulary.
        length: Tokens that every report is padded or cut to; CLIP's is 77.
        seed: Of weights and tokenizer; one for all training seeds.
    """

    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 4
    intermediate_size: int = 128
    vocabulary_size: int = 1024
    length: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject models that cannot be built."""
        counts = (self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size)
        if min(counts) < 1:
            raise ValueError("hidden_size, num_layers, num_heads, intermediate_size are 1 or more")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}"
            )
        if self.vocabulary_size < 512:
            raise ValueError(f"vocabulary_size is 512 or more, not {self.vocabulary_size}")
        if self.length < 8:
            raise ValueError(f"length is 8 or more, not {self.length}")


@dataclass(frozen=True)
class TextSettings:
    """The frozen text encoder that reads the report.

    Attributes:
        source: Folder or hub name of Stable Diffusion 1.5 (its `text_encoder/` and
            `tokenizer/`), or `embedded`.
        embedded: The model of `embedded`.
    """

    source: str = EMBEDDED
    embedded: EmbeddedTextSettings = field(default_factory=EmbeddedTextSettings)

    @property
    def is_embedded(self) -> bool:
        """Whether the project's own model reads the report."""
        return self.source == EMBEDDED


@dataclass(frozen=True)
class SD15Settings(DenoisingSettings):
    """Section `sd15`: the U-Net learns the follow-up beside its baseline.

    Attributes:
        report: What the record's sentence tells.
        condition_dropout: Share of training cases whose report is replaced by the empty prompt
            (SD1.5's own training: 0.1); 0: no classifier-free guidance.
        baseline_latent: What is concatenated: the posterior's `mean`, or a `sample` of it.
        target: What is diffused, as NAMD offers it: the `followup`, or the `residual`.
    """

    report: ReportSettings = field(default_factory=ReportSettings)
    condition_dropout: float = 0.0
    baseline_latent: Literal["mean", "sample"] = "mean"
    target: Literal["followup", "residual"] = "followup"

    def __post_init__(self) -> None:
        """Reject impossible shares, and a residual of something else than the condition."""
        super().__post_init__()
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"condition_dropout lies in [0, 1), not {self.condition_dropout}")
        if self.target == "residual" and self.baseline_latent != "mean":
            raise ValueError("target residual needs baseline_latent mean, not sample")


def _plain_vae() -> VAESettings:
    """Return an autoencoder without alignment and prediction."""
    return VAESettings(alignment=AlignmentSettings(weight=0.0), prediction=WeightedTerm(0.0))


@dataclass(frozen=True)
class SD15Config(MethodConfig):
    """Everything that a run of SD1.5 reads."""

    method: str = "sd15"
    features: FeatureSettings = field(default_factory=FeatureSettings)
    perceptual: PerceptualSettings = field(default_factory=PerceptualSettings)
    vae: VAESettings = field(default_factory=_plain_vae)
    latents: LatentSettings = field(default_factory=LatentSettings)
    text: TextSettings = field(default_factory=TextSettings)
    unet: UNetArchitecture = field(default_factory=UNetArchitecture)
    noise_schedule: NoiseScheduleSettings = field(default_factory=NoiseScheduleSettings)
    sd15: SD15Settings = field(default_factory=SD15Settings)
    draws: DrawSettings = field(default_factory=DrawSettings)

    def __post_init__(self) -> None:
        """Reject combinations that no stage could honour."""
        super().__post_init__()
        require_fitting_latents(self.image.size, self.vae.architecture, self.latents)
        require_samplable(self.draws, self.noise_schedule)
        if self.draws.guidance_scale != 1.0 and not self.sd15.condition_dropout:
            raise ValueError("draws.guidance_scale other than 1 needs sd15.condition_dropout")
