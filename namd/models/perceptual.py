"""Feature extractors for the perceptual loss. The distance itself is in namd.losses."""

import itertools
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class RotationEncoder(nn.Module):
    """A small convolutional encoder trained to tell how many quarter turns a crop is turned.

    It never sees a label, so its features carry none into the ablations [ours; the paper uses
    LPIPS, whose VGG weights a machine may not have].
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        widths = (1, *channels)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(1, after),
                nn.SiLU(),
                nn.Conv2d(after, after, 3, padding=1),
                nn.SiLU(),
            )
            for before, after in itertools.pairwise(widths)
        )
        self.head = nn.Linear(channels[-1] * 16, 4)

    def features(self, images: Float[Tensor, "B 1 H W"]) -> list[Tensor]:
        """Return one feature map per level, finest first."""
        maps, x = [], images
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 4"]:
        """Return logits over quarter turns."""
        pooled = nn.functional.adaptive_avg_pool2d(self.features(images)[-1], 4)
        return self.head(pooled.flatten(1))


def quarter_turned(
    images: Float[Tensor, "B 1 H W"], turns: Int[Tensor, " B"]
) -> Float[Tensor, "B 1 H W"]:
    """Turn each image by its number of quarter turns."""
    turned = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return turned[turns, torch.arange(len(images), device=images.device)]


def save_encoder(encoder: RotationEncoder, folder: Path) -> None:
    """Write the encoder's weights."""
    state = {k: v.contiguous() for k, v in encoder.state_dict().items()}
    save_file(state, folder / "encoder.safetensors")


def load_encoder(folder: Path, channels: tuple[int, ...]) -> RotationEncoder:
    """Return the encoder of a `perceptual` artifact, frozen."""
    encoder = RotationEncoder(channels)
    encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    return encoder.requires_grad_(False).eval()
