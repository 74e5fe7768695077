"""ImageFlowNet's network: diffusers' U-Net, cut where its latents evolve."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from namd.methods.imageflownet.sde import LatentSDE, Noise
from namd.methods.imageflownet.settings import SDESettings, UNetSettings

BOTTLENECK = "bottleneck"
Latents = dict[str, Tensor]
"""The skip connections in the order in which they are made, then the bottleneck, by name."""


def build_unet(settings: UNetSettings, size: int) -> UNet2DModel:
    """Return the U-Net, with `num_heads` heads at each level that has attention.

    diffusers fixes the width of a head instead, which is the same for all levels.
    """
    sides = [size // 2**level for level in range(settings.halvings + 1)]
    kinds = ["Attn" if side in settings.attention_sizes else "" for side in sides]
    network = UNet2DModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        block_out_channels=tuple(settings.block_out_channels),
        layers_per_block=settings.layers_per_block,
        norm_num_groups=settings.norm_num_groups,
        attention_head_dim=None,
        add_attention=bool(settings.attention_sizes),
    )
    for module in network.modules():
        if isinstance(module, Attention):
            module.heads = settings.num_heads
    return network


class EvolvingUNet(nn.Module):
    """A U-Net whose bottleneck and skip connections each evolve by an SDE of their own."""

    def __init__(self, unet: UNetSettings, sde: SDESettings, size: int) -> None:
        super().__init__()
        self.unet = build_unet(unet, size)
        with torch.no_grad():
            latents = self.encode(torch.zeros(1, 1, size, size))
        self.sdes = nn.ModuleDict(
            {
                name: LatentSDE(latent.shape[1], sde)
                for name, latent in latents.items()
                if sde.evolved == "all" or name == BOTTLENECK
            }
        )

    def encode(self, images: Float[Tensor, "B 1 H W"]) -> Latents:
        """Return the skip connections and what the middle block makes of the last one."""
        emb = self._embedding(images)
        sample = self.unet.conv_in(images)
        skips = [sample]
        for block in self.unet.down_blocks:
            sample, made = block(hidden_states=sample, temb=emb)
            skips.extend(made)
        named = {f"skip{number}": skip for number, skip in enumerate(skips)}
        return named | {BOTTLENECK: self.unet.mid_block(sample, emb)}

    def evolve(self, latents: Latents, noise: Noise) -> Latents:
        """Return the latents at tau; those without an SDE stay as they are."""

        def evolved(name: str, latent: Tensor) -> Tensor:
            if name not in self.sdes:
                return latent
            return self.sdes[name](latent, lambda n: noise(name, n, latent.shape[1:]))

        return {name: evolved(name, latent) for name, latent in latents.items()}

    def decode(self, latents: Latents) -> Float[Tensor, "B 1 H W"]:
        """Return the images of latents; values may leave [-1, 1]."""
        *skips, sample = latents.values()
        emb = self._embedding(sample)
        for block in self.unet.up_blocks:
            count = len(block.resnets)
            sample = block(sample, tuple(skips[-count:]), emb)
            skips = skips[:-count]
        return self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(sample)))

    def reconstruct(self, images: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
        """Return D(E(x)), the images at tau 0: the plain U-Net."""
        return self.decode(self.encode(images))

    def predict(self, images: Float[Tensor, "B 1 H W"], noise: Noise) -> Float[Tensor, "B 1 H W"]:
        """Return D(h(tau)), with h(0) = E(x) and dh = f(h) dt + sigma dW in every latent."""
        return self.decode(self.evolve(self.encode(images), noise))

    def _embedding(self, like: Tensor) -> Tensor:
        """Return diffusers' embedding of timestep 0: the U-Net knows of no time."""
        zeros = torch.zeros(len(like), device=like.device)
        return self.unet.time_embedding(self.unet.time_proj(zeros).to(self.unet.dtype))


@contextmanager
def held_fixed(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through the module inside this block, and reach none of its parameters."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
