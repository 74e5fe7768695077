"""Configuration of DDL-CXR. Torch-free."""

from dataclasses import dataclass, field

from namd.diffusion.settings import NoiseScheduleSettings, TimestepSettings
from namd.methods.shared.diffusion_settings import (
    DrawSettings,
    require_fitting_latents,
    require_samplable,
)
from namd.methods.shared.settings import LatentSettings, MethodConfig, WeightedTerm
from namd.models.settings import PerceptualSettings, UNetArchitecture, VAEArchitecture
from namd.train.settings import TrainingSettings


@dataclass(frozen=True)
class LabelTerm(WeightedTerm):
    """Binary cross-entropy of a linear layer on the sampled latents.

    Attributes:
        weight: Multiplies the adaptive weight.
        adaptive: Scales the term so that its gradient at the last encoder layer is as long as the
            reconstruction's (the publication); else the weight is fixed.
    """

    adaptive: bool = True


@dataclass(frozen=True)
class AdversarialTerm(WeightedTerm):
    """A discriminator of patches (LDM's), whose weight is adaptive at the last decoder layer.

    Attributes:
        weight: 0: no discriminator; the publication has 0.5.
        start_step: First step in which it counts (the publication: 10,000).
        channels: Of its first convolution; doubled from layer to layer, at most eightfold.
        num_layers: Convolutions that halve the image; LDM's is 3.
    """

    weight: float = 0.0
    start_step: int = 10000
    channels: int = 64
    num_layers: int = 3

    def __post_init__(self) -> None:
        """Reject a discriminator that cannot be built."""
        super().__post_init__()
        if self.start_step < 0:
            raise ValueError(f"start_step is 0 or more, not {self.start_step}")
        if min(self.channels, self.num_layers) < 1:
            raise ValueError(
                f"channels and num_layers are 1 or more, not {self.channels}, {self.num_layers}"
            )


@dataclass(frozen=True)
class LabelVAESettings(TrainingSettings):
    """Stage `vae`: an autoencoder whose latents must tell the label."""

    architecture: VAEArchitecture = field(default_factory=VAEArchitecture)
    reconstruction: WeightedTerm = field(default_factory=WeightedTerm)
    kl: WeightedTerm = field(default_factory=lambda: WeightedTerm(1e-6))
    perceptual: WeightedTerm = field(default_factory=WeightedTerm)
    label: LabelTerm = field(default_factory=LabelTerm)
    adversarial: AdversarialTerm = field(default_factory=AdversarialTerm)


@dataclass(frozen=True)
class RecordEncoderSettings:
    """The transformer layer that reads the record's 13 feature tokens behind a CLS token.

    Attributes:
        width: Of every token (the publication: 128).
        num_heads: Of the attention (8).
        feedforward: Width of the feed-forward part (256).
        dropout: In training only (0.2).
    """

    width: int = 128
    num_heads: int = 8
    feedforward: int = 256
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Reject a layer that cannot be built."""
        if min(self.width, self.num_heads, self.feedforward) < 1:
            raise ValueError("width, num_heads, feedforward are 1 or more")
        if self.width % 2 or self.width % self.num_heads:
            raise ValueError(
                f"width is even and a multiple of num_heads {self.num_heads}, not {self.width}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout lies in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class TripletTerm(WeightedTerm):
    """The contrastive term: a corrupted record must predict the noise worse.

    Attributes:
        weight: Multiplies the ramp; 0 saves the second pass of the U-Net.
        margin: By how much a squared error must be exceeded (0.2).
        ramp_epochs: Epochs after which the term counts in full (200); it grows linearly.
        kept: Share of the encoded record that the corrupted one keeps; the rest is N(0, 1) (0.5).
    """

    margin: float = 0.2
    ramp_epochs: int = 200
    kept: float = 0.5

    def __post_init__(self) -> None:
        """Reject impossible numbers."""
        super().__post_init__()
        if self.margin < 0:
            raise ValueError(f"margin is 0 or more, not {self.margin}")
        if self.ramp_epochs < 1:
            raise ValueError(f"ramp_epochs is 1 or more, not {self.ramp_epochs}")
        if not 0 <= self.kept <= 1:
            raise ValueError(f"kept lies in [0, 1], not {self.kept}")


@dataclass(frozen=True)
class DDLSettings(TrainingSettings):
    """Section `ddl`: U-Net and record encoder learn together.

    Attributes:
        record: The record encoder.
        label: Weight of the label's cross-entropy at the CLS token (1.4).
        triplet: The contrastive term.
        timesteps: Of training batches.
    """

    record: RecordEncoderSettings = field(default_factory=RecordEncoderSettings)
    label: WeightedTerm = field(default_factory=lambda: WeightedTerm(1.4))
    triplet: TripletTerm = field(default_factory=TripletTerm)
    timesteps: TimestepSettings = field(default_factory=TimestepSettings)


@dataclass(frozen=True)
class DDLCXRConfig(MethodConfig):
    """Everything that a run of DDL-CXR reads."""

    method: str = "ddl_cxr"
    perceptual: PerceptualSettings = field(default_factory=PerceptualSettings)
    vae: LabelVAESettings = field(default_factory=LabelVAESettings)
    latents: LatentSettings = field(default_factory=LatentSettings)
    unet: UNetArchitecture = field(default_factory=UNetArchitecture)
    noise_schedule: NoiseScheduleSettings = field(default_factory=NoiseScheduleSettings)
    ddl: DDLSettings = field(default_factory=DDLSettings)
    draws: DrawSettings = field(default_factory=DrawSettings)

    def __post_init__(self) -> None:
        """Reject combinations that no stage could honour."""
        super().__post_init__()
        require_fitting_latents(self.image.size, self.vae.architecture, self.latents)
        require_samplable(self.draws, self.noise_schedule)
        if self.draws.guidance_scale != 1.0:
            raise ValueError(
                f"draws.guidance_scale is 1, not {self.draws.guidance_scale}: no record is ever "
                "dropped in training, so there is nothing to guide away from"
            )
        halved = self.vae.adversarial.num_layers
        if self.vae.adversarial.weight and self.image.size < 2 ** (halved + 2):
            raise ValueError(
                f"vae.adversarial.num_layers {halved} leaves no patch of images of "
                f"{self.image.size} pixels"
            )
