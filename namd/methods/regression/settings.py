"""Configuration of the regression. Torch-free."""

from dataclasses import dataclass, field

from namd.methods.shared.settings import MethodConfig
from namd.train.settings import TrainingSettings


@dataclass(frozen=True)
class RegressionSettings(TrainingSettings):
    """Stage `regression`: the U-Net and its training.

    Attributes:
        block_out_channels: Channels of each level; each level but the last halves the image.
        layers_per_block: Residual blocks of a level.
        norm_num_groups: Groups of each group norm; divides every number of channels.
    """

    block_out_channels: tuple[int, ...] = (32, 64, 128)
    layers_per_block: int = 1
    norm_num_groups: int = 8

    def __post_init__(self) -> None:
        """Reject networks that cannot be built."""
        super().__post_init__()
        if not self.block_out_channels:
            raise ValueError("block_out_channels names at least one level")
        if self.norm_num_groups < 1:
            raise ValueError(f"norm_num_groups is 1 or more, not {self.norm_num_groups}")
        for channels in self.block_out_channels:
            if channels < 1 or channels % self.norm_num_groups:
                raise ValueError(
                    f"block_out_channels are multiples of norm_num_groups {self.norm_num_groups}, "
                    f"not {channels}"
                )
        if self.layers_per_block < 1:
            raise ValueError(f"layers_per_block is 1 or more, not {self.layers_per_block}")


@dataclass(frozen=True)
class RegressionConfig(MethodConfig):
    """One section of its own."""

    method: str = "regression"
    regression: RegressionSettings = field(default_factory=RegressionSettings)

    def __post_init__(self) -> None:
        """Reject images that the U-Net cannot halve often enough."""
        super().__post_init__()
        halvings = len(self.regression.block_out_channels) - 1
        if self.image.size % 2**halvings:
            raise ValueError(
                f"image.size {self.image.size} cannot be halved {halvings} times, as "
                "regression.block_out_channels asks"
            )
