"""Configuration of Flux: its transformer, its training and its draws. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from namd.data.schema import EHR_FEATURES
from namd.methods.shared.settings import (
    AlignmentSettings,
    FeatureSettings,
    LatentSettings,
    MethodConfig,
    VAESettings,
    WeightedTerm,
)
from namd.models.settings import PerceptualSettings
from namd.train.settings import TrainingSettings

PATCH = 2
"""Side of the squares of latent positions that are packed into one token."""


@dataclass(frozen=True)
class FluxArchitecture:
    """A diffusers `FluxTransformer2DModel`; FLUX.1's numbers stand in brackets.

    Attributes:
        weights: Folder in diffusers' format to start from (FLUX.1 [dev]: the folder that holds
            `transformer/`), or None: random weights of the shape below. FLUX.1 reads latents of 16
            channels, which only its own autoencoder has (`vae.architecture.weights`).
        num_layers: Blocks in which latents and record have weights of their own (19).
        num_single_layers: Blocks after these, in which they share weights (38).
        num_attention_heads: Heads (24).
        attention_head_dim: Numbers of a head (128); the width is heads times this.
        record_width: Numbers of a token of the record, and of the pooled record (4096 and 768).
    """

    weights: str | None = None
    num_layers: int = 2
    num_single_layers: int = 4
    num_attention_heads: int = 4
    attention_head_dim: int = 32
    record_width: int = 64

    def __post_init__(self) -> None:
        """Reject shapes that cannot be built."""
        for name in ("num_layers", "num_single_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")
        if self.num_layers + self.num_single_layers < 1:
            raise ValueError("num_layers and num_single_layers are both 0: no block would be left")
        for name in ("num_attention_heads", "record_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")
        if self.attention_head_dim < 8 or self.attention_head_dim % 8:
            raise ValueError(
                f"attention_head_dim is a multiple of 8, not {self.attention_head_dim}"
            )

    @property
    def axes_dims_rope(self) -> tuple[int, int, int]:
        """Numbers of a head that turn with text position, row and column: (16, 56, 56) of 128."""
        side = 2 * (7 * self.attention_head_dim // 32)
        return self.attention_head_dim - 2 * side, side, side


@dataclass(frozen=True)
class NoiseLevelSettings:
    """At which noise levels s the transformer is trained: logit(s) is normal (Esser et al. 2024).

    Attributes:
        logit_mean: Of that normal; 0 puts most weight on s = 0.5.
        logit_std: Likewise.
    """

    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __post_init__(self) -> None:
        """Reject a deviation that is none."""
        if self.logit_std <= 0:
            raise ValueError(f"logit_std is above 0, not {self.logit_std}")


@dataclass(frozen=True)
class RecordSettings:
    """What the transformer reads of the record.

    Attributes:
        include: Feature names in NLST's spelling; the others count as missing; empty: no record.
        dropout: Share of training cases of which every feature counts as missing.
    """

    include: tuple[str, ...] = EHR_FEATURES
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Reject features that no record has, and impossible shares."""
        unknown = [name for name in self.include if name not in EHR_FEATURES]
        if unknown:
            raise ValueError(f"include knows {', '.join(EHR_FEATURES)}; not {', '.join(unknown)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout lies in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class FluxSettings(TrainingSettings):
    """Stage `flux_transformer`: the transformer learns the velocity from follow-up to noise.

    Attributes:
        architecture: The transformer.
        record: What it reads of a case.
        noise_levels: Of training batches; validation spreads them evenly.
        guidance: What the guidance embedding is given, in training and in every draw (diffusers'
            flux-control example: 30); null: a transformer without that embedding.
        baseline_latent: What conditions the transformer: the posterior's `mean`, or a `sample`.
    """

    architecture: FluxArchitecture = field(default_factory=FluxArchitecture)
    record: RecordSettings = field(default_factory=RecordSettings)
    noise_levels: NoiseLevelSettings = field(default_factory=NoiseLevelSettings)
    guidance: float | None = None
    baseline_latent: Literal["mean", "sample"] = "mean"

    def __post_init__(self) -> None:
        """Reject a negative guidance."""
        super().__post_init__()
        if self.guidance is not None and self.guidance < 0:
            raise ValueError(f"guidance is 0 or more, or null, not {self.guidance}")


@dataclass(frozen=True)
class FlowDrawSettings:
    """Stage `draws`: how follow-ups are drawn.

    Attributes:
        num_inference_steps: Euler steps, each one evaluation of the transformer.
        dynamic_shift: Whether the noise levels of the steps are shifted by FLUX's rule for the
            number of tokens; else they are spread evenly.
        record: Whose record conditions a case: its `own`, or another's (`shuffled`, a control
            that must do worse).
    """

    num_inference_steps: int = 28
    dynamic_shift: bool = True
    record: Literal["own", "shuffled"] = "own"

    def __post_init__(self) -> None:
        """Reject impossible numbers."""
        if self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is 1 or more, not {self.num_inference_steps}")


def misfit(configured: str, published: Mapping[str, Any], width: int, guided: bool) -> str:
    """Return why a folder's transformer cannot be used, or an empty text.

    Args:
        configured: The folder, as it is configured.
        published: The transformer's own config.json.
        width: Numbers of one token of this autoencoder's latents.
        guided: Whether a guidance is configured.
    """
    where = f"flux.architecture.weights={configured}"
    reads = published.get("in_channels")
    gives = published.get("out_channels") or reads
    if gives != width or reads not in (width, 2 * width):
        return (
            f"{where}: that transformer reads tokens of {reads} numbers and predicts {gives}, a "
            f"token of this autoencoder's latents has {width}; set vae.architecture.weights to the "
            "autoencoder it was trained with, or flux.architecture.weights to null to train from "
            "random weights"
        )
    needs_guidance = bool(published.get("guidance_embeds"))
    if needs_guidance is not guided:
        need = "a number (30)" if needs_guidance else "null"
        return f"{where}: that transformer needs flux.guidance to be {need}"
    return ""


def _plain() -> VAESettings:
    """Return an autoencoder without alignment and prediction."""
    return VAESettings(alignment=AlignmentSettings(0.0), prediction=WeightedTerm(0.0))


@dataclass(frozen=True)
class FluxConfig(MethodConfig):
    """Everything that a run of Flux reads. Sections belong to stages of the same name."""

    method: str = "flux"
    features: FeatureSettings = field(default_factory=FeatureSettings)
    perceptual: PerceptualSettings = field(default_factory=PerceptualSettings)
    vae: VAESettings = field(default_factory=_plain)
    latents: LatentSettings = field(default_factory=LatentSettings)
    flux: FluxSettings = field(default_factory=FluxSettings)
    draws: FlowDrawSettings = field(default_factory=FlowDrawSettings)

    def __post_init__(self) -> None:
        """Reject images whose latents cannot be packed into whole tokens."""
        super().__post_init__()
        pixels = self.vae.architecture.downsampling * self.latents.fold * PATCH
        if self.image.size % pixels:
            raise ValueError(
                f"image.size {self.image.size} is not a multiple of {pixels}: a token is "
                f"{PATCH} x {PATCH} latent positions of vae.architecture's factor "
                f"{self.vae.architecture.downsampling} and latents.fold {self.latents.fold}"
            )
