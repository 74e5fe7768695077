"""The VAE: a diffusers AutoencoderKL on grey crops. Losses and training live elsewhere."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor, nn

from namd.config.errors import InputError
from namd.models.settings import VAEArchitecture
from namd.models.weights import require

EXTRA_FILE = "autoencoder.json"
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over latents, unscaled."""

    mean: Float[Tensor, "*batch C h w"]
    logvar: Float[Tensor, "*batch C h w"]

    def at(self, *index: np.ndarray) -> "Posterior":
        """Return the posteriors at an index over the leading axes."""
        return Posterior(self.mean[index], self.logvar[index])

    def sample(self, noise: Float[Tensor, "*batch C h w"]) -> Float[Tensor, "*batch C h w"]:
        """Return mean + standard deviation * noise."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise


class GreyAutoencoder(nn.Module):
    """An AutoencoderKL that takes and gives grey images in [-1, 1].

    For a VAE of three channels the grey image is repeated on the way in and the channel mean
    is taken on the way out (NAMD's use of SD1.5).
    """

    def __init__(self, autoencoder: AutoencoderKL, pixel_unshuffle: int = 1) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.pixel_unshuffle = pixel_unshuffle
        self.grey_channels = autoencoder.config.in_channels // pixel_unshuffle**2

    @property
    def latent_channels(self) -> int:
        """Channels of z."""
        return int(self.autoencoder.config.latent_channels)

    @property
    def downsampling(self) -> int:
        """Pixels per latent position along one axis."""
        levels = len(self.autoencoder.config.block_out_channels)
        return int(self.pixel_unshuffle * 2 ** (levels - 1))

    def encode(self, images: Float[Tensor, "B 1 H W"]) -> Posterior:
        """Return the posterior over unscaled latents."""
        repeated = images.expand(-1, self.grey_channels, -1, -1)
        folded = nn.functional.pixel_unshuffle(repeated, self.pixel_unshuffle)
        posterior = self.autoencoder.encode(folded).latent_dist
        return Posterior(posterior.mean, posterior.logvar)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 H W"]:
        """Return images of unscaled latents, not clamped."""
        folded = self.autoencoder.decode(latents).sample
        return nn.functional.pixel_shuffle(folded, self.pixel_unshuffle).mean(1, keepdim=True)


def build_vae(architecture: VAEArchitecture) -> GreyAutoencoder:
    """Return a VAE from its folder of weights, or from configuration with random weights.

    The weights are named by folder or hub name. Raises InputError if there is no diffusers
    VAE in safetensors.
    """
    if architecture.weights is None:
        autoencoder = AutoencoderKL(**_diffusers_arguments(architecture))
        if architecture.posterior_logvar_init is not None:
            _start_logvar_at(autoencoder, architecture.posterior_logvar_init)
    else:
        autoencoder = load_diffusers(
            AutoencoderKL, require("sd15-vae", architecture.weights), "vae"
        )
    for block in autoencoder.modules():
        if isinstance(block, ResnetBlock2D):
            block.dropout.p = architecture.dropout
    return GreyAutoencoder(autoencoder, architecture.pixel_unshuffle)


def save_vae(vae: GreyAutoencoder, folder: Path, scaling_factor: float) -> None:
    """Write the VAE in diffusers' format, and beside it what that format has no word for."""
    vae.autoencoder.register_to_config(scaling_factor=scaling_factor)
    vae.autoencoder.save_pretrained(folder / "vae", safe_serialization=True)
    extra = {"scaling_factor": scaling_factor, "pixel_unshuffle": vae.pixel_unshuffle}
    (folder / EXTRA_FILE).write_text(json.dumps(extra))


def load_vae(folder: Path) -> tuple[GreyAutoencoder, float]:
    """Return the VAE of a stage artifact, frozen and in eval mode, and its scaling factor."""
    autoencoder = load_diffusers(AutoencoderKL, folder, "vae")
    extra = json.loads((folder / EXTRA_FILE).read_text())
    vae = GreyAutoencoder(autoencoder, int(extra["pixel_unshuffle"]))
    return vae.requires_grad_(False).eval(), float(extra["scaling_factor"])


def load_diffusers(model_class: type[Model], folder: Path, part: str) -> Model:
    """Load a diffusers model from `folder/part`, or from `folder` itself; safetensors only.

    Raises InputError naming the folder where there is no such model.
    """
    place = folder / part if (folder / part).is_dir() else folder
    if not (place / "config.json").is_file():
        raise InputError(f"{folder}: no diffusers model there (expected {part}/config.json)")
    if not any(place.glob("*.safetensors")):
        raise InputError(f"{place}: no .safetensors file (pickled weights are never read)")
    model = model_class.from_pretrained(  # type: ignore[attr-defined]
        place, use_safetensors=True, local_files_only=True
    )
    # diffusers remembers where a model came from and would write this machine's path into the
    # next artifact.
    model.register_to_config(_name_or_path="")
    return model


@torch.no_grad()
def _start_logvar_at(autoencoder: AutoencoderKL, logvar: float) -> None:
    """Make every posterior's log-variance this number, whatever the image; means stay as drawn."""
    moments = autoencoder.quant_conv
    channels = autoencoder.config.latent_channels
    moments.weight[channels:] = 0
    moments.bias[channels:] = logvar


def _diffusers_arguments(architecture: VAEArchitecture) -> dict[str, object]:
    levels = len(architecture.block_out_channels)
    return {
        "in_channels": architecture.in_channels * architecture.pixel_unshuffle**2,
        "out_channels": architecture.in_channels * architecture.pixel_unshuffle**2,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": architecture.block_out_channels,
        "layers_per_block": architecture.layers_per_block,
        "latent_channels": architecture.latent_channels,
        "norm_num_groups": architecture.norm_num_groups,
        "mid_block_add_attention": architecture.mid_block_attention,
    }
