"""McWGAN's generator, critic and the ResNet whose features its loss compares."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from diffusers import UNet2DModel
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from namd.methods.mcwgan.settings import WganSettings

FILE = "resnet.safetensors"
SLOPE = 0.2
"""Of the critic's leaky ReLU below 0."""


def build_generator(settings: WganSettings, size: int) -> UNet2DModel:
    """Return the U-Net: residual blocks and group norm, no attention, zero output at first."""
    levels = len(settings.block_out_channels)
    network = UNet2DModel(
        sample_size=size // settings.pixel_unshuffle,
        in_channels=settings.pixel_unshuffle**2,
        out_channels=settings.pixel_unshuffle**2,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        block_out_channels=tuple(settings.block_out_channels),
        layers_per_block=settings.layers_per_block,
        norm_num_groups=settings.norm_num_groups,
        add_attention=False,
    )
    nn.init.zeros_(network.conv_out.weight)
    nn.init.zeros_(network.conv_out.bias)
    return network


def predict(network: UNet2DModel, baseline: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return x2^ = G(x1) = x1 + U(x1); values may leave [-1, 1]. No noise enters [ours].

    The U-Net is diffusers', at a constant timestep. As its last convolution starts at zero, an
    untrained generator copies the baseline. A network of n^2 channels sees squares of n x n pixels.
    """
    side = math.isqrt(network.config["in_channels"])
    change = network(nn.functional.pixel_unshuffle(baseline, side), timestep=0).sample
    return baseline + nn.functional.pixel_shuffle(change, side)


class ConvolutionalCritic(nn.Module):
    """D: one number for each image; above 0 speaks for a real follow-up.

    Convolutions of 4 pixels at stride 2 with leaky ReLU, then one linear layer. Nothing is
    normalised: the penalty is on the slope at one image, which a batch's statistics would
    mix (Gulrajani et al. 2017).

    Args:
        channels: Of each convolution; each halves the image.
        size: Pixels per side of an image.
    """

    def __init__(self, channels: Sequence[int], size: int) -> None:
        super().__init__()
        layers = [
            layer
            for before, after in itertools.pairwise((1, *channels))
            for layer in (nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE))
        ]
        self.levels = nn.Sequential(*layers)
        self.head = nn.Linear(channels[-1] * (size // 2 ** len(channels)) ** 2, 1)

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, " B"]:
        """Return the verdicts."""
        return self.head(self.levels(images).flatten(1))[:, 0]


def build_resnet(blocks: Sequence[int]) -> ResNet:
    """Return torchvision's ResNet for images of one channel, with one logit."""
    network = ResNet(BasicBlock, list(blocks), num_classes=1)
    network.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


def save_resnet(network: ResNet, folder: Path) -> None:
    """Write the weights and the statistics of its batch norms."""
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / FILE)


class FrozenFeatures(nn.Module):
    """phi: the last hidden layer of a `resnet` artifact, 512 numbers an image; it never learns.

    It stays in eval mode even where the module around it trains: drawn images must not move the
    batch norms' statistics.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.network.fc = nn.Identity()
        self.train()

    @classmethod
    def load(cls, folder: Path, blocks: Sequence[int]) -> "FrozenFeatures":
        """Read the artifact."""
        network = build_resnet(blocks)
        network.load_state_dict(load_file(folder / FILE))
        return cls(network)

    def train(self, mode: bool = True) -> "FrozenFeatures":  # noqa: ARG002 - torch's
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 512"]:
        """Return the features that the classifier's last layer reads."""
        return self.network(images)
