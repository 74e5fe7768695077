"""Configuration sections of the stages that methods share. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.data.report import FEATURES
from namd.diffusion.settings import DDIMSettings
from namd.losses.settings import MINIMUM_CASES
from namd.models.language_settings import LoRASettings, Readout, SoftPromptSettings
from namd.models.settings import VAEArchitecture
from namd.train.settings import TrainingSettings

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class ImageSettings:
    """The crops that a model sees.

    Attributes:
        size: Pixels per side, cut from the middle of the stored crop.
        rotations: `all` multiples of 45 degrees where the stored crop is large enough, else
            multiples of 90; `quarter`: multiples of 90; `none`.
    """

    size: int = 64
    rotations: Literal["all", "quarter", "none"] = "all"

    def __post_init__(self) -> None:
        """Reject sizes the networks cannot halve three times."""
        if self.size < 8 or self.size % 8:
            raise ValueError(f"size is a multiple of 8, not {self.size}")


@dataclass(frozen=True)
class FeatureSettings:
    """The vector f of nodule attributes that the latent space is aligned with.

    Attributes:
        normalisation: `standardised` [ours] or `raw` (NAMD's released code).
    """

    normalisation: Literal["standardised", "raw"] = "standardised"


@dataclass(frozen=True)
class WeightedTerm:
    """A loss term that has no number but its weight."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        """Reject a negative weight."""
        if self.weight < 0:
            raise ValueError(f"weight is 0 or more, not {self.weight}")


@dataclass(frozen=True)
class AlignmentSettings(WeightedTerm):
    """L_align (NAMD Eq 2-4).

    Attributes:
        weight: lambda_align.
        sigma_f: Scale of feature distances.
        sigma_z: Scale of latent distances.
        temperature: Divides both logits; 1 gives the paper's equations, the released code has 0.5.
        pooling: `pooled`: z averaged over positions (released code); `flatten`: all of z.
    """

    sigma_f: float = 1.0
    sigma_z: float = 1.0
    temperature: float = 0.5
    pooling: Literal["pooled", "flatten"] = "pooled"

    def __post_init__(self) -> None:
        """Reject scales that are not above 0."""
        super().__post_init__()
        for name in ("sigma_f", "sigma_z", "temperature"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is above 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class VAESettings(TrainingSettings):
    """Stage `vae`: its training, its network and the five terms of Eq 6."""

    architecture: VAEArchitecture = field(default_factory=VAEArchitecture)
    reconstruction: WeightedTerm = field(default_factory=WeightedTerm)
    kl: WeightedTerm = field(default_factory=lambda: WeightedTerm(1e-6))
    perceptual: WeightedTerm = field(default_factory=WeightedTerm)
    alignment: AlignmentSettings = field(default_factory=AlignmentSettings)
    prediction: WeightedTerm = field(default_factory=lambda: WeightedTerm(0.2))

    def __post_init__(self) -> None:
        """Reject batches in which the alignment would never be formed."""
        super().__post_init__()
        if self.alignment.weight and self.batch_size < MINIMUM_CASES:
            raise ValueError(
                f"batch_size is {MINIMUM_CASES} or more where alignment.weight is above 0, "
                f"not {self.batch_size}"
            )


@dataclass(frozen=True)
class PretrainSettings(TrainingSettings):
    """Stage `pretrain` (Eq 9): the U-Net learns single crops, both time points."""


@dataclass(frozen=True)
class ReportSettings:
    """Which features the report tells, and whether it tells the perpendicular diameter.

    Attributes:
        include: Feature names in NLST's spelling; empty: no record at all.
        perpendicular: Add the perpendicular diameter, which the paper's sentence leaves out.
    """

    include: tuple[str, ...] = FEATURES
    perpendicular: bool = False

    def __post_init__(self) -> None:
        """Reject a feature that no report knows."""
        unknown = [name for name in self.include if name not in FEATURES]
        if unknown:
            raise ValueError(f"include knows {', '.join(FEATURES)}; not {', '.join(unknown)}")


@dataclass(frozen=True)
class FinetuneSettings(TrainingSettings):
    """Stage `finetune` (Eq 10): the U-Net and the prompts learn the follow-up.

    Attributes:
        report: What the record's sentence tells.
        soft_prompt: m and n.
        lora: Alternative to soft prompts.
        readout: Token whose last hidden state is read.
        condition_dropout: Share of training cases whose record is replaced by the null token
            (0: no classifier-free guidance, as in the paper).
    """

    report: ReportSettings = field(default_factory=ReportSettings)
    soft_prompt: SoftPromptSettings = field(default_factory=SoftPromptSettings)
    lora: LoRASettings = field(default_factory=LoRASettings)
    readout: Readout = "eos"
    condition_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Reject impossible shares."""
        super().__post_init__()
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"condition_dropout lies in [0, 1), not {self.condition_dropout}")


@dataclass(frozen=True)
class DrawSettings:
    """Stage `draws`: how follow-ups are drawn.

    Attributes:
        ddim: Steps and eta.
        guidance_scale: 1: none (the paper); above 1 needs `finetune.condition_dropout`.
        record: Whose record conditions a case: its `own`, or another's (`shuffled`, a control
            that must do worse).
    """

    ddim: DDIMSettings = field(default_factory=DDIMSettings)
    guidance_scale: float = 1.0
    record: Literal["own", "shuffled"] = "own"
