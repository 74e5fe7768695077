"""CorrFlowNet's configuration. Torch-free.

The publication was readable as an abstract only: every number is ours.
"""

from dataclasses import dataclass, field
from typing import Literal

from namd.methods.shared.settings import MethodConfig, WeightedTerm
from namd.models.settings import PerceptualSettings, VAEArchitecture
from namd.train.settings import TrainingSettings


@dataclass(frozen=True)
class RegistrationSettings:
    """Stage `registration`: rigid in-plane registration of follow-ups to baselines.

    Attributes:
        motion: `rigid`: rotation and translation; `translation`; or `none`: there is no such stage,
            and follow-ups are encoded as they are stored.
        maximum_degrees: Largest rotation tried, either way.
        step_degrees: Of the grid of rotations.
        maximum_shift: Largest translation, in pixels of the stored crop.
        nodule_share: Diameter of the disc in the middle that is not compared, as a share of the
            stored crop's side.
        minimum_gain: In correlation of the backgrounds; a motion that gains less is not made.
    """

    motion: Literal["rigid", "translation", "none"] = "rigid"
    maximum_degrees: float = 6.0
    step_degrees: float = 3.0
    maximum_shift: int = 8
    nodule_share: float = 0.3
    minimum_gain: float = 0.01

    def __post_init__(self) -> None:
        """Reject searches without an end, or without anything to compare."""
        if self.maximum_degrees < 0 or self.step_degrees <= 0:
            raise ValueError(
                "maximum_degrees is 0 or more and step_degrees above 0, not "
                f"{self.maximum_degrees} and {self.step_degrees}"
            )
        if self.maximum_degrees > 45:
            raise ValueError(f"maximum_degrees is 45 at most, not {self.maximum_degrees}")
        if self.maximum_shift < 1:
            raise ValueError(f"maximum_shift is 1 or more, not {self.maximum_shift}")
        if not 0 <= self.nodule_share < 1:
            raise ValueError(f"nodule_share lies in [0, 1), not {self.nodule_share}")
        if not 0 <= self.minimum_gain < 1:
            raise ValueError(f"minimum_gain lies in [0, 1), not {self.minimum_gain}")

    @property
    def angles(self) -> tuple[float, ...]:
        """The grid of rotations in degrees, 0 first."""
        if self.motion == "translation":
            return (0.0,)
        count = int(self.maximum_degrees / self.step_degrees + 1e-9)
        steps = [self.step_degrees * number for number in range(1, count + 1)]
        return (0.0, *(sign * step for step in steps for sign in (1.0, -1.0)))


@dataclass(frozen=True)
class CorrelationalSettings(TrainingSettings):
    """Stage `vae`: the correlational autoencoder, its training and the weights of its terms.

    Attributes:
        architecture: As of every method's autoencoder.
        reconstruction: |D(z1) - x1| + |D(z2) - x2|.
        perceptual: Of both images.
        kl: lambda_KL.
        correlation: lambda_c, of the correlation of z1 with z2, which is raised.
        classification: lambda_cls, of the auxiliary classifier's cross-entropy.
    """

    architecture: VAEArchitecture = field(default_factory=VAEArchitecture)
    reconstruction: WeightedTerm = field(default_factory=WeightedTerm)
    perceptual: WeightedTerm = field(default_factory=WeightedTerm)
    kl: WeightedTerm = field(default_factory=lambda: WeightedTerm(1e-6))
    correlation: WeightedTerm = field(default_factory=lambda: WeightedTerm(0.1))
    classification: WeightedTerm = field(default_factory=lambda: WeightedTerm(0.2))

    def __post_init__(self) -> None:
        """Reject batches over which nothing can correlate."""
        super().__post_init__()
        if self.correlation.weight and self.batch_size < 3:
            raise ValueError(
                f"batch_size is 3 or more if correlation.weight is above 0, not {self.batch_size}"
            )


@dataclass(frozen=True)
class FlowSettings(TrainingSettings):
    """Stage `flow`: the velocity's U-Net and its training.

    Attributes:
        block_out_channels: Channels of each level; each level but the last halves the latents.
        layers_per_block: Residual blocks of a level.
        norm_num_groups: Groups of each group norm; divides every number of channels.
        attention_head_dim: Channels of an attention head; divides every number of channels.
    """

    block_out_channels: tuple[int, ...] = (64, 128)
    layers_per_block: int = 1
    norm_num_groups: int = 32
    attention_head_dim: int = 16

    def __post_init__(self) -> None:
        """Reject networks that cannot be built."""
        super().__post_init__()
        if not self.block_out_channels:
            raise ValueError("block_out_channels names at least one level")
        for name in ("norm_num_groups", "attention_head_dim"):
            divisor = getattr(self, name)
            if divisor < 1 or any(c < 1 or c % divisor for c in self.block_out_channels):
                raise ValueError(
                    f"block_out_channels are multiples of {name} {divisor}, not "
                    f"{list(self.block_out_channels)}"
                )
        if self.layers_per_block < 1:
            raise ValueError(f"layers_per_block is 1 or more, not {self.layers_per_block}")


@dataclass(frozen=True)
class FlowDrawSettings:
    """Stage `draws`: how the flow is followed from z1; nothing is trained again for it.

    Attributes:
        sampler: `sde`: dz = v dt + s dW, K draws; `ode`: dz = v dt, one outcome.
        num_steps: Euler steps from t = 0 to 1.
        noise: s, in deviations of the latents; read by `sde` alone.
    """

    sampler: Literal["ode", "sde"] = "sde"
    num_steps: int = 20
    noise: float = 0.05

    def __post_init__(self) -> None:
        """Reject flows that go nowhere, and noise that is none."""
        if self.num_steps < 1:
            raise ValueError(f"num_steps is 1 or more, not {self.num_steps}")
        if self.noise <= 0:
            raise ValueError(f"noise is above 0, not {self.noise}; for none, set sampler to ode")


@dataclass(frozen=True)
class CorrFlowNetConfig(MethodConfig):
    """Everything that a CorrFlowNet run reads. Sections belong to stages of the same name."""

    method: str = "corrflownet"
    registration: RegistrationSettings = field(default_factory=RegistrationSettings)
    perceptual: PerceptualSettings = field(default_factory=PerceptualSettings)
    vae: CorrelationalSettings = field(default_factory=CorrelationalSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    draws: FlowDrawSettings = field(default_factory=FlowDrawSettings)

    def __post_init__(self) -> None:
        """Reject images that the networks cannot halve often enough."""
        super().__post_init__()
        factor = self.vae.architecture.downsampling
        if self.image.size % factor:
            raise ValueError(
                f"image.size {self.image.size} is not a multiple of the VAE's factor {factor}"
            )
        side, halvings = self.image.size // factor, len(self.flow.block_out_channels) - 1
        if side % 2**halvings:
            raise ValueError(
                f"latents of {side} positions a side cannot be halved {halvings} times, as "
                "flow.block_out_channels asks"
            )
