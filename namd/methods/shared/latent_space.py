"""Between the autoencoder's latents and those that a diffusion model sees, both ways.

The numbers are measured by stage `latents`; each artifact that a drawer reads carries them along.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from namd.methods.shared.settings import LatentSettings
from namd.models.vae import Posterior

FILE = "latent_space.json"


@dataclass(frozen=True)
class LatentSpace:
    """How latents are scaled and folded.

    Attributes:
        scale: What the autoencoder's latents are multiplied by; a tensor (C, 1, 1) has a factor
            for each channel.
        shift: What is subtracted before, (C, 1, 1); None: nothing.
        fold: Side of the squares of positions that become channels.
    """

    scale: float | Float[Tensor, "C 1 1"]
    shift: Float[Tensor, "C 1 1"] | None = None
    fold: int = 1

    def posterior(self, unscaled: Posterior) -> Posterior:
        """Return the posterior that the diffusion model sees."""
        mean, scale = unscaled.mean, _on(self.scale, unscaled.mean)
        stretch = 2 * scale.log() if isinstance(scale, Tensor) else 2 * float(np.log(scale))
        if self.shift is not None:
            mean = mean - self.shift.to(mean)
        mean, logvar = mean * scale, unscaled.logvar + stretch
        if self.fold > 1:
            mean, logvar = pixel_unshuffle(mean, self.fold), pixel_unshuffle(logvar, self.fold)
        return Posterior(mean, logvar)

    def unscaled(self, latents: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C H W"]:
        """Return what the autoencoder decodes: the inverse of `posterior` on means."""
        if self.fold > 1:
            latents = pixel_shuffle(latents, self.fold)
        latents = latents / _on(self.scale, latents)
        return latents if self.shift is None else latents + self.shift.to(latents)

    def save(self, folder: Path) -> None:
        """Write the numbers, unless they are the autoencoder's own factor alone."""
        if self.shift is None and self.fold == 1:
            return
        found = {"scale": _plain(self.scale), "shift": _plain(self.shift), "fold": self.fold}
        (folder / FILE).write_text(json.dumps(found, sort_keys=True))


def load_latent_space(folder: Path, scaling_factor: float) -> LatentSpace:
    """Return the space of an artifact; without its own, that of the autoencoder's factor."""
    path = folder / FILE
    if not path.is_file():
        return LatentSpace(scaling_factor)
    found = json.loads(path.read_text())
    shift = None if found["shift"] is None else _by_channel(found["shift"])
    scale = found["scale"]
    scale = _by_channel(scale) if isinstance(scale, list) else float(scale)
    return LatentSpace(scale, shift, int(found["fold"]))


def copy_latent_space(source: Path, destination: Path) -> None:
    """Hand the space of one artifact on to another that is read without it."""
    if (source / FILE).is_file():
        shutil.copyfile(source / FILE, destination / FILE)


def measured_space(
    settings: LatentSettings, scaling_factor: float, posteriors: list[Posterior]
) -> LatentSpace:
    """Return the space of a configuration, measured on unscaled posteriors of train crops.

    Means and deviations per channel are those of posterior samples, worked out from the moments.
    """
    if settings.scaling == "global":
        return LatentSpace(scaling_factor, fold=settings.fold)
    means = torch.cat([p.mean for p in posteriors]).double()
    noise = torch.cat([p.logvar for p in posteriors]).double().exp()
    shift = means.mean((0, 2, 3), keepdim=True)[0]
    variance = (means - shift).square().mean((0, 2, 3)) + noise.mean((0, 2, 3))
    return LatentSpace(variance.rsqrt().float()[:, None, None], shift.float(), settings.fold)


def _plain(value: float | Tensor | None) -> float | list[float] | None:
    return value.flatten().tolist() if isinstance(value, Tensor) else value


def _by_channel(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _on(value: float | Tensor, like: Tensor) -> float | Tensor:
    return value.to(like) if isinstance(value, Tensor) else value
