"""Configuration sections of the stages that methods share. Torch-free."""

from dataclasses import dataclass, field
from typing import Literal

from namd.config.parsing import LATER
from namd.evaluate.settings import EvaluateSettings
from namd.losses.settings import MINIMUM_CASES
from namd.methods.shared.judge_settings import JudgeSettings
from namd.models.settings import TrunkSettings, VAEArchitecture
from namd.train.settings import TrainingSettings

Precision = Literal["auto", "fp32", "bf16"]

MAXIMUM_THREADS = 1024
"""More than any node has cores."""


@dataclass(frozen=True)
class ImageSettings:
    """The crops that a model sees.

    Attributes:
        size: Pixels per side, cut from the middle of the stored crop.
        rotations: `all` multiples of 45 degrees where the stored crop is large enough, else
            multiples of 90, and that is said; `quarter`: multiples of 90; `none`; `to_180` (the
            paper: 0, 45, 90, 135, 180) and `to_135` (released code, conditional configuration):
            refused if the stored crop has no room.
    """

    size: int = 64
    rotations: Literal["all", "quarter", "none", "to_180", "to_135"] = "all"

    def __post_init__(self) -> None:
        """Reject sizes the networks cannot halve three times."""
        if self.size < 8 or self.size % 8:
            raise ValueError(f"size is a multiple of 8, not {self.size}")


@dataclass(frozen=True)
class FeatureSettings:
    """The vector f of nodule attributes that the latent space is aligned with.

    Attributes:
        normalisation: `standardised` [ours] or `raw` (NAMD's released code).
        missing: A case that lacks an attribute is `left_out` of the alignment [ours], or it is
            `filled`: a missing margin becomes 3, as in the released code.
    """

    normalisation: Literal["standardised", "raw"] = "standardised"
    missing: Literal["left_out", "filled"] = field(default="left_out", metadata=LATER)


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
class LatentSettings:
    """Stage `latents`: how the autoencoder's latents are presented to the diffusion model.

    Attributes:
        scaling: `global` multiplies all channels by the autoencoder's one factor (the paper's);
            `per_channel` shifts and scales each to mean 0 and deviation 1 over the train
            pairs [ours].
        fold: Side of the squares of positions that are folded into channels [ours]; 1: none. An f4
            autoencoder of 4 channels then gives the U-Net an f8 grid of 16.
    """

    scaling: Literal["global", "per_channel"] = field(default="global", metadata=LATER)
    fold: int = field(default=1, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject squares without a position."""
        if self.fold < 1:
            raise ValueError(f"fold is 1 or more, not {self.fold}")


@dataclass(frozen=True)
class MethodConfig:
    """What the shared stages read; a method's configuration adds its own sections.

    Attributes:
        method: The method's name in the registry.
        precision: Of training and drawing; `auto` is resolved before any key is formed.
        num_threads: CPU threads of each operation, on any machine: sums depend on their number,
            so it is part of every key.
        train_seed: Weights, batches, noise and dropout of everything but the judge.
        draw_seed: Noise of the draws.
        image: The crops.
        judge: One for all methods.
        evaluate: What is drawn and scored.
        trunks: Where pretrained feature extractors lie.
    """

    method: str = ""
    precision: Precision = "auto"
    num_threads: int = 1
    train_seed: int = 23
    draw_seed: int = 0
    image: ImageSettings = field(default_factory=ImageSettings)
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    trunks: TrunkSettings = field(default_factory=TrunkSettings)

    def __post_init__(self) -> None:
        """Reject combinations that no shared stage could honour."""
        if not 1 <= self.num_threads <= MAXIMUM_THREADS:
            raise ValueError(f"num_threads lies in 1..{MAXIMUM_THREADS}, not {self.num_threads}")
        if self.judge.architecture.image_size != self.image.size:
            raise ValueError(
                f"judge.architecture.image_size {self.judge.architecture.image_size} must equal "
                f"image.size {self.image.size}"
            )
        if self.judge.seed in self.evaluate.judge_seeds:
            raise ValueError(
                f"evaluate.judge_seeds {list(self.evaluate.judge_seeds)} holds judge.seed "
                f"{self.judge.seed}: that judge would count twice"
            )
