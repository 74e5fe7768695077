"""Configuration of McWGAN. Torch-free.

What a docstring marks [ours] is not known of the publication: its layers, weights and training
stand in appendices that were not readable here.
"""

from dataclasses import dataclass, field

from namd.methods.shared.settings import MethodConfig
from namd.train.settings import TrainingSettings

_WEIGHTS = ("l1_weight", "ssim_weight", "feature_weight", "adversarial_weight", "penalty_weight")


@dataclass(frozen=True)
class ResNetSettings(TrainingSettings):
    """Stage `resnet`: the classifier whose last hidden features the generator is held to.

    Attributes:
        blocks: Residual blocks of each of the four stages; (2, 2, 2, 2) is ResNet-18.
    """

    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)

    def __post_init__(self) -> None:
        """Reject stages without a block."""
        super().__post_init__()
        if min(self.blocks) < 1:
            raise ValueError(f"blocks are 1 or more in each stage, not {list(self.blocks)}")


@dataclass(frozen=True)
class WganSettings(TrainingSettings):
    """Stage `wgan`: generator and critic, their losses and how often each moves.

    A step is `critic_steps` updates of the critic and one of the generator, each on a batch of its
    own. Adam 1e-4 with betas 0 and 0.9, and all weights, are [ours].

    Attributes:
        block_out_channels: Channels of each level of the generator's U-Net; each level but the
            last halves the image [ours].
        layers_per_block: Residual blocks of a level of the U-Net [ours].
        norm_num_groups: Groups of each of its group norms; divides every number of channels.
        pixel_unshuffle: Side of the squares of pixels that the U-Net sees as channels [ours]; 1:
            it works on pixels, at four times the cost of 2.
        critic_channels: Channels of the critic's convolutions, each of which halves the
            image [ours].
        critic_steps: Updates of the critic for each of the generator (Gulrajani et al. 2017: 5).
        critic_learning_rate: Peak learning rate of the critic; None: the generator's.
        l1_weight: a, of the mean absolute difference.
        ssim_weight: b, of 1 - SSIM.
        feature_weight: c, of the distance of ResNet features; 0: no ResNet is trained.
        adversarial_weight: d, of the critic's verdict; 0: no critic is trained.
        penalty_weight: Of the gradient penalty in the critic's loss (Gulrajani et al. 2017: 10).
    """

    betas: tuple[float, float] = (0.0, 0.9)
    weight_decay: float = 0.0
    block_out_channels: tuple[int, ...] = (32, 64, 128)
    layers_per_block: int = 1
    norm_num_groups: int = 8
    pixel_unshuffle: int = 1
    critic_channels: tuple[int, ...] = (32, 64, 128, 256)
    critic_steps: int = 5
    critic_learning_rate: float | None = None
    l1_weight: float = 1.0
    ssim_weight: float = 1.0
    feature_weight: float = 0.1
    adversarial_weight: float = 0.01
    penalty_weight: float = 10.0

    def __post_init__(self) -> None:
        """Reject networks that cannot be built, and losses that say nothing of the case."""
        super().__post_init__()
        self._require_networks()
        if self.critic_learning_rate is not None and self.critic_learning_rate <= 0:
            raise ValueError(
                f"critic_learning_rate is above 0 or null, not {self.critic_learning_rate}"
            )
        for name in _WEIGHTS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is 0 or more, not {getattr(self, name)}")
        if not (self.l1_weight or self.ssim_weight or self.feature_weight):
            raise ValueError(
                "one of l1_weight, ssim_weight and feature_weight is above 0: the critic alone "
                "does not say whose follow-up is asked for"
            )

    def _require_networks(self) -> None:
        for name in ("block_out_channels", "critic_channels"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"{name} names at least one level, each of 1 channel or more")
        if self.norm_num_groups < 1:
            raise ValueError(f"norm_num_groups is 1 or more, not {self.norm_num_groups}")
        for channels in self.block_out_channels:
            if channels % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels are multiples of norm_num_groups {self.norm_num_groups}, "
                    f"not {channels}"
                )
        for name in ("layers_per_block", "pixel_unshuffle", "critic_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")


@dataclass(frozen=True)
class McWGANConfig(MethodConfig):
    """Two sections of its own."""

    method: str = "mcwgan"
    resnet: ResNetSettings = field(default_factory=ResNetSettings)
    wgan: WganSettings = field(default_factory=WganSettings)

    def __post_init__(self) -> None:
        """Reject images that the networks cannot halve often enough."""
        super().__post_init__()
        wgan, size = self.wgan, self.image.size
        depth = len(wgan.block_out_channels) - 1
        if size % (wgan.pixel_unshuffle * 2**depth):
            raise ValueError(
                f"image.size {size} cannot be halved {depth} times after wgan.pixel_unshuffle "
                f"{wgan.pixel_unshuffle}, as wgan.block_out_channels asks"
            )
        if size % 2 ** len(wgan.critic_channels):
            raise ValueError(
                f"image.size {size} cannot be halved {len(wgan.critic_channels)} times, as "
                "wgan.critic_channels asks"
            )
