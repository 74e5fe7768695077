"""Configuration of ImageFlowNet. Torch-free."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from namd.methods.shared.settings import MethodConfig, WeightedTerm
from namd.train.settings import TrainingSettings


@dataclass(frozen=True)
class UNetSettings:
    """The U-Net, an ADM U-Net by default.

    Attributes:
        block_out_channels: Channels of each level; each level but the last halves the image.
        layers_per_block: Residual blocks of a level.
        norm_num_groups: Groups of each group norm; divides every number of channels.
        attention_sizes: Sides in pixels of the levels that have self-attention.
        num_heads: Heads of every self-attention; divides the channels of its level.
    """

    block_out_channels: tuple[int, ...] = (64, 128, 192, 256)
    layers_per_block: int = 1
    norm_num_groups: int = 32
    attention_sizes: tuple[int, ...] = (32, 16, 8)
    num_heads: int = 4

    def __post_init__(self) -> None:
        """Reject networks that cannot be built."""
        if not self.block_out_channels:
            raise ValueError("block_out_channels names at least one level")
        for name in ("layers_per_block", "norm_num_groups", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is 1 or more, not {getattr(self, name)}")
        for channels in self.block_out_channels:
            for name in ("norm_num_groups", "num_heads"):
                if channels < 1 or channels % getattr(self, name):
                    raise ValueError(
                        f"block_out_channels are multiples of {name} {getattr(self, name)}, "
                        f"not {channels}"
                    )

    @property
    def halvings(self) -> int:
        """How many times the image is halved."""
        return len(self.block_out_channels) - 1


@dataclass(frozen=True)
class SDESettings:
    """The latent SDEs dh = f(h) dt + sigma dW, and their Euler steps.

    Attributes:
        tau: Where the follow-up lies, in the SDE's own time; the baseline lies at 0.
        dt: Length of an Euler step; divides tau.
        initial_sigma: Initial sigma of every SDE; 0 with `learned_sigma: false`: an ODE.
        learned_sigma: Whether sigma is trained.
        evolved: `all`: the bottleneck and every skip connection; `bottleneck`: it alone, an
            ablation [ours].
        recompute: Compute the drift again in the backward pass: two thirds less memory, a third
            more time, equal gradients [ours].
    """

    tau: float = 5.0
    dt: float = 0.05
    initial_sigma: float = 0.5
    learned_sigma: bool = True
    evolved: Literal["all", "bottleneck"] = "all"
    recompute: bool = False

    def __post_init__(self) -> None:
        """Reject times that Euler steps of equal length do not reach."""
        if self.dt <= 0 or self.tau <= 0:
            raise ValueError(f"tau and dt are above 0, not {self.tau} and {self.dt}")
        if not math.isclose(self.num_steps * self.dt, self.tau, rel_tol=1e-6):
            raise ValueError(f"dt divides tau {self.tau}: {self.dt} does not")
        if self.initial_sigma < 0:
            raise ValueError(f"initial_sigma is 0 or more, not {self.initial_sigma}")

    @property
    def num_steps(self) -> int:
        """Euler steps from the baseline to the follow-up."""
        return round(self.tau / self.dt)

    @property
    def stochastic(self) -> bool:
        """Whether two draws differ."""
        return self.initial_sigma > 0 or self.learned_sigma


@dataclass(frozen=True)
class ImageFlowNetSettings(TrainingSettings):
    """Stage `latent_sde`: the networks, their two losses and their training.

    Attributes:
        warmup_share: Part of the training that is a linear warm-up; takes the place of
            `warmup_steps`.
        max_pairs: Pairs in an epoch at most; counts if `num_epochs` is given.
        architecture: The U-Net.
        sde: The latent SDEs.
        reconstruction: Squared error at tau 0; it trains the U-Net.
        prediction: Squared error at tau; it trains the SDEs, and the U-Net until it is frozen.
        freeze_psnr: The prediction stops training the U-Net once the reconstructions of validation
            images have this PSNR in dB; None: it never stops.
        input_noise: Training inputs get U(0, input_noise) x N(0, 1), in units of [-1, 1].
    """

    batch_size: int = 64
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    ema_decay: float = 0.9
    warmup_share: float = 0.1
    max_pairs: int = 2048
    architecture: UNetSettings = field(default_factory=UNetSettings)
    sde: SDESettings = field(default_factory=SDESettings)
    reconstruction: WeightedTerm = field(default_factory=WeightedTerm)
    prediction: WeightedTerm = field(default_factory=WeightedTerm)
    freeze_psnr: float | None = 25.0
    input_noise: float = 0.1

    def __post_init__(self) -> None:
        """Reject two statements of one warm-up, and impossible numbers."""
        super().__post_init__()
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share lies in [0, 1), not {self.warmup_share}")
        if self.warmup_share and self.warmup_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and warmup_share {self.warmup_share}: one is 0"
            )
        if self.max_pairs < self.batch_size:
            raise ValueError(f"max_pairs {self.max_pairs} is below batch_size {self.batch_size}")
        if self.input_noise < 0:
            raise ValueError(f"input_noise is 0 or more, not {self.input_noise}")
        if not self.reconstruction.weight and not self.prediction.weight:
            raise ValueError("reconstruction.weight and prediction.weight are not both 0")

    def steps_for(self, num_cases: int) -> int:
        """Return the number of optimiser steps; an epoch has `max_pairs` pairs at most."""
        return super().steps_for(min(num_cases, self.max_pairs))

    def rate_at(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step (0-based) of a training of that many steps."""
        if not self.warmup_share:
            return super().rate_at(step, num_steps)
        counted = round(self.warmup_share * num_steps)
        return replace(self, warmup_share=0.0, warmup_steps=counted).rate_at(step, num_steps)


@dataclass(frozen=True)
class ImageFlowNetConfig(MethodConfig):
    """One section of its own."""

    method: str = "imageflownet"
    imageflownet: ImageFlowNetSettings = field(default_factory=ImageFlowNetSettings)

    def __post_init__(self) -> None:
        """Reject images that the U-Net cannot halve, or whose bottleneck is a single position."""
        super().__post_init__()
        architecture = self.imageflownet.architecture
        factor = 2**architecture.halvings
        if self.image.size % factor or self.image.size < 2 * factor:
            raise ValueError(
                f"image.size {self.image.size} cannot be halved {architecture.halvings} times to 2 "
                "or more, as imageflownet.architecture.block_out_channels asks"
            )
        sizes = {self.image.size // 2**level for level in range(architecture.halvings + 1)}
        missing = sorted(set(architecture.attention_sizes) - sizes)
        if missing:
            raise ValueError(
                f"imageflownet.architecture.attention_sizes {missing} are no level's; levels are "
                f"{sorted(sizes)}"
            )
