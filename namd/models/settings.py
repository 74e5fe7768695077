"""Shapes of the networks as values. Torch-free, so that plans and searches can read them."""

from dataclasses import dataclass, field
from typing import Literal

from namd.config.parsing import LATER

LOGVAR_RANGE = (-30.0, 20.0)
"""To which diffusers clamps a posterior's log-variance."""

TextProjection = Literal["none", "text_proj"]


@dataclass(frozen=True)
class VAEArchitecture:
    """A diffusers `AutoencoderKL`.

    Attributes:
        weights: Folder in diffusers' format to start from (SD1.5: the folder that holds
            `vae/`), or None: random weights of the shape below.
        in_channels: 1 for grey images, 3 for a Stable Diffusion VAE (grey is repeated).
        pixel_unshuffle: Factor by which pixels are folded into channels before the first
            convolution and out of them after the last [ours]; 1: Stable Diffusion's. On a CPU
            the full-size levels of a VAE cost more than all others together.
        block_out_channels: One level per entry; the downsampling factor is
            pixel_unshuffle * 2^(levels - 1).
        layers_per_block: Residual blocks per level.
        latent_channels: Channels of z.
        norm_num_groups: Groups of the group norms.
        mid_block_attention: Self-attention at the lowest resolution.
        dropout: In the residual blocks, in training only (NAMD's released code: 0.2).
        posterior_logvar_init: Log-variance of every posterior before the first step [ours]; null:
            whatever random weights give, about 0. Random weights only.
    """

    weights: str | None = None
    in_channels: int = 1
    pixel_unshuffle: int = 1
    block_out_channels: tuple[int, ...] = (16, 32, 64, 64)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 8
    mid_block_attention: bool = True
    dropout: float = 0.2
    posterior_logvar_init: float | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Reject shapes that diffusers would refuse later, or build silently."""
        if self.in_channels not in (1, 3):
            raise ValueError(f"in_channels is 1 or 3, not {self.in_channels}")
        if not self.block_out_channels:
            raise ValueError("block_out_channels needs at least one level")
        _divisible(self.block_out_channels, self.norm_num_groups)
        _at_least_one(self, "layers_per_block", "latent_channels")
        if self.pixel_unshuffle < 1 or (self.pixel_unshuffle > 1 and self.weights is not None):
            raise ValueError(
                f"pixel_unshuffle is 1 or more, and 1 with weights, not {self.pixel_unshuffle}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout lies in [0, 1), not {self.dropout}")
        self._check_logvar()

    def _check_logvar(self) -> None:
        value = self.posterior_logvar_init
        if value is None:
            return
        if self.weights is not None:
            raise ValueError(
                f"posterior_logvar_init {value} would overwrite what the pretrained weights know; "
                "set it to null, or weights to null"
            )
        if not LOGVAR_RANGE[0] <= value <= LOGVAR_RANGE[1]:
            raise ValueError(f"posterior_logvar_init lies in {list(LOGVAR_RANGE)}, not {value}")

    @property
    def downsampling(self) -> int:
        """Pixels per latent position along one axis."""
        return int(self.pixel_unshuffle * 2 ** (len(self.block_out_channels) - 1))


@dataclass(frozen=True)
class UNetArchitecture:
    """A diffusers `UNet2DConditionModel`; the defaults are not SD1.5's but a small net's.

    Attributes:
        weights: Folder in diffusers' format (SD1.5: the folder that holds `unet/`), or None.
        block_out_channels: One resolution per entry.
        layers_per_block: Residual blocks per resolution.
        num_attention_heads: diffusers calls this `attention_head_dim` in SD1.5 (8 heads).
        norm_num_groups: Groups of the group norms.
        attention_from: First level that carries cross-attention on the way down; SD1.5's
            last level carries none (`attention_last` False).
        attention_last: Whether the lowest level carries cross-attention.
        text_projection: How a context wider than the weights' own enters: `none` re-initialises
            the K/V projections, `text_proj` keeps them behind a new linear layer.
        dropout: In the residual and transformer blocks, in training only.
    """

    weights: str | None = None
    block_out_channels: tuple[int, ...] = (96, 192)
    layers_per_block: int = 2
    num_attention_heads: int = 8
    norm_num_groups: int = 32
    attention_from: int = 0
    attention_last: bool = True
    text_projection: TextProjection = "none"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Reject shapes that cannot be built."""
        if not self.block_out_channels:
            raise ValueError("block_out_channels needs at least one level")
        _divisible(self.block_out_channels, self.norm_num_groups)
        _divisible(self.block_out_channels, self.num_attention_heads)
        _at_least_one(self, "layers_per_block")
        if not 0 <= self.attention_from < len(self.block_out_channels):
            raise ValueError(f"attention_from names no level: {self.attention_from}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout lies in [0, 1), not {self.dropout}")


@dataclass(frozen=True)
class PerceptualSettings:
    """What L_LPIPS measures its distance with.

    Attributes:
        source: `lpips` is the lpips package's VGG (needs its trunk weights on disk),
            `embedded` a small encoder trained without labels to tell a crop's rotation,
            `auto` the first of these that this machine can have.
        num_steps: Training steps of the embedded encoder.
        batch_size: Crops per step.
        learning_rate: AdamW's.
        channels: Channels per level of the embedded encoder.
        seed: Seed of the embedded encoder; one for all training seeds.
    """

    source: Literal["auto", "lpips", "embedded"] = "auto"
    num_steps: int = 400
    batch_size: int = 64
    learning_rate: float = 1e-3
    channels: tuple[int, ...] = (16, 32, 64)
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject impossible numbers."""
        if self.num_steps < 0 or self.batch_size < 1:
            raise ValueError(
                f"num_steps >= 0 and batch_size >= 1, not {self.num_steps}, {self.batch_size}"
            )
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is above 0, not {self.learning_rate}")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels are 1 or more on one level or more, not {self.channels}")


@dataclass(frozen=True)
class TrunkSettings:
    """Where the trunks of LPIPS and Inception lie: a file, or the folder that holds it.

    A `.pth` is the published one, by its SHA-256; a `.safetensors` holds the same tensors. null:
    `weights/`, `$NAMD_WEIGHTS`, torch hub's cache.
    """

    lpips_vgg: str | None = None
    lpips_alex: str | None = None
    inception: str | None = None

    def __post_init__(self) -> None:
        """Reject an empty path."""
        for name in ("lpips_vgg", "lpips_alex", "inception"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} is a path or null, not empty")


def _at_least_one(owner: object, *names: str) -> None:
    for name in names:
        if getattr(owner, name) < 1:
            raise ValueError(f"{name} is 1 or more, not {getattr(owner, name)}")


def _divisible(channels: tuple[int, ...], divisor: int) -> None:
    if divisor < 1 or any(width < 1 or width % divisor for width in channels):
        raise ValueError(
            f"every width of {list(channels)} must be a positive multiple of {divisor}"
        )
